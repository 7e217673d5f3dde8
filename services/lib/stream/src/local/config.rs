//! How the embedded log is set.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// The wall clock: Unix time in milliseconds. Handed in, so that a test can be anywhere in time.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// When the disk has it: survives loss of power.
    Full,
    /// When the operating system has it: survives a crash of the process, not loss of power. After that the log
    /// is whole, but may lack its last transactions, acknowledged ones among them.
    Normal,
}

/// The embedded log's settings.
#[derive(Clone)]
pub struct LocalConfig {
    /// The folder that holds it, made if missing, and used by one process at a time.
    pub folder: PathBuf,
    /// When a write counts as durable.
    pub synchronous: Synchronous,
    /// Largest record, in bytes of key, value and headers.
    pub record_bytes_max: usize,
    /// Largest size of the log's file; reaching it is the same as a full disk. `None`: as large as the disk.
    pub bytes_max: Option<u64>,
    /// The wall clock: records carry its time, and retention goes by it.
    pub clock: Clock,
}

impl LocalConfig {
    /// Durable against loss of power, records up to 1 MiB (Kafka's default), bounded by the disk, the machine's clock.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            synchronous: Synchronous::Full,
            record_bytes_max: 1024 * 1024,
            bytes_max: None,
            clock: system_clock(),
        }
    }
}

impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig")
            .field("folder", &self.folder)
            .field("synchronous", &self.synchronous)
            .field("record_bytes_max", &self.record_bytes_max)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}
