//! Tables, indexes, and how a connection is set.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::Failure;
use crate::store::StoreError;

/// Raised with every change of the tables.
const SCHEMA: i64 = 1;

/// "TSqy": SQLite files of other programs are refused.
const APPLICATION_ID: i64 = 0x5453_7179;

// The record comes last, so that reading the other columns does not walk its overflow pages. Every index but the
// first two ends in (created_at, seat): the order of List.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE projector (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL) STRICT;
CREATE TABLE verdicts (
    seat INTEGER PRIMARY KEY,
    verdict_id BLOB NOT NULL,
    tenant TEXT NOT NULL,
    media_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    reason TEXT NOT NULL,
    probability REAL,
    band INTEGER,
    model_name TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX verdicts_id ON verdicts (verdict_id);
CREATE INDEX verdicts_media ON verdicts (tenant, media_id, generation, created_at);
CREATE INDEX verdicts_time ON verdicts (tenant, created_at);
CREATE INDEX verdicts_outcome ON verdicts (tenant, outcome, created_at);
CREATE INDEX verdicts_band ON verdicts (tenant, band, created_at, seat, probability) WHERE band IS NOT NULL;
CREATE INDEX verdicts_model_name ON verdicts (tenant, model_name, created_at);
CREATE INDEX verdicts_model_sha256 ON verdicts (tenant, model_sha256, created_at);
CREATE TABLE labels (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    seat INTEGER NOT NULL,
    PRIMARY KEY (tenant, key, value, created_at, seat)
) STRICT, WITHOUT ROWID;
";

/// Why a file could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Folder(std::io::Error),
    Failed(Failure),
}

impl OpenError {
    pub(super) fn at(self, place: &str) -> StoreError {
        match self {
            Self::Folder(error) => {
                StoreError::Unavailable { place: place.to_owned(), why: format!("its folder: {error}") }
            }
            Self::Failed(failure) => failure.at(place),
        }
    }
}

impl<E: Into<Failure>> From<E> for OpenError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Opens the file for writing, makes the tables, and binds it to the topic.
pub(super) fn open_writer(file: &Path, topic: &str) -> Result<Connection, OpenError> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(OpenError::Folder)?;
    }
    let mut connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Power loss may take the last transactions, rows and offset together: they are projected again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 16_000)?;
    set_common(&connection, 64)?;
    let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, schema) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, schema) {
        (0, 0) if tables == 0 => {
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            tx.execute("INSERT INTO meta VALUES ('topic', ?1)", [topic])?;
        }
        (APPLICATION_ID, SCHEMA) => check_topic(&tx, topic)?,
        (APPLICATION_ID, newer) => {
            let why = format!(
                "it has schema {newer}, this build knows {SCHEMA}: run the newer build, or name another file"
            );
            return Err(Failure::Refused { why }.into());
        }
        _ => return Err(Failure::Refused { why: "it is another program's file".to_owned() }.into()),
    }
    tx.commit()?;
    Ok(connection)
}

/// Opens the file for reading.
pub(super) fn open_reader(file: &Path) -> Result<Connection, OpenError> {
    // Not read-only: readers of a WAL take part in its index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    set_common(&connection, 32)?;
    Ok(connection)
}

fn set_common(connection: &Connection, cache_mib: i64) -> Result<(), rusqlite::Error> {
    // Another process may be checkpointing.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache_mib * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn check_topic(connection: &Connection, topic: &str) -> Result<(), Failure> {
    let stored: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE name = 'topic'", [], |row| row.get(0))
        .optional()?;
    match stored {
        Some(stored) if stored == topic => Ok(()),
        stored => {
            let stored = stored.unwrap_or_default();
            let why = format!("it follows topic {stored}, not {topic}: give this topic a store of its own");
            Err(Failure::Refused { why })
        }
    }
}
