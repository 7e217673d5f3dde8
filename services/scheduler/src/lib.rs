//! The front door: media are submitted here, checked, and acknowledged once the log has them.
//!
//! In come references of callers; out go records on the lanes' media topics and, to the caller, each record's
//! position, which its verdict will name. A refusal says the field, and whether trying again helps.
//!
//! It never reads an object, never decides an outcome, and keeps no state that correctness rests on: request ids
//! are remembered in memory for some minutes, as a convenience. The tenant comes from the call, never from its body.
//!
//! Start reading at `front_door.rs`: a reference's way from top to bottom. `requests.rs` is what the same request
//! id means; `door.rs` is how the scheduler is opened, added to a server, or run alone.
//!
//! Before you change anything: acknowledged means durable, so nothing may answer before the append has; and an
//! append outlives its caller, so that a request id is never left without its answer.

mod config;
mod door;
mod error;
mod front_door;
mod metrics;
mod requests;
mod service;
mod topics;

pub use config::{Config, DEFAULTS, RawConfig, Settings};
pub use door::{Scheduler, run};
pub use topics::{TopicSettings, create, require};
