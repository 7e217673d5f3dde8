//! The store on PostgreSQL: one writing connection and a few reading ones. Several processes share a database; the
//! projector's offset decides which of them has applied a stretch.

mod address;
mod connection;
mod cursor;
mod pool;
mod read;
mod schema;
mod write;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use forensics::{Tenant, VerdictId};
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;

use super::{Applied, Filter, Page, PageBounds, PageKey, Seat, StoreError, Stretch};
use pool::{Lease, Pool};

pub use address::Address;
use address::with_causes;

/// Which server, and how patiently it is used.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Where it is.
    pub address: Address,
    /// Holds the password; read for each connection, so that it may change.
    pub password_file: Option<PathBuf>,
    /// Reading connections.
    pub readers: usize,
    /// Reads that may wait for one.
    pub waiting_max: usize,
    /// Within this a connection is made, or not.
    pub connect_timeout: Duration,
    /// Within this a statement is answered, or given up.
    pub statement_timeout: Duration,
}

/// Handles share the connections, which close when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Postgres {
    readers: Pool,
    writer: Pool,
}

impl Postgres {
    pub(super) async fn open(
        config: &PostgresConfig,
        topic: &str,
        tasks: &ops::Tasks,
    ) -> Result<Self, StoreError> {
        let readers = (config.readers, config.waiting_max);
        let readers = Pool::new(config, schema::reader_session(config.statement_timeout), readers, tasks);
        // The projector is the one writer and waits for each answer.
        let writer = Pool::new(config, schema::writer_session(config.statement_timeout), (1, 1), tasks);
        schema::migrate(config, topic, tasks).await?;
        tracing::info!(store = config.address.place(), "the store is open");
        Ok(Self { readers, writer })
    }

    pub(super) async fn offsets(&self) -> Result<Vec<(i32, i64)>, StoreError> {
        let mut lease = self.readers.lease().await?;
        let read = read::offsets(lease.connection()).await;
        read.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn apply(&self, stretches: Vec<Stretch>) -> Result<Applied, StoreError> {
        let mut lease = self.writer.lease().await?;
        let applied = write::apply(lease.connection(), &stretches).await;
        applied.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn get(&self, tenant: &Tenant, id: VerdictId) -> Result<Option<Bytes>, StoreError> {
        let mut lease = self.readers.lease().await?;
        let read = read::get(lease.connection(), tenant.as_str(), id).await;
        read.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn newest(
        &self,
        tenant: &Tenant,
        media_ids: Vec<String>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut lease = self.readers.lease().await?;
        let read = read::newest(lease.connection(), tenant.as_str(), &media_ids).await;
        read.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn list(
        &self,
        tenant: &Tenant,
        filter: Filter,
        after: Option<PageKey>,
        bounds: PageBounds,
    ) -> Result<Page, StoreError> {
        let mut lease: Lease = self.readers.lease().await?;
        let wanted = cursor::Wanted { tenant: tenant.to_string(), filter, after };
        let read = read::list(lease.connection(), &wanted, bounds).await;
        read.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn known(&self, ids: Vec<VerdictId>) -> Result<Vec<VerdictId>, StoreError> {
        let mut lease = self.readers.lease().await?;
        let read = read::known(lease.connection(), ids).await;
        read.map_err(|failure| lease.at(failure))
    }

    pub(super) async fn seated(
        &self,
        from: Seat,
        below: Seat,
        rows_max: usize,
    ) -> Result<Vec<(Seat, VerdictId)>, StoreError> {
        let mut lease = self.readers.lease().await?;
        let read = read::seated(lease.connection(), from, below, rows_max).await;
        read.map_err(|failure| lease.at(failure))
    }
}

/// A failed statement, before it is known whose server it was.
#[derive(Debug)]
enum Failure {
    Overtaken { partition: i32 },
    Refused { why: String },
    Password { why: String },
    Silent { after: Duration },
    Postgres(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl Failure {
    fn at(self, place: &str) -> StoreError {
        let place = place.to_owned();
        match self {
            Self::Overtaken { partition } => StoreError::Overtaken { partition },
            Self::Refused { why } => StoreError::Refused { place, why },
            Self::Password { why } => StoreError::Unavailable { place, why },
            Self::Silent { after } => {
                StoreError::Unavailable { place, why: format!("it did not answer within {after:?}") }
            }
            Self::Postgres(error) => match refusal(error.code()) {
                Some(next) => StoreError::Refused { place, why: format!("{}; {next}", with_causes(&error)) },
                None => StoreError::Unavailable { place, why: with_causes(&error) },
            },
        }
    }

    /// As [`Failure::at`]; what keeps us out at the start is for a person to set right. Later it may be about to be,
    /// such as a password that changes.
    fn at_start(self, place: &str) -> StoreError {
        let keeps_out = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
        ];
        let kept_out = match &self {
            Self::Postgres(error) => error.code().is_some_and(|code| keeps_out.contains(code)),
            failure => matches!(failure, Self::Password { .. }),
        };
        match self.at(place) {
            StoreError::Unavailable { place, why } if kept_out => StoreError::Refused { place, why },
            error => error,
        }
    }
}

/// What a person has to do about an error that no waiting mends.
fn refusal(code: Option<&SqlState>) -> Option<&'static str> {
    let code = code?;
    let damaged = [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED];
    let altered = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::INVALID_SCHEMA_NAME];
    if damaged.contains(code) {
        Some("drop its schema touchstone, and it is built anew from the verdict topic")
    } else if altered.contains(code) {
        Some(
            "somebody changed its tables: drop its schema touchstone, and it is built anew from the verdict topic",
        )
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        Some("the role must own the schema touchstone, or may create it in this database")
    } else {
        None
    }
}

/// Of a text that may be long or hold anything, what an index can hold: equal for equal texts alone.
fn digest(text: &[&str]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in text {
        hash.update(part);
        // No UTF-8 has this byte.
        hash.update([0xff]);
    }
    hash.finalize()[..16].to_vec()
}

#[cfg(test)]
mod tests;
