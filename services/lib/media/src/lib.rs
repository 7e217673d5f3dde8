//! Bytes to face crops: objects are fetched from S3, decoded within limits, and cut to the network's input.
//!
//! In go references ([`forensics::ObjectRef`]) and the faces a detector found; out come
//! [`Frame`](forensics::Frame)s (u8 RGB `[h, w, 3]`) and [`FaceCrop`](forensics::FaceCrop)s (u8 RGB
//! `[256, 256, 3]`), or an error that says what the caller does next ([`Disposition`]).
//!
//! It never follows a redirect, never talks to another host than the configured one, never reads a body
//! beyond its limit, and never answers a cut picture with a grey half. It finds no faces and judges nothing.
//!
//! Start reading at [`fetch`], then [`decode()`], then [`crop`]: the order in which a frame passes.
//!
//! Before you change anything: the pixels of decode and crop are part of every verdict id. A change that moves
//! them raises [`forensics::Preprocessing::VERSION`].

pub mod crop;
pub mod decode;
pub mod disposition;
pub mod fetch;
pub mod sample;
mod stopwatch;

pub use crop::{Wide, crop_face, crop_whole, crop_wide, sharpness};
pub use decode::{DecodeConfig, DecodeError, DecodeLimits, DecodePool, DecodeSettings, decode};
pub use disposition::{Disposition, SystemicCause};
pub use fetch::{
    ConnectError, Credentials, FetchError, FetchedObject, Listed, ObjectInfo, ObjectStore, Problem, S3Config,
    S3Settings, UploadError,
};

pub use stopwatch::{Paused, Running, Stopwatch};

/// The room's `[s3]` and `[decode]` tables with every knob explained; a service appends them to its own
/// `defaults.toml` and reads them as [`S3Settings`] and [`DecodeSettings`].
pub const DEFAULTS: &str = include_str!("../defaults.toml");
