//! Touchstone in one process: scheduler, query and workers over the embedded log and an embedded object store.
//!
//! In goes one folder; out come the gRPC services on one port, an S3 endpoint, an admin port, and `connection.toml`,
//! from which `touchstone --data` reads all three. A restart on the same folder goes on where it stopped.
//!
//! It never has code of its own on the data's way: what runs here is what runs in a fleet, and only the log and the
//! store behind it are others. It never listens beyond loopback unless told to, because nothing in it asks a caller
//! who it is.
//!
//! Start reading at [`Standalone::start`]; `demo.rs` is its first user, the end-to-end tests are the others.
//!
//! Before you change anything: several of these live in one process, so nothing here may be global. The order of the
//! end is a promise: intakes first, then what drains, then the object store, the log last.

mod config;
mod connection;
mod demo;
pub mod object_store;
mod ready;
mod samples;
mod start;
mod table;

pub use config::{Config, Overrides};
pub use demo::{DemoOptions, demo};
pub use start::{Addresses, Standalone, run};
