//! Whether a broker answers: one thread asks, and listens to what its client complains of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use tokio::sync::watch;

use super::catalog::Catalog;
use super::client::{Ear, Troubles};
use super::config::KafkaConfig;
use super::crew::Crew;
use super::error::unreachable;
use crate::error::StreamError;
use crate::log::LogHealth;

/// A log that is well is asked so often, for the partition counts too; one that complains at once.
const WELL: Duration = Duration::from_secs(5);
/// One that is not well is asked so often.
const UNWELL: Duration = Duration::from_millis(250);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long one may take that is not expected: meanwhile nobody hears what the client complains of.
const ANSWER_UNWELL: Duration = Duration::from_millis(500);
/// How long each listening lasts.
const LISTEN: Duration = Duration::from_millis(100);

/// The thread's own.
pub(crate) struct Pulse {
    pub(crate) client: Arc<BaseConsumer<Ear>>,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) config: Arc<KafkaConfig>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) health: watch::Sender<LogHealth>,
    /// Where the first error goes while connecting waits; taken by the first answer.
    pub(crate) first: watch::Sender<Option<Result<(), StreamError>>>,
}

impl Pulse {
    /// Feels until the log closes.
    pub(crate) fn run(self) {
        let mut asked = None;
        let mut is_well = false;
        while !self.crew.is_closing() {
            let due = if is_well { WELL } else { UNWELL };
            let complains = self.troubles.take_shaken();
            if complains || asked.is_none_or(|at: Instant| at.elapsed() >= due) {
                is_well = self.ask(if is_well { ANSWER } else { ANSWER_UNWELL });
                asked = Some(Instant::now());
            }
            drop(self.client.poll(LISTEN));
        }
    }

    fn ask(&self, patience: Duration) -> bool {
        let asked = self.catalog.refresh(&self.client, patience);
        if asked.is_ok() {
            self.troubles.forget();
            self.health.send_if_modified(|health| {
                let was = std::mem::replace(health, LogHealth::Ready);
                !was.is_ready()
            });
            self.first.send_replace(Some(Ok(())));
            return true;
        }
        // What it has to say lies in its queue.
        while self.client.poll(Duration::ZERO).is_some() {}
        for _ in 0..QUEUED {
            drop(self.client.poll(Duration::ZERO));
        }
        self.troubles.take_shaken();
        let error = unreachable(&self.config, self.troubles.last().as_ref());
        let reason: Arc<str> = error.to_string().into();
        self.first.send_replace(Some(Err(error)));
        self.health.send_if_modified(|health| {
            let new = LogHealth::NotReady { reason: Arc::clone(&reason) };
            let changes = *health != new;
            if changes {
                tracing::warn!("the log is not ready: {reason}");
                *health = new;
            }
            changes
        });
        false
    }
}

/// Complaints are taken out one by one; there are rarely more.
const QUEUED: usize = 32;
