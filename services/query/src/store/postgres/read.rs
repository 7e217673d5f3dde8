//! Reading rows.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use forensics::VerdictId;

use super::Failure;
use super::connection::Connection;
use super::cursor::{self, Wanted};
use crate::store::{Page, PageBounds, Seat, Stored};

pub(super) async fn offsets(connection: &mut Connection) -> Result<Vec<(i32, i64)>, Failure> {
    let rows = connection.query("SELECT partition, next_offset FROM projector ORDER BY 1", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(super) async fn get(
    connection: &mut Connection,
    tenant: &str,
    id: VerdictId,
) -> Result<Option<Bytes>, Failure> {
    let sql = "SELECT record FROM verdicts WHERE verdict_id = $1 AND tenant = $2";
    let rows = connection.query(sql, &[&&id.as_bytes()[..], &tenant]).await?;
    rows.first().map(|row| Ok(Bytes::copy_from_slice(row.try_get(0)?))).transpose()
}

pub(super) async fn newest(
    connection: &mut Connection,
    tenant: &str,
    media_ids: &[String],
) -> Result<Vec<Bytes>, Failure> {
    let sql = "SELECT newest.record FROM unnest($2::text[]) WITH ORDINALITY AS asked (media_id, place),
        LATERAL (
            SELECT record FROM verdicts WHERE tenant = $1 AND media_id = asked.media_id
            ORDER BY generation DESC, created_at DESC, seat DESC LIMIT 1
        ) AS newest
        ORDER BY asked.place";
    let rows = connection.query(sql, &[&tenant, &media_ids]).await?;
    rows.iter().map(|row| Ok(Bytes::copy_from_slice(row.try_get(0)?))).collect()
}

pub(super) async fn list(
    connection: &mut Connection,
    wanted: &Wanted,
    bounds: PageBounds,
) -> Result<Page, Failure> {
    let mut keys = cursor::keys(connection, wanted, bounds.rows_max).await?;
    let mut bytes = 0;
    let fits = |candidate: &cursor::Found| {
        bytes += candidate.bytes;
        bytes <= bounds.bytes_max
    };
    let fitting = keys.found.iter().map(fits).take_while(|fits| *fits).count().max(1);
    if fitting < keys.found.len() {
        keys.found.truncate(fitting);
        keys.next = keys.found.last().map(|found| found.key);
    }
    if keys.found.is_empty() {
        return Ok(Page { rows: Vec::new(), next: keys.next });
    }
    let seats: Vec<i64> = keys.found.iter().map(|found| found.key.seat.number()).collect();
    let sql = "SELECT seat, record FROM verdicts WHERE tenant = $1 AND seat = ANY($2)";
    let mut records: HashMap<i64, Bytes> = HashMap::with_capacity(seats.len());
    for row in connection.query(sql, &[&wanted.tenant, &seats]).await? {
        records.insert(row.try_get(0)?, Bytes::copy_from_slice(row.try_get(1)?));
    }
    let stored = keys.found.iter().filter_map(|found| {
        let record = records.remove(&found.key.seat.number())?;
        Some(Stored { key: found.key, record })
    });
    Ok(Page { rows: stored.collect(), next: keys.next })
}

pub(super) async fn known(
    connection: &mut Connection,
    ids: Vec<VerdictId>,
) -> Result<Vec<VerdictId>, Failure> {
    let asked: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
    let rows =
        connection.query("SELECT verdict_id FROM verdicts WHERE verdict_id = ANY($1)", &[&asked]).await?;
    let known: HashSet<&[u8]> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok(ids.iter().copied().filter(|id| known.contains(&id.as_bytes()[..])).collect())
}

pub(super) async fn seated(
    connection: &mut Connection,
    from: Seat,
    below: Seat,
    rows_max: usize,
) -> Result<Vec<(Seat, VerdictId)>, Failure> {
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let sql = "SELECT seat, verdict_id FROM verdicts WHERE seat >= $1 AND seat < $2 ORDER BY seat LIMIT $3";
    let rows = connection.query(sql, &[&from.number(), &below.number(), &limit]).await?;
    let read = |row: &tokio_postgres::Row| {
        let id: &[u8] = row.try_get(1)?;
        let id = id.try_into().map_err(|_| {
            let why =
                "a verdict_id of its has not 32 bytes: drop its schema touchstone, and it is built anew";
            Failure::Refused { why: why.to_owned() }
        })?;
        Ok((Seat::from_number(row.try_get(0)?), VerdictId::from_bytes(id)))
    };
    rows.iter().map(read).collect()
}
