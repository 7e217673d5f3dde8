//! The store's database, as somebody meets it who goes behind the store's back.

use std::path::PathBuf;
use std::time::Duration;

use testbed::Postgres;

use crate::store::{Address, PostgresConfig, Seat, SqliteConfig, StoreConfig};

#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(PathBuf),
    /// One of the shared server's, by name.
    Postgres(String),
}

impl Database {
    pub(super) fn sqlite(folder: &tempfile::TempDir) -> Self {
        Self::Sqlite(folder.path().join("store.db"))
    }

    /// An empty one of the server that all tests share.
    pub(super) async fn postgres() -> Self {
        let made = tokio::task::spawn_blocking(|| Postgres::shared().create_database().unwrap());
        Self::Postgres(made.await.unwrap())
    }

    pub(super) fn config(&self) -> StoreConfig {
        match self {
            Self::Sqlite(file) => {
                StoreConfig::Sqlite(SqliteConfig { file: file.clone(), readers: 1, waiting_max: 64 })
            }
            Self::Postgres(name) => StoreConfig::Postgres(PostgresConfig {
                address: Address::parse(&Postgres::shared().url(name)).unwrap(),
                password_file: None,
                readers: 1,
                waiting_max: 64,
                connect_timeout: Duration::from_secs(20),
                statement_timeout: Duration::from_secs(20),
            }),
        }
    }

    /// A row that the auditor must miss.
    pub(super) fn delete(&self, seat: Seat) {
        self.change(&format!("DELETE FROM {} WHERE seat = {}", self.table(), seat.number()));
    }

    /// A row that is another verdict's from now on.
    pub(super) fn rename(&self, seat: Seat) {
        let (table, id) = (self.table(), self.random_id());
        self.change(&format!("UPDATE {table} SET verdict_id = {id} WHERE seat = {}", seat.number()));
    }

    /// The same row once more, elsewhere and under another id.
    pub(super) fn copy(&self, from: Seat, to: Seat) {
        let (table, id) = (self.table(), self.random_id());
        let model = match self {
            Self::Sqlite(_) => "model_name, model_sha256",
            Self::Postgres(_) => "model",
        };
        let rest = format!(
            "tenant, media_id, generation, outcome, reason, probability, band, {model}, created_at, record"
        );
        let (from, to) = (from.number(), to.number());
        self.change(&format!(
            "INSERT INTO {table} (seat, verdict_id, {rest}) SELECT {to}, {id}, {rest} FROM {table} WHERE seat = {from}"
        ));
    }

    fn table(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "verdicts",
            Self::Postgres(_) => "touchstone.verdicts",
        }
    }

    fn random_id(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "randomblob(32)",
            Self::Postgres(_) => "sha256(gen_random_uuid()::text::bytea)",
        }
    }

    /// One row, no less.
    fn change(&self, statement: &str) {
        match self {
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.busy_timeout(Duration::from_secs(5)).unwrap();
                assert_eq!(connection.execute(statement, []).unwrap(), 1, "{statement}");
            }
            Self::Postgres(name) => {
                let counted =
                    format!("WITH changed AS ({statement} RETURNING 1) SELECT count(*) FROM changed");
                assert_eq!(Postgres::shared().query(name, &counted).unwrap(), "1", "{statement}");
            }
        }
    }
}
