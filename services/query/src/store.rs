//! The store: rows that shadow the verdict topic, and how far they have followed it.

mod bounds;
#[cfg(test)]
pub(crate) mod conformance;
mod filter;
mod postgres;
mod row;
mod sqlite;

use bytes::Bytes;
use forensics::{Tenant, VerdictId};

pub use filter::Filter;
pub use postgres::{Address, PostgresConfig};
pub use row::{InvalidRecord, Row, Seat};
pub(crate) use row::{Judgement, judgement};
pub use sqlite::SqliteConfig;

/// What can go wrong at the store's door, sorted by what the caller does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another projector moved the offset: read the offsets again and go on from there.
    #[error("partition {partition} of the verdict topic was projected by another process meanwhile")]
    Overtaken {
        /// The partition.
        partition: i32,
    },
    /// It cannot work for now: try again after a delay.
    #[error("store {place} cannot be used: {why}")]
    Unavailable {
        /// The file or the address.
        place: String,
        /// Its own words.
        why: String,
    },
    /// Too many requests wait for it: this one was not begun.
    #[error("store is busy: {waiting} requests wait for it")]
    Busy {
        /// How many may wait.
        waiting: usize,
    },
    /// It holds what it should not, or belongs to something else: a person has to look.
    #[error("store {place} is refused: {why}")]
    Refused {
        /// The file or the address.
        place: String,
        /// What was found, and what to do.
        why: String,
    },
}

/// A stretch of one partition of the verdict topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The partition.
    pub partition: i32,
    /// Where the store stands in it; `None` if it never saw the partition.
    pub expected: Option<i64>,
    /// Where it shall stand.
    pub next_offset: i64,
    /// The verdicts in between.
    pub rows: Vec<Row>,
}

/// What became of the rows of an [`Store::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// New rows.
    pub inserted: u64,
    /// Verdicts whose id was there already, with the same judgement.
    pub duplicates: u64,
    /// Verdicts whose id was there already, with another judgement: the first one stays.
    pub divergent: Vec<VerdictId>,
}

/// A verdict as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the order of [`Store::list`].
    pub key: PageKey,
    /// The record's value, unchanged.
    pub record: Bytes,
}

/// A place in the order of [`Store::list`]: newest first, then highest in the topic first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageKey {
    /// Unix time in microseconds.
    pub created_at_us: i64,
    /// Where the record lies.
    pub seat: Seat,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The verdicts, in order.
    pub rows: Vec<Stored>,
    /// Where to go on; `None` at the end. A page may be short, even empty, and still not be the last: looking for
    /// what few verdicts have in common stops after a bounded number of rows.
    pub next: Option<PageKey>,
}

/// What a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    /// Verdicts at most.
    pub rows_max: usize,
    /// Bytes of records at most; one is given however large.
    pub bytes_max: usize,
}

/// Which database, and how it is used.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A file, for one replica.
    Sqlite(SqliteConfig),
    /// A server, for several.
    Postgres(PostgresConfig),
}

/// Rows and offsets. Clones share it; it closes when the last one is dropped.
///
/// The meaning of each method is the suite in `store/conformance.rs`, which every database passes.
#[derive(Clone)]
pub struct Store {
    database: Database,
}

#[derive(Clone)]
enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens or makes the store for this verdict topic; its threads and connections belong to `tasks`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be opened or reached, [`StoreError::Refused`] when it is not ours,
    /// is newer than this build, or follows another topic.
    pub async fn open(config: &StoreConfig, topic: &str, tasks: &ops::Tasks) -> Result<Self, StoreError> {
        match config {
            StoreConfig::Sqlite(config) => Self::open_sqlite(config, topic, tasks),
            StoreConfig::Postgres(config) => Self::open_postgres(config, topic, tasks).await,
        }
    }

    /// As [`Store::open`], on SQLite.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_sqlite(config: &SqliteConfig, topic: &str, tasks: &ops::Tasks) -> Result<Self, StoreError> {
        Ok(Self { database: Database::Sqlite(sqlite::Sqlite::open(config, topic, tasks)?) })
    }

    /// As [`Store::open`], on PostgreSQL. Several processes may do so at once.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_postgres(
        config: &PostgresConfig,
        topic: &str,
        tasks: &ops::Tasks,
    ) -> Result<Self, StoreError> {
        Ok(Self { database: Database::Postgres(postgres::Postgres::open(config, topic, tasks).await?) })
    }

    /// Where the store stands: partition and next offset.
    ///
    /// # Errors
    /// As [`StoreError`] says; so for all methods.
    pub async fn offsets(&self) -> Result<Vec<(i32, i64)>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.offsets().await,
            Database::Postgres(postgres) => postgres.offsets().await,
        }
    }

    /// Adds rows and moves offsets, in one transaction: both or neither. The first writer of a verdict id wins.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] when the store does not stand where a stretch expects it; nothing was written.
    pub async fn apply(&self, stretches: Vec<Stretch>) -> Result<Applied, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.apply(stretches).await,
            Database::Postgres(postgres) => postgres.apply(stretches).await,
        }
    }

    /// One verdict of this tenant.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub async fn get(&self, tenant: &Tenant, id: VerdictId) -> Result<Option<Bytes>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.get(tenant, id).await,
            Database::Postgres(postgres) => postgres.get(tenant, id).await,
        }
    }

    /// Of each of these media the newest generation's newest verdict, where there is one, in the order asked.
    pub async fn newest(&self, tenant: &Tenant, media_ids: Vec<String>) -> Result<Vec<Bytes>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.newest(tenant, media_ids).await,
            Database::Postgres(postgres) => postgres.newest(tenant, media_ids).await,
        }
    }

    /// A page of this tenant's verdicts that pass the filter: newest first, below `after`.
    pub async fn list(
        &self,
        tenant: &Tenant,
        filter: Filter,
        after: Option<PageKey>,
        bounds: PageBounds,
    ) -> Result<Page, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.list(tenant, filter, after, bounds).await,
            Database::Postgres(postgres) => postgres.list(tenant, filter, after, bounds).await,
        }
    }

    /// Which of these verdicts have a row, of whatever tenant. For the auditor.
    pub async fn known(&self, ids: Vec<VerdictId>) -> Result<Vec<VerdictId>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.known(ids).await,
            Database::Postgres(postgres) => postgres.known(ids).await,
        }
    }

    /// Up to `rows_max` rows from one seat to below another, by seat. For the auditor.
    pub async fn seated(
        &self,
        from: Seat,
        below: Seat,
        rows_max: usize,
    ) -> Result<Vec<(Seat, VerdictId)>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.seated(from, below, rows_max).await,
            Database::Postgres(postgres) => postgres.seated(from, below, rows_max).await,
        }
    }
}
