//! Reading rows.

use bytes::Bytes;
use forensics::VerdictId;
use rusqlite::{Connection, OptionalExtension, params};

use super::Failure;
use super::cursor::{self, Wanted};
use crate::store::{Page, PageBounds, Seat, Stored};

pub(super) fn offsets(connection: &Connection) -> Result<Vec<(i32, i64)>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT partition, next_offset FROM projector ORDER BY 1")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn get(connection: &Connection, tenant: &str, id: VerdictId) -> Result<Option<Bytes>, Failure> {
    let record: Option<Vec<u8>> = connection
        .prepare_cached("SELECT record FROM verdicts WHERE verdict_id = ?1 AND tenant = ?2")?
        .query_row(params![&id.as_bytes()[..], tenant], |row| row.get(0))
        .optional()?;
    Ok(record.map(Bytes::from))
}

pub(super) fn newest(
    connection: &Connection,
    tenant: &str,
    media_ids: &[String],
) -> Result<Vec<Bytes>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT record FROM verdicts WHERE tenant = ?1 AND media_id = ?2
         ORDER BY generation DESC, created_at DESC, seat DESC LIMIT 1",
    )?;
    let mut found = Vec::with_capacity(media_ids.len());
    for media_id in media_ids {
        let record: Option<Vec<u8>> =
            statement.query_row(params![tenant, media_id], |row| row.get(0)).optional()?;
        found.extend(record.map(Bytes::from));
    }
    Ok(found)
}

pub(super) fn list(connection: &Connection, wanted: &Wanted, bounds: PageBounds) -> Result<Page, Failure> {
    let keys = cursor::keys(connection, wanted, bounds.rows_max)?;
    let mut statement = connection.prepare_cached("SELECT record FROM verdicts WHERE seat = ?1")?;
    let (mut rows, mut bytes) = (Vec::with_capacity(keys.found.len()), 0);
    for key in keys.found {
        let record: Vec<u8> = statement.query_row([key.seat.number()], |row| row.get(0))?;
        bytes += record.len();
        if bytes > bounds.bytes_max
            && let Some(last) = rows.last().map(|stored: &Stored| stored.key)
        {
            return Ok(Page { rows, next: Some(last) });
        }
        rows.push(Stored { key, record: record.into() });
    }
    Ok(Page { rows, next: keys.next })
}

pub(super) fn known(connection: &Connection, ids: Vec<VerdictId>) -> Result<Vec<VerdictId>, Failure> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM verdicts WHERE verdict_id = ?1")?;
    let mut known = Vec::with_capacity(ids.len());
    for id in ids {
        if statement.exists([&id.as_bytes()[..]])? {
            known.push(id);
        }
    }
    Ok(known)
}

pub(super) fn seated(
    connection: &Connection,
    from: Seat,
    below: Seat,
    rows_max: usize,
) -> Result<Vec<(Seat, VerdictId)>, Failure> {
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT seat, verdict_id FROM verdicts WHERE seat >= ?1 AND seat < ?2 ORDER BY seat LIMIT ?3",
    )?;
    let rows = statement.query_map(params![from.number(), below.number(), limit], |row| {
        Ok((Seat::from_number(row.get(0)?), VerdictId::from_bytes(row.get(1)?)))
    })?;
    let rows = rows.collect::<Result<_, _>>()?;
    // An audit walks the whole table: its pages are of no use to anybody else, and would fill this reader's cache.
    connection.execute_batch("PRAGMA shrink_memory")?;
    Ok(rows)
}
