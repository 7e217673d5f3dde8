//! The answer: verdicts projected from the verdict topic into a store, read and watched over gRPC, and audited.
//!
//! In come verdict records of the log and requests of callers; out go rows, answers, streams of verdicts as they
//! come, and the auditor's report. Rows and the projector's offset move in one SQL transaction.
//!
//! It never writes to the log, never decides an outcome, and never lets a verdict id change its verdict: the first
//! record of an id wins, a later different one is counted. The tenant comes from the call, never from its body.
//!
//! Start reading at `door.rs`, then `projector.rs` (topic → rows), `service.rs` (rows → answers) and `audit.rs`
//! (topics against each other and against the rows). What a store must do is `store/conformance.rs`.
//!
//! Before you change anything: the verdict topic is the truth and the store its shadow. Whatever a row needs must be
//! in the record, so that a lost store is a replay; and a position in the topic is the row's key, so that a store
//! belongs to one topic of one log.

mod audit;
mod config;
mod door;
mod error;
mod metrics;
mod projector;
mod service;
pub mod store;

#[cfg(test)]
mod testing;

pub use config::{Config, DEFAULTS, RawConfig, Settings};
pub use door::{Query, run};
pub use projector::Projected;
