//! What a [`Log`] means, as tests. Every implementation passes all of them.
//!
//! An implementation's test hands [`run`] a way to make a [`Subject`]; each case gets a fresh one and its own topic,
//! group and slot names, so that a shared broker serves as well as a fresh folder. Nothing here sleeps or counts
//! offsets: each case waits for a condition until the subject's deadline, and offsets may have gaps.

mod membership;
mod reading;
mod stage;
mod topics;
mod transactions;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::log::Log;
use stage::Stage;

/// An implementation under test.
#[async_trait]
pub trait Subject: Send {
    /// A handle to the log: every call leads to the same records.
    fn log(&self) -> Arc<dyn Log>;

    /// Ends this process's connection to the log and makes a new one; the log keeps what it promised to keep.
    async fn reopen(&mut self);

    /// How long any one condition may take to come true, assignment after a lost member included.
    fn deadline(&self) -> Duration;

    /// Whether what a commit wrote is visible to others as soon as it is answered. Kafka answers once the decision
    /// is durable, and writes its markers into the partitions a moment later.
    fn shows_at_once(&self) -> bool {
        true
    }
}

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, unique in the suite.
    pub name: &'static str,
    run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, ()>,
}

/// The whole suite.
pub fn cases() -> Vec<Case> {
    [topics::CASES, reading::CASES, transactions::CASES, membership::CASES].concat()
}

/// What of the suite is about groups and their transactions: where versions of a broker may differ.
pub fn ownership_cases() -> Vec<Case> {
    [transactions::CASES, membership::CASES].concat()
}

/// Runs cases, each on a subject of its own.
///
/// # Panics
/// At the end, when cases failed, with their names; each has told its reason on the way.
pub async fn run<F, S>(cases: Vec<Case>, make: impl Fn() -> F)
where
    F: Future<Output = S>,
    S: Subject + 'static,
{
    let mut failed = Vec::new();
    for case in cases {
        let mut stage = Stage::new(Box::new(make().await), case.name);
        tracing::info!(case = case.name, "conformance");
        if AssertUnwindSafe((case.run)(&mut stage)).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "conformance cases failed: {}", failed.join(", "));
}
