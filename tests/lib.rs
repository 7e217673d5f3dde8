//! The end-to-end harness: real processes and real services, started on free ports and stopped for sure.
//!
//! In goes the built `touchstone-standalone`; out come addresses, clients and exit codes for the tests in
//! `promises/`.
//!
//! It never reaches into a service: it speaks gRPC, HTTP and the log's own trait.
//!
//! Start reading at [`process`], then any file of `promises/`.
//!
//! Before you change anything: no sleeps (wait for a condition with a deadline), no fixed ports, no order between
//! tests.

pub mod client;
pub mod paint;
pub mod process;
