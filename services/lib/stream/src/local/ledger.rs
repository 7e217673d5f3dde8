//! What the writer knows by heart: the ends of every partition and what every group has committed. It is the file's
//! content, kept in memory, and changes only after the commit that changed the file.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::{Catalog, Partition, Topic};
use super::commands::Reply;
use super::database::{Database, Loaded};
use super::groups::Committed;
use crate::error::StreamError;
use crate::log::{TopicSpec, Watermarks};
use crate::member::Commit;
use crate::record::Position;

use super::assign::MemberId;

/// The ends of a partition and the time of its last record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) low: i64,
    pub(crate) next: i64,
    pub(crate) last_timestamp_ms: i64,
}

/// What the file says.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) ends: HashMap<i64, Ends>,
    pub(crate) committed: Committed,
}

/// What the open SQL transaction will say when it commits, and who waits for that.
#[derive(Default)]
pub(crate) struct Round {
    /// Whether an SQL transaction is open.
    pub(crate) open: bool,
    pub(crate) ends: HashMap<i64, (Arc<Partition>, Ends)>,
    pub(crate) offsets: Committed,
    pub(crate) answers: Vec<Answer>,
    pub(crate) bytes: usize,
}

/// Who waits for a round, and for what.
pub(crate) enum Answer {
    Append(Reply<Result<Vec<Position>, StreamError>>, Vec<Position>),
    Commit(MemberId, Reply<Option<Commit>>, Vec<Position>),
    Removal(Reply<Result<u64, StreamError>>, u64),
}

impl Ledger {
    /// The ledger and the catalog of what a file says. Topics of `known` stay the same objects: others hold them.
    pub(crate) fn of(loaded: Loaded, known: &Catalog) -> (Self, Catalog) {
        let mut ledger = Self { ends: HashMap::new(), committed: loaded.committed };
        let mut partitions: HashMap<Arc<str>, Vec<Arc<Partition>>> = HashMap::new();
        for found in loaded.partitions {
            let ends = Ends {
                low: found.ends.low,
                next: found.ends.high,
                last_timestamp_ms: found.last_timestamp_ms,
            };
            ledger.ends.insert(found.id, ends);
            let partition = match known.partition(&found.name) {
                Ok(partition) => {
                    partition.publish(found.ends);
                    Arc::clone(partition)
                }
                Err(_) => Arc::new(Partition::new(found.id, found.name, found.ends)),
            };
            partitions.entry(Arc::clone(&partition.name.topic)).or_default().push(partition);
        }
        let topics = loaded.topics.into_iter().map(|spec| {
            let TopicSpec { name, policy, .. } = spec;
            let partitions = partitions.remove(&name).unwrap_or_default();
            Arc::new(Topic { name, policy, partitions })
        });
        let catalog = Catalog::new(topics);
        (ledger, catalog)
    }

    /// What a group has committed, the open round included.
    pub(crate) fn next_offset(&self, round: &Round, group: &Arc<str>, partition: &Partition) -> i64 {
        let key = (Arc::clone(group), partition.id);
        round.offsets.get(&key).or_else(|| self.committed.get(&key)).copied().unwrap_or(0)
    }

    /// The round has committed; returns whether records became visible.
    pub(crate) fn apply(&mut self, round: &mut Round) -> bool {
        let mut grown = false;
        for (id, (partition, ends)) in round.ends.drain() {
            grown |= self.ends.insert(id, ends).is_none_or(|before| before.next < ends.next);
            partition.publish(Watermarks { low: ends.low, high: ends.next });
        }
        self.committed.extend(round.offsets.drain());
        grown
    }
}

impl Round {
    /// The ends of a partition as this round has moved them so far.
    pub(crate) fn ends_of(&mut self, ledger: &Ledger, partition: &Arc<Partition>) -> &mut Ends {
        let (_, ends) = self.ends.entry(partition.id).or_insert_with(|| {
            let ends = ledger.ends.get(&partition.id).copied();
            (
                Arc::clone(partition),
                ends.expect("partitions come from the catalog, the catalog from the ledger"),
            )
        });
        ends
    }

    /// Writes the ends and offsets that changed: once per round, however many transactions it holds.
    pub(crate) fn write_ends(&self, database: &Database) -> rusqlite::Result<()> {
        let connection = &database.connection;
        let mut statement = connection.prepare(
            "UPDATE partitions SET low_offset = ?2, next_offset = ?3, last_timestamp_ms = ?4 WHERE id = ?1",
        )?;
        for (id, (_, ends)) in &self.ends {
            statement.execute((id, ends.low, ends.next, ends.last_timestamp_ms))?;
        }
        let mut statement = connection.prepare(
            "INSERT INTO committed (consumer_group, partition_id, next_offset) VALUES (?1, ?2, ?3)
             ON CONFLICT (consumer_group, partition_id) DO UPDATE SET next_offset = excluded.next_offset",
        )?;
        for ((group, id), next_offset) in &self.offsets {
            statement.execute((&**group, id, next_offset))?;
        }
        Ok(())
    }
}
