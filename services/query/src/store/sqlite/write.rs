//! Rows and offsets, in one transaction.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::Failure;
use crate::store::bounds::band;
use crate::store::row::same_judgement;
use crate::store::{Applied, Row, Stretch};

pub(super) fn apply(connection: &mut Connection, stretches: &[Stretch]) -> Result<Applied, Failure> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut applied = Applied::default();
    for stretch in stretches {
        advance(&tx, stretch)?;
        for row in &stretch.rows {
            insert(&tx, row, &mut applied)?;
        }
    }
    tx.commit()?;
    Ok(applied)
}

/// The guard: a second projector on this store finds the offset moved, and writes nothing.
fn advance(tx: &Transaction<'_>, stretch: &Stretch) -> Result<(), Failure> {
    let Stretch { partition, expected, next_offset, .. } = stretch;
    let moved = match expected {
        Some(expected) => tx
            .prepare_cached(
                "UPDATE projector SET next_offset = ?3 WHERE partition = ?1 AND next_offset = ?2",
            )?
            .execute(params![partition, expected, next_offset])?,
        None => tx
            .prepare_cached("INSERT INTO projector VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![partition, next_offset])?,
    };
    if moved == 1 { Ok(()) } else { Err(Failure::Overtaken { partition: *partition }) }
}

fn insert(tx: &Transaction<'_>, row: &Row, applied: &mut Applied) -> Result<(), Failure> {
    let inserted = tx
        .prepare_cached(
            "INSERT INTO verdicts (seat, verdict_id, tenant, media_id, generation, outcome, reason,
                probability, band, model_name, model_sha256, created_at, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            row.seat.number(),
            &row.verdict_id.as_bytes()[..],
            row.tenant.as_str(),
            row.media_id,
            row.generation,
            row.outcome,
            row.reason,
            row.probability.map(f64::from),
            row.probability.map(band),
            row.model_name,
            row.model_sha256,
            row.created_at_us,
            &row.record[..],
        ])?;
    if inserted == 0 {
        return count_repeated(tx, row, applied);
    }
    applied.inserted += 1;
    for (key, value) in &row.labels {
        tx.prepare_cached("INSERT INTO labels VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            row.tenant.as_str(),
            key,
            value,
            row.created_at_us,
            row.seat.number(),
        ])?;
    }
    Ok(())
}

fn count_repeated(tx: &Transaction<'_>, row: &Row, applied: &mut Applied) -> Result<(), Failure> {
    let first: Option<Vec<u8>> = tx
        .prepare_cached("SELECT record FROM verdicts WHERE verdict_id = ?1")?
        .query_row([&row.verdict_id.as_bytes()[..]], |found| found.get(0))
        .optional()?;
    match first {
        Some(first) if same_judgement(&first, &row.record) => applied.duplicates += 1,
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
    Ok(())
}
