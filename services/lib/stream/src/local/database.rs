//! The SQLite file: its shape, its settings, and what its errors mean.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};

use super::config::Synchronous;
use crate::error::StreamError;
use crate::log::{Cleanup, TopicPolicy, TopicSpec, Watermarks};
use crate::record::TopicPartition;

/// The schema this program writes. A newer one is refused, an older one would be migrated here.
pub(crate) const SCHEMA: i64 = 1;
/// "TSlg" in the file's header tells our file from any other SQLite file.
const APPLICATION_ID: i64 = 0x5453_6c67;
const FILE: &str = "log.sqlite";

/// A checkpoint waits this long for readers to let go of the write-ahead log (chosen: a fetch takes milliseconds).
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// After a checkpoint the write-ahead log is cut to this (chosen: four times what triggers one).
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;

const TABLES: &str = "
CREATE TABLE topics (
    name TEXT PRIMARY KEY,
    cleanup TEXT NOT NULL CHECK (cleanup IN ('delete', 'compact')),
    retention_ms INTEGER
);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topics (name),
    partition INTEGER NOT NULL,
    low_offset INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    last_timestamp_ms INTEGER NOT NULL,
    UNIQUE (topic, partition)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    timestamp_ms INTEGER NOT NULL,
    key BLOB,
    value BLOB,
    headers BLOB
);
CREATE TABLE committed (
    consumer_group TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, partition_id)
) WITHOUT ROWID;
CREATE TABLE probe (filler BLOB);
";

/// The writer's connection.
pub(crate) struct Database {
    pub(crate) connection: Connection,
}

/// What the file says about everything but the records.
pub(crate) struct Loaded {
    pub(crate) topics: Vec<TopicSpec>,
    pub(crate) partitions: Vec<LoadedPartition>,
    pub(crate) committed: HashMap<(Arc<str>, i64), i64>,
}

/// One partition as the file has it.
pub(crate) struct LoadedPartition {
    pub(crate) id: i64,
    pub(crate) name: TopicPartition,
    pub(crate) ends: Watermarks,
    pub(crate) last_timestamp_ms: i64,
}

