//! The end-to-end harness: real processes and real services, started on free ports and stopped for sure.
//!
//! In go the built binaries; out come addresses, clients and exit codes for the tests in `promises/`: of one
//! `touchstone-standalone` ([`process`]), or of a whole fleet over Kafka, an S3 server and a database ([`fleet`]).
//!
//! It never reaches into a service: it speaks gRPC, HTTP and the log's own trait.
//!
//! Start reading at [`process`] or [`fleet`], then any file of `promises/`.
//!
//! Before you change anything: no sleeps (wait for a condition with a deadline), no fixed ports, no order between
//! tests.

pub mod admin;
pub mod binaries;
pub mod client;
pub mod fleet;
pub mod moments;
pub mod paint;
pub mod process;
