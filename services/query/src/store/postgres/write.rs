//! Rows and offsets, in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::{Failure, digest};
use crate::store::bounds::band;
use crate::store::row::same_judgement;
use crate::store::{Applied, Row, Stretch};

/// Rows, and bytes of their records, of one statement. Chosen: the projector's transactions are one statement, and
/// large records stay far below what a parameter may hold.
const CHUNK_ROWS: usize = 4_096;
const CHUNK_BYTES: usize = 16 << 20;

pub(super) async fn apply(connection: &mut Connection, stretches: &[Stretch]) -> Result<Applied, Failure> {
    connection.begin().await?;
    let applied = try_apply(connection, stretches).await;
    match &applied {
        Ok(_) => connection.commit().await?,
        // Two replicas meet here all the time: the connection is kept.
        Err(Failure::Overtaken { .. } | Failure::Refused { .. }) => connection.roll_back().await?,
        Err(_) => {}
    }
    applied
}

async fn try_apply(connection: &mut Connection, stretches: &[Stretch]) -> Result<Applied, Failure> {
    for (partition, step) in steps(stretches)? {
        advance(connection, partition, step).await?;
    }
    let mut applied = Applied::default();
    for rows in chunks(stretches) {
        insert(connection, &rows, &mut applied).await?;
    }
    Ok(applied)
}

/// From where a partition's offset moves, and where to.
type Step = (Option<i64>, i64);

/// One step for each partition, in order of partitions: two projectors never wait for each other crosswise.
fn steps(stretches: &[Stretch]) -> Result<BTreeMap<i32, Step>, Failure> {
    let mut steps: BTreeMap<i32, Step> = BTreeMap::new();
    for stretch in stretches {
        let step = steps.entry(stretch.partition).or_insert((stretch.expected, stretch.next_offset));
        if step.1 == stretch.next_offset || stretch.expected == Some(step.1) {
            step.1 = stretch.next_offset;
        } else {
            return Err(Failure::Overtaken { partition: stretch.partition });
        }
    }
    Ok(steps)
}

/// The guard: a second projector waits here for the first, finds the offset moved, and writes nothing.
async fn advance(connection: &mut Connection, partition: i32, (from, to): Step) -> Result<(), Failure> {
    let moved = match from {
        Some(from) => {
            let sql = "UPDATE projector SET next_offset = $3 WHERE partition = $1 AND next_offset = $2";
            connection.execute(sql, &[&partition, &from, &to]).await?
        }
        None => {
            let sql = "INSERT INTO projector VALUES ($1, $2) ON CONFLICT DO NOTHING";
            connection.execute(sql, &[&partition, &to]).await?
        }
    };
    if moved == 1 { Ok(()) } else { Err(Failure::Overtaken { partition }) }
}

fn chunks(stretches: &[Stretch]) -> Vec<Vec<&Row>> {
    let (mut chunks, mut bytes) = (Vec::new(), CHUNK_BYTES);
    for row in stretches.iter().flat_map(|stretch| &stretch.rows) {
        let full = |chunk: &Vec<&Row>| chunk.len() == CHUNK_ROWS;
        if bytes >= CHUNK_BYTES || chunks.last().is_some_and(full) {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += row.record.len();
        chunks.last_mut().expect("the first row began one").push(row);
    }
    chunks
}

async fn insert(connection: &mut Connection, rows: &[&Row], applied: &mut Applied) -> Result<(), Failure> {
    let models = models(connection, rows).await?;
    let inserted = insert_verdicts(connection, rows, &models).await?;
    applied.inserted += inserted.len() as u64;
    let (new, repeated): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| inserted.contains(&row.seat.number()));
    insert_labels(connection, &new).await?;
    if repeated.is_empty() { Ok(()) } else { count_repeated(connection, &repeated, applied).await }
}

