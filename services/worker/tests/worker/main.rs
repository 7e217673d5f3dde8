//! The worker over the embedded log, a small S3 server and scripted engines.

mod exactly_once;
mod harness;
mod outcomes;
