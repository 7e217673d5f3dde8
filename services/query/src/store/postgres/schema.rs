//! Tables, indexes, how they come to be, and how a connection is set.

use std::time::Duration;

use super::connection::Connection;
use super::pool::Pool;
use super::{Failure, PostgresConfig};
use crate::store::StoreError;

/// Each brings the tables from its number to the next; what is released is never changed. Chosen over a crate: it is
/// one loop, and runs in the transaction that notes the number.
const MIGRATIONS: &[&str] = &[TABLES];

/// "TSqy": replicas that start at once migrate one after another.
const LOCK: i64 = 0x5453_7179;

/// A migration may build indexes over everything, or wait for another replica that does. Chosen.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(3_600);

// Texts that a record may fill with anything are indexed by digest: an index entry has a size limit, and text cannot
// hold NUL. Every index but the two that are unique ends in (created_at, seat): the order of List.
//
// Those that begin with the tenant are partial, though they hold every row: each serves only who states its own
// condition. A planner without statistics, as on a new store, takes any of them for a lookup by tenant, and then
// walks all that is the tenant's. For the same reason what they hold may be null, and never is.
//
// Records are not compressed: that costs the projector more than the disk.
const TABLES: &str = "
CREATE TABLE projector (partition integer PRIMARY KEY, next_offset bigint NOT NULL);
CREATE TABLE models (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name_digest bytea NOT NULL,
    sha256_digest bytea NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    UNIQUE (name_digest, sha256_digest)
);
CREATE TABLE verdicts (
    seat bigint PRIMARY KEY,
    created_at bigint NOT NULL,
    generation bigint NOT NULL,
    outcome integer,
    band integer,
    probability real,
    model integer,
    verdict_id bytea NOT NULL UNIQUE,
    tenant text COLLATE \"C\" NOT NULL,
    media_id text COLLATE \"C\",
    reason text NOT NULL,
    record bytea NOT NULL
);
ALTER TABLE verdicts ALTER COLUMN record SET STORAGE EXTERNAL;
CREATE INDEX verdicts_media ON verdicts (tenant, media_id, generation, created_at, seat) WHERE media_id IS NOT NULL;
CREATE INDEX verdicts_time ON verdicts (tenant, created_at, seat) WHERE seat >= 0;
CREATE INDEX verdicts_outcome ON verdicts (tenant, outcome, created_at, seat) WHERE outcome IS NOT NULL;
CREATE INDEX verdicts_band ON verdicts (tenant, band, created_at, seat) WHERE band IS NOT NULL;
CREATE INDEX verdicts_model ON verdicts (tenant, model, created_at, seat) WHERE model IS NOT NULL;
CREATE TABLE labels (
    tenant text COLLATE \"C\" NOT NULL,
    label bytea NOT NULL,
    created_at bigint NOT NULL,
    seat bigint NOT NULL,
    PRIMARY KEY (tenant, label, created_at, seat)
);
";

/// Readers get the plan that their statement was written for, whatever the statistics say: walks of indexes in the
/// order of List. No statement of theirs needs another kind.
pub(super) fn reader_session(statement_timeout: Duration) -> String {
    let off =
        ["enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashjoin", "enable_mergejoin", "jit"];
    let off = off.map(|setting| format!("SET {setting} = off;")).concat();
    format!(
        "{}{off} SET plan_cache_mode = force_generic_plan; SET default_transaction_read_only = on;",
        session(statement_timeout)
    )
}

/// A crash of the server may take the last transactions, rows and offset together: they are projected again.
pub(super) fn writer_session(statement_timeout: Duration) -> String {
    format!(
        "{} SET synchronous_commit = off; SET enable_seqscan = off; SET jit = off;",
        session(statement_timeout)
    )
}

fn session(statement_timeout: Duration) -> String {
    let timeout = statement_timeout.as_millis();
    format!(
        "SET search_path = touchstone; SET statement_timeout = {timeout}; SET lock_timeout = {timeout};
         SET idle_in_transaction_session_timeout = {timeout};"
    )
}

/// Makes the tables or brings them up to date, in one transaction, and binds them to the topic.
pub(super) async fn migrate(
    config: &PostgresConfig,
    topic: &str,
    tasks: &ops::Tasks,
) -> Result<(), StoreError> {
    let place = config.address.place();
    let pool = Pool::new(config, session(MIGRATION_PATIENCE), (1, 0), tasks);
    let mut connection = pool.connect().await.map_err(|failure| failure.at_start(place))?;
    connection.set_patience(MIGRATION_PATIENCE);
    let migrated = try_migrate(&mut connection, topic).await;
    if let Err(Failure::Refused { .. }) = &migrated {
        // Others that look at it shall not wait for this one to be gone.
        connection.roll_back().await.map_err(|failure| failure.at(place))?;
    }
    migrated.map_err(|failure| failure.at_start(place))
}

async fn try_migrate(connection: &mut Connection, topic: &str) -> Result<(), Failure> {
    connection.begin().await?;
    connection.query("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let found = connection
        .query(
            "SELECT to_regnamespace('touchstone') IS NOT NULL, to_regclass('touchstone.meta') IS NOT NULL,
                EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('touchstone'))",
            &[],
        )
        .await?;
    let (schema, meta, tables): (bool, bool, bool) =
        (found[0].try_get(0)?, found[0].try_get(1)?, found[0].try_get(2)?);
    if tables && !meta {
        let why = "its schema touchstone belongs to another program: give the store a database of its own";
        return Err(Failure::Refused { why: why.to_owned() });
    }
    // It needs a right of its own, even where it would do nothing.
    if !schema {
        connection.batch("CREATE SCHEMA touchstone").await?;
    }
    if !meta {
        connection.batch("CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL)").await?;
        connection.execute("INSERT INTO meta VALUES ('schema', '0'), ('topic', $1)", &[&topic]).await?;
    }
    let stored = meta_value(connection, "topic").await?;
    if stored != topic {
        let why = format!("it follows topic {stored}, not {topic}: give this topic a database of its own");
        return Err(Failure::Refused { why });
    }
    let (stored, known) = (meta_value(connection, "schema").await?, MIGRATIONS.len());
    let Some(missing) = stored.parse().ok().and_then(|version: usize| MIGRATIONS.get(version..)) else {
        let why = format!(
            "it has schema {stored}, this build knows {known}: run the newer build, or name another database"
        );
        return Err(Failure::Refused { why });
    };
    if !missing.is_empty() {
        for migration in missing {
            connection.batch(migration).await?;
        }
        let known = known.to_string();
        connection.execute("UPDATE meta SET value = $1 WHERE name = 'schema'", &[&known]).await?;
        tracing::info!(from = stored, to = known, "the store's tables were made or brought up to date");
    }
    connection.commit().await
}

async fn meta_value(connection: &mut Connection, name: &str) -> Result<String, Failure> {
    let rows = connection.query("SELECT value FROM meta WHERE name = $1", &[&name]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}