/// The seats of those that are new; of equal ids the first row is.
async fn insert_verdicts(
    connection: &mut Connection,
    rows: &[&Row],
    models: &HashMap<Model, i32>,
) -> Result<HashSet<i64>, Failure> {
    let seats = column(rows, |row| row.seat.number());
    let created_at = column(rows, |row| row.created_at_us);
    let generations = column(rows, |row| i64::from(row.generation));
    let outcomes = column(rows, |row| row.outcome);
    let bands = column(rows, |row| row.probability.map(band));
    let probabilities = column(rows, |row| row.probability);
    let models = column(rows, |row| models.get(&Model::of(row)).copied());
    let ids = column(rows, |row| &row.verdict_id.as_bytes()[..]);
    let tenants = column(rows, |row| row.tenant.as_str());
    let media = column(rows, |row| row.media_id.as_str());
    let reasons = column(rows, |row| row.reason.as_str());
    let records = column(rows, |row| &row.record[..]);
    let parameters: [&(dyn ToSql + Sync); 12] = [
        &seats,
        &created_at,
        &generations,
        &outcomes,
        &bands,
        &probabilities,
        &models,
        &ids,
        &tenants,
        &media,
        &reasons,
        &records,
    ];
    let sql = "INSERT INTO verdicts (seat, created_at, generation, outcome, band, probability, model, verdict_id,
            tenant, media_id, reason, record)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::integer[], $6::real[],
            $7::integer[], $8::bytea[], $9::text[], $10::text[], $11::text[], $12::bytea[])
        ON CONFLICT DO NOTHING RETURNING seat";
    let inserted = connection.query(sql, &parameters).await?;
    Ok(inserted.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn column<'r, T>(rows: &[&'r Row], of: impl Fn(&'r Row) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

async fn insert_labels(connection: &mut Connection, rows: &[&Row]) -> Result<(), Failure> {
    let (mut tenants, mut labels, mut created_at, mut seats) = (vec![], vec![], vec![], vec![]);
    for row in rows {
        for (key, value) in &row.labels {
            tenants.push(row.tenant.as_str());
            labels.push(digest(&[key, value]));
            created_at.push(row.created_at_us);
            seats.push(row.seat.number());
        }
    }
    if seats.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO labels (tenant, label, created_at, seat)
        SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[])";
    connection.execute(sql, &[&tenants, &labels, &created_at, &seats]).await?;
    Ok(())
}

/// Name and SHA-256, as digests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model(Vec<u8>, Vec<u8>);

impl Model {
    fn of(row: &Row) -> Self {
        Self(digest(&[&row.model_name]), digest(&[&row.model_sha256]))
    }
}

/// The numbers of these rows' models, of which there are few; new ones get theirs.
async fn models(connection: &mut Connection, rows: &[&Row]) -> Result<HashMap<Model, i32>, Failure> {
    let mut wanted: HashMap<Model, &Row> = HashMap::new();
    for row in rows {
        wanted.entry(Model::of(row)).or_insert(row);
    }
    let mut known = numbers(connection, &wanted).await?;
    if known.len() == wanted.len() {
        return Ok(known);
    }
    for (model, row) in wanted.iter().filter(|(model, _)| !known.contains_key(model)) {
        let sql = "INSERT INTO models (name_digest, sha256_digest, name, sha256) VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING";
        // For people who look into the store; text cannot hold NUL.
        let (name, sha256) =
            (row.model_name.replace('\0', "\u{fffd}"), row.model_sha256.replace('\0', "\u{fffd}"));
        connection.execute(sql, &[&model.0, &model.1, &name, &sha256]).await?;
    }
    known = numbers(connection, &wanted).await?;
    Ok(known)
}

async fn numbers(
    connection: &mut Connection,
    wanted: &HashMap<Model, &Row>,
) -> Result<HashMap<Model, i32>, Failure> {
    let (names, sha256s): (Vec<_>, Vec<_>) = wanted.keys().map(|model| (&model.0, &model.1)).unzip();
    let sql = "SELECT name_digest, sha256_digest, id FROM models
        WHERE (name_digest, sha256_digest) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[]))";
    let mut numbers = HashMap::new();
    for row in connection.query(sql, &[&names, &sha256s]).await? {
        numbers.insert(Model(row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    Ok(numbers)
}

async fn count_repeated(
    connection: &mut Connection,
    rows: &[&Row],
    applied: &mut Applied,
) -> Result<(), Failure> {
    let ids = column(rows, |row| &row.verdict_id.as_bytes()[..]);
    let sql = "SELECT verdict_id, record FROM verdicts WHERE verdict_id = ANY($1)";
    let found = connection.query(sql, &[&ids]).await?;
    let mut first: HashMap<&[u8], &[u8]> = HashMap::new();
    for row in &found {
        first.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in rows {
        match first.get(&row.verdict_id.as_bytes()[..]) {
            Some(first) if same_judgement(first, &row.record) => applied.duplicates += 1,
            Some(_) => applied.divergent.push(row.verdict_id),
            None => {
                let (partition, offset) = (row.seat.partition(), row.seat.offset());
                let why = format!(
                    "it has another verdict for partition {partition}, offset {offset}: it follows another log; \
                     give this log a store of its own"
                );
                return Err(Failure::Refused { why });
            }
        }
    }
    Ok(())
}
