//! The promises of a fleet: real processes over a real Kafka, S3 server and database.

#![allow(clippy::print_stderr, reason = "a test that measures says what it found")]

mod at_start;
mod crash;
mod elsewhere;
mod outages;
mod owners;
mod replicas;
mod rights;
mod to_try;
