//! What the writer and everyone who asks it have in common.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::assign::MemberId;
use super::catalog::Catalog;
use super::commands::CommandQueue;
use super::config::Clock;
use super::read::ReadPool;
use crate::error::StreamError;
use crate::log::LogHealth;
use crate::metrics::Metrics;

/// The log's state outside the writer.
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) record_bytes_max: usize,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) queue: CommandQueue,
    pub(crate) pool: ReadPool,
    /// Guards nothing but the pointer: held to copy or replace it.
    catalog: RwLock<Arc<Catalog>>,
    /// Members that were dropped; the writer lets them go when it is woken. Held to push or take.
    departed: Mutex<Vec<MemberId>>,
    /// Counts commits that made records visible, so that readers at the end wake up.
    pub(crate) appended: watch::Sender<u64>,
    pub(crate) health: watch::Sender<LogHealth>,
    closed: AtomicBool,
    #[cfg(test)]
    pub(crate) faults: super::faults::Faults,
}

impl Shared {
    pub(crate) fn new(config: &super::config::LocalConfig, metrics: Metrics, queue: CommandQueue) -> Self {
        Self {
            folder: config.folder.clone(),
            record_bytes_max: config.record_bytes_max,
            clock: Arc::clone(&config.clock),
            metrics,
            queue,
            pool: ReadPool::new(config.folder.clone()),
            catalog: RwLock::new(Arc::new(Catalog::default())),
            departed: Mutex::new(Vec::new()),
            appended: watch::Sender::new(0),
            health: watch::Sender::new(LogHealth::Ready),
            closed: AtomicBool::new(false),
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }

    /// A member was dropped without leaving.
    pub(crate) fn depart(&self, member: MemberId) {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner).push(member);
        self.queue.wake();
    }

    pub(crate) fn take_departed(&self) -> Vec<MemberId> {
        std::mem::take(&mut *self.departed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The writer has ended: nobody shall wait for it.
    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.health.send_replace(LogHealth::NotReady { reason: self.closed_error().to_string().into() });
        self.appended.send_modify(|count| *count += 1);
        self.pool.close();
    }

    pub(crate) fn closed_error(&self) -> StreamError {
        StreamError::Closed { what: format!("the log in {}", self.folder.display()) }
    }
}
