//! How everyone asks the writer: a bounded queue of commands, each with its answer's address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::assign::MemberId;
use super::catalog::{Partition, Topic};
use super::groups::View;
use crate::error::StreamError;
use crate::log::TopicSpec;
use crate::member::{Commit, CommitOffset, Membership};
use crate::record::Position;

/// Queued commands hold 64 MiB at most (chosen: some hundred milliseconds of the writer's work), counted in units.
const UNIT_BYTES: usize = 16 * 1024;
const UNITS: usize = 4096;

/// A record, ready to be bound to an insert.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) partition: Arc<Partition>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Option<Vec<u8>>,
}

impl Row {
    pub(crate) fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.as_ref().map_or(0, Vec::len)
    }
}

/// Where an answer goes. A caller that has gone does not want it any more.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// A request to the writer.
pub(crate) enum Command {
    Append {
        rows: Vec<Row>,
        reply: Reply<Result<Vec<Position>, StreamError>>,
    },
    /// Rows that could not be made are the transaction's failure: the member rewinds for it like for any other.
    Commit {
        member: MemberId,
        rows: Result<Vec<Row>, StreamError>,
        offsets: Vec<CommitOffset>,
        reply: Reply<Option<Commit>>,
    },
    Join {
        membership: Membership,
        topics: Vec<Arc<Topic>>,
        reply: Reply<(MemberId, watch::Receiver<View>)>,
    },
    Leave {
        member: MemberId,
        reply: Reply<()>,
    },
    Committed {
        group: Arc<str>,
        partitions: Vec<i64>,
        reply: Reply<Vec<Option<i64>>>,
    },
    CreateTopics {
        topics: Vec<TopicSpec>,
        reply: Reply<Result<(), StreamError>>,
    },
    /// Removes the records below an offset, which is at most a chunk above the low watermark.
    Trim {
        partition: Arc<Partition>,
        below: i64,
        reply: Reply<Result<u64, StreamError>>,
    },
    /// Removes these records.
    Remove {
        rows: Vec<i64>,
        reply: Reply<Result<u64, StreamError>>,
    },
    /// Gives unused pages back to the file system.
    Vacuum {
        pages_max: i64,
        reply: Reply<Result<i64, StreamError>>,
    },
    /// Look at the departed members.
    Wake,
    Close,
}

/// A command and its claim on the queue.
pub(crate) struct Envelope {
    pub(crate) command: Command,
    /// Held until the command is answered: what is being worked on counts as queued.
    pub(crate) claim: Option<OwnedSemaphorePermit>,
}

/// The asking side.
pub(crate) struct CommandQueue {
    sender: SyncSender<Envelope>,
    claims: Arc<Semaphore>,
    /// A [`Command::Wake`] is queued.
    waking: Arc<AtomicBool>,
}

/// The writer's side.
pub(crate) struct CommandReceiver {
    receiver: Receiver<Envelope>,
    claims: Arc<Semaphore>,
    waking: Arc<AtomicBool>,
}

/// What waiting for a command gives.
pub(crate) enum Received {
    Command(Envelope),
    Nothing,
    Closed,
}

pub(crate) fn command_queue() -> (CommandQueue, CommandReceiver) {
    // A place per unit, so that a claim is a place; and one for each command that makes no claim (wake, close).
    let (sender, receiver) = sync_channel(UNITS + 2);
    let claims = Arc::new(Semaphore::new(UNITS));
    let waking = Arc::new(AtomicBool::new(false));
    let queue = CommandQueue { sender, claims: Arc::clone(&claims), waking: Arc::clone(&waking) };
    (queue, CommandReceiver { receiver, claims, waking })
}

impl CommandQueue {
    /// Queues a command that holds this many bytes; waits for room. False when the writer has gone.
    pub(crate) async fn send(&self, command: Command, bytes: usize) -> bool {
        let units = (1 + bytes / UNIT_BYTES).min(UNITS);
        let units = u32::try_from(units).expect("at most UNITS");
        match Arc::clone(&self.claims).acquire_many_owned(units).await {
            Ok(claim) => self.sender.try_send(Envelope { command, claim: Some(claim) }).is_ok(),
            Err(_) => false,
        }
    }

    /// Has the writer look around, without waiting. One such command in the queue is enough for everyone.
    pub(crate) fn wake(&self) {
        if !self.waking.swap(true, Ordering::AcqRel)
            && self.sender.try_send(Envelope { command: Command::Wake, claim: None }).is_err()
        {
            // No room: then the writer is awake anyway, or has gone.
            self.waking.store(false, Ordering::Release);
        }
    }

    /// Queues the last command, waiting for room as a thread does.
    pub(crate) fn close(&self) -> bool {
        self.sender.send(Envelope { command: Command::Close, claim: None }).is_ok()
    }
}

impl CommandReceiver {
    /// Waits for a command, for ever or this long.
    pub(crate) fn receive(&self, patience: Option<Duration>) -> Received {
        let received = match patience {
            None => self.receiver.recv().map_err(|_| false),
            Some(patience) => self
                .receiver
                .recv_timeout(patience)
                .map_err(|error| matches!(error, std::sync::mpsc::RecvTimeoutError::Timeout)),
        };
        match received {
            Ok(envelope) => Received::Command(self.seen(envelope)),
            Err(true) => Received::Nothing,
            Err(false) => Received::Closed,
        }
    }

    fn seen(&self, envelope: Envelope) -> Envelope {
        if matches!(envelope.command, Command::Wake) {
            self.waking.store(false, Ordering::Release);
        }
        envelope
    }

    /// A command that waits already.
    pub(crate) fn receive_now(&self) -> Option<Envelope> {
        match self.receiver.try_recv() {
            Ok(envelope) => Some(self.seen(envelope)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

impl Drop for CommandReceiver {
    /// Whoever waits for room must not wait for a writer that has gone.
    fn drop(&mut self) {
        self.claims.close();
    }
}
