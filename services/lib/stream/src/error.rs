//! What can go wrong at the log's door, sorted by what the caller does about it.

use std::path::PathBuf;

use ops::{Exit, ExitReason};

use crate::record::TopicPartition;

/// What a caller does about an error. The caller matches on this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Passing: try the same again after a delay.
    Retry,
    /// The log itself cannot work for now: stop taking work in until [`crate::Log::health`] is ready again.
    Pause,
    /// This request can never succeed; others can.
    Reject,
    /// This process is no longer entitled to go on, a fresh one is: leave with the exit code for "restart me".
    Restart,
    /// Configuration, data or this program is wrong: a person has to act.
    Fatal,
}

/// An error of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The log did not answer, or not in time. Whether a write took place is not known.
    #[error("log unavailable: {why}")]
    Unavailable {
        /// What was tried and what came back.
        why: String,
    },
    /// There is no room left; nothing of the request was written.
    #[error("log folder {} is full ({why}): make space there, work goes on by itself", folder.display())]
    StorageFull {
        /// The folder (or broker directory) that has no room.
        folder: PathBuf,
        /// The storage's own words.
        why: String,
    },
    /// The storage failed at reading or writing; the log reopens it and is not ready until that worked.
    #[error("log folder {} cannot be read or written: {why}", folder.display())]
    Storage {
        /// The folder that failed.
        folder: PathBuf,
        /// The storage's own words.
        why: String,
    },
    /// The storage holds what no version of this program wrote, or is damaged.
    #[error("log in {} is damaged: {why}", folder.display())]
    Corrupt {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        why: String,
    },
    /// Another process (or another log of this process) holds the folder.
    #[error("log folder {} is in use by {holder}: stop that one first, or choose another folder", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// The folder was written by a newer version of this program.
    #[error(
        "log folder {} has schema {found}, this program knows schemas up to {known}: run the newer program, or choose another folder",
        folder.display()
    )]
    NewerSchema {
        /// The folder.
        folder: PathBuf,
        /// The schema it has.
        found: i64,
        /// The newest schema this program knows.
        known: i64,
    },
    /// There is no such topic.
    #[error("topic {topic} does not exist: create it first")]
    UnknownTopic {
        /// The topic's name.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("partition {partition} does not exist: topic has {partitions} partitions")]
    UnknownPartition {
        /// The partition that was named.
        partition: TopicPartition,
        /// How many the topic has.
        partitions: i32,
    },
    /// A topic exists, but not as it was wanted.
    #[error("topic {topic} exists with {found}, wanted {wanted}")]
    TopicMismatch {
        /// The topic's name.
        topic: String,
        /// What the request wanted.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A read wanted to start beyond the end: what it remembers is of another log.
    #[error(
        "offset {offset} of {partition} is beyond the log's end {high}: the position belongs to another log"
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was asked for.
        offset: i64,
        /// The end: the offset that the next record gets.
        high: i64,
    },
    /// The request breaks a rule; it would break it again.
    #[error("log refused the request: {why}")]
    Invalid {
        /// Which rule.
        why: String,
    },
    /// The broker will not have it: a login, a missing right, something that it does not know.
    #[error("{what} is refused: {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A newer holder of the same slot took over.
    #[error("slot {slot} was taken over by a newer member: {why}")]
    Fenced {
        /// The slot (transactional id).
        slot: String,
        /// What is known about it.
        why: String,
    },
    /// The log, or this member of it, was closed here.
    #[error("{what} is closed")]
    Closed {
        /// What was closed.
        what: String,
    },
}

impl StreamError {
    /// What the caller does about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unavailable { .. } => Disposition::Retry,
            Self::StorageFull { .. } | Self::Storage { .. } => Disposition::Pause,
            Self::UnknownPartition { .. } | Self::Invalid { .. } => Disposition::Reject,
            Self::Fenced { .. } => Disposition::Restart,
            Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::NewerSchema { .. }
            | Self::UnknownTopic { .. }
            | Self::TopicMismatch { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Refused { .. }
            | Self::Closed { .. } => Disposition::Fatal,
        }
    }
}

/// At the start of a process: by what a supervisor does about it.
impl From<StreamError> for Exit {
    fn from(error: StreamError) -> Self {
        match error.disposition() {
            Disposition::Retry | Disposition::Pause => ExitReason::Unavailable.because(error),
            Disposition::Restart => ExitReason::Temporary.because(error),
            Disposition::Reject | Disposition::Fatal => ExitReason::Refused.because(error),
        }
    }
}
