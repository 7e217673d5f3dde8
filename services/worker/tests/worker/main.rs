//! The worker over the embedded log, a small S3 server and scripted engines.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not `#[test]` functions themselves")]

mod backlog;
mod exactly_once;
mod harness;
mod outages;
mod outcomes;
mod telling;