/// The file of a folder.
pub(crate) fn file_of(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Database {
    /// Opens the file, makes it if it is missing.
    pub(crate) fn open(
        folder: &Path,
        synchronous: Synchronous,
        bytes_max: Option<u64>,
    ) -> Result<Self, StreamError> {
        let told = |error: rusqlite::Error| told(folder, &error);
        let connection = Connection::open(file_of(folder)).map_err(told)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(told)?;
        let version: i64 = number(&connection, "PRAGMA user_version").map_err(told)?;
        let application: i64 = number(&connection, "PRAGMA application_id").map_err(told)?;
        let tables: i64 = number(&connection, "SELECT count(*) FROM sqlite_master").map_err(told)?;
        if version > SCHEMA {
            return Err(StreamError::NewerSchema {
                folder: folder.to_owned(),
                found: version,
                known: SCHEMA,
            });
        }
        if tables > 0 && (application != APPLICATION_ID || version < 1) {
            let why = format!("{FILE} is not a log: application id {application:#x}, schema {version}");
            return Err(StreamError::Corrupt { folder: folder.to_owned(), why });
        }
        let synchronous = match synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        if tables == 0 {
            // Before anything is written: it cannot be changed later. Retention gives space back through it.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(told)?;
        }
        // Checkpoints are the writer's own business (after its answers are out), not the commit's.
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 0;
                 PRAGMA journal_size_limit = {WAL_BYTES_KEPT}; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;"
            ))
            .map_err(told)?;
        if let Some(bytes) = bytes_max {
            let page: i64 = number(&connection, "PRAGMA page_size").map_err(told)?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            connection.execute_batch(&format!("PRAGMA max_page_count = {}", pages.max(1))).map_err(told)?;
        }
        if tables == 0 {
            connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID};
                     PRAGMA user_version = {SCHEMA}; COMMIT;"
                ))
                .map_err(told)?;
        }
        Ok(Self { connection })
    }

    /// Reads everything but the records.
    pub(crate) fn load(&self) -> rusqlite::Result<Loaded> {
        let mut statement = self.connection.prepare(
            "SELECT topics.name, cleanup, retention_ms, count(*) FROM topics JOIN partitions ON topic = name
             GROUP BY topics.name",
        )?;
        let topics = statement
            .query_map([], |row| {
                let retention_ms: Option<i64> = row.get(2)?;
                let policy = match retention_ms {
                    Some(retention_ms) => TopicPolicy { cleanup: Cleanup::Delete { retention_ms } },
                    None => TopicPolicy::compact(),
                };
                Ok(TopicSpec { name: row.get::<_, String>(0)?.into(), partitions: row.get(3)?, policy })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut statement = self.connection.prepare(
            "SELECT id, topic, partition, low_offset, next_offset, last_timestamp_ms FROM partitions
             ORDER BY topic, partition",
        )?;
        let partitions = statement
            .query_map([], |row| {
                Ok(LoadedPartition {
                    id: row.get(0)?,
                    name: TopicPartition::new(row.get::<_, String>(1)?, row.get(2)?),
                    ends: Watermarks { low: row.get(3)?, high: row.get(4)? },
                    last_timestamp_ms: row.get(5)?,
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut statement =
            self.connection.prepare("SELECT consumer_group, partition_id, next_offset FROM committed")?;
        let committed = statement
            .query_map([], |row| Ok(((Arc::from(row.get::<_, String>(0)?), row.get(1)?), row.get(2)?)))?
            .collect::<rusqlite::Result<HashMap<_, _>>>()?;
        Ok(Loaded { topics, partitions, committed })
    }

    /// Adds a topic and its empty partitions; part of an open transaction.
    pub(crate) fn add_topic(&self, spec: &TopicSpec) -> rusqlite::Result<()> {
        let (cleanup, retention_ms) = match spec.policy.cleanup {
            Cleanup::Delete { retention_ms } => ("delete", Some(retention_ms)),
            Cleanup::Compact => ("compact", None),
        };
        self.connection.execute(
            "INSERT INTO topics (name, cleanup, retention_ms) VALUES (?1, ?2, ?3)",
            params![&*spec.name, cleanup, retention_ms],
        )?;
        let mut statement = self.connection.prepare(
            "INSERT INTO partitions (topic, partition, low_offset, next_offset, last_timestamp_ms)
             VALUES (?1, ?2, 0, 0, 0)",
        )?;
        for partition in 0..spec.partitions {
            statement.execute(params![&*spec.name, partition])?;
        }
        Ok(())
    }

    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    pub(crate) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Ends an open transaction, if SQLite has not ended it already (it does on some full disks).
    pub(crate) fn rollback(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "rolling back failed");
        }
    }

    /// Moves the write-ahead log into the file as far as readers allow; returns the frames that it still has.
    pub(crate) fn checkpoint(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)
        })
    }

    /// Moves all of the write-ahead log into the file and empties it; false when a reader was in the way.
    pub(crate) fn checkpoint_whole(&self) -> rusqlite::Result<bool> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
    }

    /// Writes as many bytes as a large transaction has, durably, and takes them away again.
    pub(crate) fn probe(&self, bytes: usize) -> rusqlite::Result<()> {
        self.begin()?;
        self.connection.execute("DELETE FROM probe", [])?;
        self.connection.execute("INSERT INTO probe (filler) VALUES (zeroblob(?1))", [bytes as i64])?;
        self.commit()?;
        self.connection.execute("DELETE FROM probe", [])?;
        Ok(())
    }

    /// Gives unused pages at the file's end back to the file system, when they are worth it; returns how many.
    pub(crate) fn vacuum(&self, pages_max: i64) -> rusqlite::Result<i64> {
        let pages: i64 = number(&self.connection, "PRAGMA page_count")?;
        let free: i64 = number(&self.connection, "PRAGMA freelist_count")?;
        // A quarter free is slack that new records will fill; giving it back would only be fetched again.
        let give_back = (free - pages / 4).clamp(0, pages_max);
        if give_back == 0 {
            return Ok(0);
        }
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({give_back})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(give_back)
    }
}

/// A connection that only reads.
pub(crate) fn open_to_read(folder: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file_of(folder), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<i64> {
    connection.query_row(sql, [], |row| row.get(0))
}

/// What an SQLite error means to us.
pub(crate) fn told(folder: &Path, error: &rusqlite::Error) -> StreamError {
    let folder = folder.to_owned();
    let why = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StreamError::StorageFull { folder, why },
            // The index of the write-ahead log grows with it: on a full disk this can be the first to fail.
            _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
                StreamError::StorageFull { folder, why }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StreamError::Corrupt { folder, why },
            _ => StreamError::Storage { folder, why },
        },
        _ => StreamError::Storage { folder, why },
    }
}
