//! The writer: one thread that owns the file, the ledger and the groups, and answers one command after the other.
//!
//! Whatever waits in the queue when it comes around goes into one SQL transaction and one fsync, so the more callers
//! there are the less each pays. Commands about membership flush what is open first: no partition changes hands in
//! the middle of a transaction, which is what makes the epochs a protection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assign::MemberId;
use super::catalog::Partition;
use super::commands::{Command, CommandReceiver, Envelope, Received, Reply, Row};
use super::config::LocalConfig;
use super::database::{Database, told};
use super::folder::Folder;
use super::groups::{Groups, Refusal};
use super::ledger::{Answer, Ledger, Round};
use super::shared::Shared;
use crate::error::StreamError;
use crate::log::TopicSpec;
use crate::member::{AbortReason, Commit, CommitOffset};
use crate::record::Position;

/// A round holds this much at most (chosen: bounds the time to an answer and the memory of a transaction).
const ROUND_BYTES_MAX: usize = 8 * 1024 * 1024;
const ROUND_COMMANDS_MAX: usize = 1024;
/// The write-ahead log is moved into the file each time about this much was written (chosen: a checkpoint costs two
/// fsyncs, so rarely; but opening after a crash reads what is left).
const CHECKPOINT_BYTES: usize = 16 * 1024 * 1024;
/// When this many frames stay behind, a checkpoint waits for the readers to let go: the log must not grow for ever.
const CHECKPOINT_FRAMES_MAX: i64 = 16 * 1024;
/// What a round costs beside its payload: the pages of ends, offsets and tree edges (chosen, a rough count).
const ROUND_OVERHEAD_BYTES: usize = 32 * 1024;
/// How often a log that cannot write tries again.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// What a trial writes: as much as a large transaction, so that "ready" means ready for the next one.
const PROBE_BYTES: usize = 1024 * 1024;

/// Whether the file takes writes.
enum Condition {
    Ready,
    /// It has no room. What is there is sound.
    Full(StreamError),
    /// It failed. What the kernel holds of it may not be on the disk, so the file is opened anew before it is
    /// trusted again.
    Broken(StreamError),
}

/// The writer's thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    receiver: CommandReceiver,
    config: LocalConfig,
    database: Option<Database>,
    ledger: Ledger,
    groups: Groups,
    round: Round,
    condition: Condition,
    probed_at: Instant,
    unmoved_bytes: usize,
    _folder: Folder,
}

impl Writer {
    /// Opens the file and reads the ledger.
    pub(crate) fn open(
        config: LocalConfig,
        folder: Folder,
        shared: Arc<Shared>,
        receiver: CommandReceiver,
    ) -> Result<Self, StreamError> {
        let database = Database::open(folder.path(), config.synchronous, config.bytes_max)?;
        let loaded = database.load().map_err(|error| told(folder.path(), &error))?;
        let (ledger, catalog) = Ledger::of(loaded, &shared.catalog());
        shared.set_catalog(catalog);
        let groups = Groups::new(shared.metrics.clone());
        Ok(Self {
            shared,
            receiver,
            config,
            database: Some(database),
            ledger,
            groups,
            round: Round::default(),
            condition: Condition::Ready,
            probed_at: Instant::now(),
            unmoved_bytes: 0,
            _folder: folder,
        })
    }

    /// Works until it is told to close.
    pub(crate) fn run(mut self) {
        let mut claims = Vec::new();
        loop {
            let patience = match self.condition {
                Condition::Ready => None,
                _ => Some(PROBE_EVERY.saturating_sub(self.probed_at.elapsed())),
            };
            if patience.is_some_and(|patience| patience.is_zero()) {
                self.probe();
                continue;
            }
            let mut next = match self.receiver.receive(patience) {
                Received::Command(envelope) => Some(envelope),
                Received::Nothing => continue,
                Received::Closed => break,
            };
            let mut closing = false;
            while let Some(Envelope { command, claim }) = next.take() {
                claims.push(claim);
                closing = matches!(command, Command::Close);
                self.handle(command);
                if !closing && self.round.bytes < ROUND_BYTES_MAX && claims.len() < ROUND_COMMANDS_MAX {
                    next = self.receiver.receive_now();
                }
            }
            self.flush();
            claims.clear();
            self.release_departed();
            self.checkpoint_when_due();
            if closing {
                break;
            }
        }
        if let Some(Err(error)) = self.database.as_ref().map(Database::checkpoint_whole) {
            // Nothing is lost by it: the next opening reads the write-ahead log.
            tracing::warn!(folder = %self.config.folder.display(), %error, "the last checkpoint failed");
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Append { rows, reply } => match self.stage(&rows) {
                Ok(positions) => self.round.answers.push(Answer::Append(reply, positions)),
                Err(error) => answer(reply, Err(error)),
            },
            Command::Commit { member, rows, offsets, reply } => self.commit(member, rows, &offsets, reply),
            Command::Trim { partition, below, reply } => match self.trim(&partition, below) {
                Ok(count) => self.round.answers.push(Answer::Removal(reply, count)),
                Err(error) => answer(reply, Err(error)),
            },
            Command::Remove { rows, reply } => match self.remove(&rows) {
                Ok(count) => self.round.answers.push(Answer::Removal(reply, count)),
                Err(error) => answer(reply, Err(error)),
            },
            Command::Join { membership, topics, reply } => {
                self.flush();
                answer(reply, self.groups.join(&membership, &topics, &self.ledger.committed));
            }
            Command::Leave { member, reply } => {
                self.flush();
                self.groups.leave(member, &self.ledger.committed);
                answer(reply, ());
            }
            Command::Committed { group, partitions, reply } => {
                self.flush();
                let committed = |id| self.ledger.committed.get(&(Arc::clone(&group), id)).copied();
                answer(reply, partitions.into_iter().map(committed).collect());
            }
            Command::CreateTopics { topics, reply } => {
                self.flush();
                let created = self.create_topics(&topics);
                answer(reply, created);
            }
            Command::Vacuum { pages_max, reply } => {
                self.flush();
                let freed = self.with_database(|database| database.vacuum(pages_max));
                answer(reply, freed);
            }
            Command::Wake | Command::Close => {}
        }
    }

