//! One connection: statements are prepared once, and each has a deadline.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::Failure;

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The server ends a statement first, and says which; this much later it is taken for gone. Chosen.
const GRACE: Duration = Duration::from_secs(1);

/// Statements that stay prepared; filters have a few hundred shapes. Chosen.
const PREPARED_MAX: usize = 128;

pub(super) struct Connection {
    client: Client,
    prepared: HashMap<String, Statement>,
    patience: Duration,
    /// Nothing is under way, no transaction is open, nothing has failed: the next user finds it as new.
    settled: bool,
}

impl Connection {
    pub(super) fn new(client: Client, statement_timeout: Duration) -> Self {
        let patience = statement_timeout + GRACE;
        Self { client, prepared: HashMap::new(), patience, settled: true }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled && !self.client.is_closed()
    }

    /// How long the next statements may take.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience + GRACE;
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), Failure> {
        let settled = std::mem::replace(&mut self.settled, false);
        within(self.patience, self.client.batch_execute(sql)).await?;
        self.settled = settled;
        Ok(())
    }

    /// Rows of one statement.
    pub(super) async fn query(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        // Dropped half-way or failed, it stays unsettled.
        let settled = std::mem::replace(&mut self.settled, false);
        let statement = self.prepared(sql).await?;
        let rows = within(self.patience, self.client.query(&statement, parameters)).await?;
        self.settled = settled;
        Ok(rows)
    }

    /// How many rows one statement changed.
    pub(super) async fn execute(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<u64, Failure> {
        let settled = std::mem::replace(&mut self.settled, false);
        let statement = self.prepared(sql).await?;
        let changed = within(self.patience, self.client.execute(&statement, parameters)).await?;
        self.settled = settled;
        Ok(changed)
    }

    /// Until [`Connection::commit`] or [`Connection::roll_back`], nobody else may use it.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        self.batch("BEGIN").await?;
        self.settled = false;
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        self.batch("COMMIT").await?;
        self.settled = true;
        Ok(())
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        self.batch("ROLLBACK").await?;
        self.settled = true;
        Ok(())
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = within(self.patience, self.client.prepare(sql)).await?;
        if self.prepared.len() == PREPARED_MAX {
            // Rare: what is needed comes back.
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::Silent { after: limit }),
    }
}
