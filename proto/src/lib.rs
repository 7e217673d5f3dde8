//! The wire: `.proto` files, the types generated from them, and the conversions to and from the vocabulary.
//!
//! Bytes and generated messages come in; [`forensics`] values go out, and back again.
//!
//! It never decides anything, and no generated type travels further than a service's door: handlers convert on
//! entry and on exit.
//!
//! Start reading at `touchstone/v1/media.proto`, then [`convert`]; topics and headers are named in [`topics`].
//!
//! Before you change anything: field numbers are for ever, new fields must be optional, and the test vectors of
//! the verdict id are published here for other languages.

pub mod convert;
pub mod json;
pub mod server;
pub mod topics;

/// Generated from `touchstone/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("touchstone.v1");
}

/// The descriptors of everything in [`v1`], for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The metadata key that names the tenant of a call.
pub const TENANT_METADATA: &str = "x-touchstone-tenant";