    fn commit(
        &mut self,
        member: MemberId,
        rows: Result<Vec<Row>, StreamError>,
        offsets: &[CommitOffset],
        reply: Reply<Option<Commit>>,
    ) {
        let committed =
            |group: &Arc<str>, partition: &Partition| self.ledger.next_offset(&self.round, group, partition);
        let staged = match (self.groups.check(member, offsets, committed), rows) {
            (Err(Refusal::Gone), _) => return answer(reply, None),
            (Err(Refusal::Stale(partitions)), _) => {
                let reason = AbortReason::StaleEpoch { partitions };
                return answer(reply, Some(Commit::Aborted { reason }));
            }
            (Err(Refusal::Rewound(partitions)), _) => {
                let reason = AbortReason::Rewound { partitions };
                return answer(reply, Some(Commit::Aborted { reason }));
            }
            (Err(Refusal::Invalid(why)), _) => Err(StreamError::Invalid { why }),
            (Ok(_), Err(error)) => Err(error),
            (Ok(moves), Ok(rows)) => self.stage(&rows).map(|positions| (moves, positions)),
        };
        match staged {
            Ok((moves, positions)) => {
                self.round.offsets.extend(moves);
                self.round.answers.push(Answer::Commit(member, reply, positions));
            }
            Err(error) => {
                // What was staged of others must not be undone by a rewind that reads an older ledger.
                self.flush();
                self.groups.rewind(member, &self.ledger.committed);
                answer(reply, Some(Commit::Aborted { reason: AbortReason::Failed(error) }));
            }
        }
    }

    /// Inserts rows into the open SQL transaction, opening one if there is none.
    fn stage(&mut self, rows: &[Row]) -> Result<Vec<Position>, StreamError> {
        if let Condition::Full(error) | Condition::Broken(error) = &self.condition {
            return Err(error.clone());
        }
        let now_ms = (self.shared.clock)();
        let mut positions = Vec::with_capacity(rows.len());
        let inserted = self.in_round(|database, round, ledger| {
            let mut insert = database.connection.prepare(
                "INSERT INTO records (id, timestamp_ms, key, value, headers) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for row in rows {
                let ends = round.ends_of(ledger, &row.partition);
                // The clock may step back; a partition's times do not, so that they can be searched.
                ends.last_timestamp_ms = ends.last_timestamp_ms.max(now_ms);
                let offset = ends.next;
                ends.next += 1;
                let id = row.partition.row(offset);
                insert.execute((
                    id,
                    ends.last_timestamp_ms,
                    row.key.as_deref(),
                    row.value.as_deref(),
                    row.headers.as_deref(),
                ))?;
                round.bytes += row.size_bytes();
                positions.push(row.partition.name.at(offset));
            }
            Ok(())
        });
        inserted.map(|()| positions)
    }

    /// Removes the records below an offset.
    fn trim(&mut self, partition: &Arc<Partition>, below: i64) -> Result<u64, StreamError> {
        self.in_round(|database, round, ledger| {
            let ends = round.ends_of(ledger, partition);
            let below = below.min(ends.next);
            let rows = (partition.row(ends.low), partition.row(below));
            ends.low = ends.low.max(below);
            round.bytes += ROUND_OVERHEAD_BYTES;
            let removed =
                database.connection.execute("DELETE FROM records WHERE id >= ?1 AND id < ?2", rows)?;
            Ok(removed as u64)
        })
    }

    /// Removes these records, wherever they are.
    fn remove(&mut self, rows: &[i64]) -> Result<u64, StreamError> {
        self.in_round(|database, round, _| {
            round.bytes += ROUND_OVERHEAD_BYTES;
            let mut delete = database.connection.prepare("DELETE FROM records WHERE id = ?1")?;
            let mut removed = 0;
            for row in rows {
                removed += delete.execute([row])? as u64;
            }
            Ok(removed)
        })
    }

    /// Does something in the open SQL transaction, opening one if there is none. A failure ends the whole round.
    fn in_round<R>(
        &mut self,
        work: impl FnOnce(&Database, &mut Round, &Ledger) -> rusqlite::Result<R>,
    ) -> Result<R, StreamError> {
        let Some(database) = &self.database else { return Err(self.condition_error()) };
        let begun = if self.round.open { Ok(()) } else { database.begin() };
        let done = begun.and_then(|()| {
            self.round.open = true;
            work(database, &mut self.round, &self.ledger)
        });
        done.map_err(|error| {
            let error = told(&self.config.folder, &error);
            self.fail_round(&error, None);
            error
        })
    }

    /// Commits what is open and answers everyone who waits for it.
    fn flush(&mut self) {
        if self.round.open
            && let Err(error) = self.in_round(|database, round, _| round.write_ends(database))
        {
            tracing::debug!(%error, "the round failed before its commit");
            return;
        }
        if self.round.open {
            let database = self.database.as_ref().expect("a round is open in it");
            if let Err(error) = self.commit_sql(database) {
                let told = told(&self.config.folder, &error);
                // A full disk refuses the last frame, so the transaction is not there. Any other failure may have
                // come after it reached the disk.
                let unknown = !matches!(told, StreamError::StorageFull { .. });
                return self.fail_round(&told, unknown.then(|| format!("commit failed: {error}")));
            }
            self.unmoved_bytes += self.round.bytes + ROUND_OVERHEAD_BYTES;
        }
        let mut round = std::mem::take(&mut self.round);
        if self.ledger.apply(&mut round) {
            self.shared.appended.send_modify(|count| *count += 1);
        }
        for waiting in round.answers {
            match waiting {
                Answer::Append(reply, positions) => answer(reply, Ok(positions)),
                Answer::Commit(_, reply, positions) => answer(reply, Some(Commit::Committed { positions })),
                Answer::Removal(reply, count) => answer(reply, Ok(count)),
            }
        }
    }

    fn commit_sql(&self, database: &Database) -> rusqlite::Result<()> {
        #[cfg(test)]
        if let Some(fault) = self.shared.faults.take() {
            return fault.strike(database);
        }
        database.commit()
    }

    /// Nothing of the round happened, or (`unknown`) nobody can say. Everyone who waits is told.
    fn fail_round(&mut self, error: &StreamError, unknown: Option<String>) {
        if let Some(database) = &self.database {
            database.rollback();
        }
        let round = std::mem::take(&mut self.round);
        self.set_condition(error.clone());
        for waiting in round.answers {
            match waiting {
                Answer::Append(reply, _) => answer(reply, Err(error.clone())),
                Answer::Removal(reply, _) => answer(reply, Err(error.clone())),
                Answer::Commit(member, reply, _) => {
                    self.groups.rewind(member, &self.ledger.committed);
                    let commit = match &unknown {
                        Some(reason) => Commit::Unknown { reason: reason.clone() },
                        None => Commit::Aborted { reason: AbortReason::Failed(error.clone()) },
                    };
                    answer(reply, Some(commit));
                }
            }
        }
    }

    fn create_topics(&mut self, topics: &[TopicSpec]) -> Result<(), StreamError> {
        let catalog = self.shared.catalog();
        let missing = catalog.missing(topics)?;
        if missing.is_empty() {
            return Ok(());
        }
        let loaded = self.with_database(|database| {
            database.begin()?;
            missing.iter().try_for_each(|spec| database.add_topic(spec))?;
            database.commit()?;
            database.load()
        })?;
        let (ledger, catalog) = Ledger::of(loaded, &catalog);
        self.ledger = ledger;
        self.shared.set_catalog(catalog);
        Ok(())
    }

    /// Does something with the file outside a round.
    fn with_database<R>(
        &mut self,
        work: impl FnOnce(&Database) -> rusqlite::Result<R>,
    ) -> Result<R, StreamError> {
        let Some(database) = &self.database else { return Err(self.condition_error()) };
        work(database).map_err(|error| {
            let error = told(&self.config.folder, &error);
            self.fail_round(&error, None);
            error
        })
    }

    fn release_departed(&mut self) {
        for member in self.shared.take_departed() {
            self.groups.leave(member, &self.ledger.committed);
        }
    }

    fn checkpoint_when_due(&mut self) {
        if self.unmoved_bytes < CHECKPOINT_BYTES {
            return;
        }
        self.unmoved_bytes = 0;
        let Some(database) = &self.database else { return };
        let moved = database.checkpoint().and_then(|left| {
            if left > CHECKPOINT_FRAMES_MAX { database.checkpoint_whole().map(|_| ()) } else { Ok(()) }
        });
        if let Err(error) = moved {
            match told(&self.config.folder, &error) {
                // What was committed is in the write-ahead log; the next write says whether there is room.
                full @ StreamError::StorageFull { .. } => tracing::warn!(%full, "checkpoint put off"),
                error => self.set_condition(error),
            }
        }
    }
}

/// The caller may have gone: then nobody wants the answer.
fn answer<T>(reply: Reply<T>, value: T) {
    drop(reply.send(value));
}

mod recovery;
