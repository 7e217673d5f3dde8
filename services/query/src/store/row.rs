//! A verdict record as a row.

use std::collections::BTreeMap;

use bytes::Bytes;
use forensics::{MediaId, Tenant, VerdictId};
use prost::Message;
use proto::convert::system_time;
use proto::v1;

/// A verdict record that cannot become a row: it is counted and skipped, and never stops the projector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable verdict record: {why}")]
pub struct InvalidRecord {
    why: String,
}

fn invalid(why: impl ToString) -> InvalidRecord {
    InvalidRecord { why: why.to_string() }
}

/// Where a verdict's record lies in its topic, as one number: partition, then offset. The row's own key: rows
/// arrive almost in this order, the auditor walks the topic and the rows side by side, and it is the same in every
/// replica and after every rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(i64);

/// 2^40 offsets a partition, 2^23 partitions: 350 years of a hundred verdicts a second.
const OFFSET_BITS: u32 = 40;

impl Seat {
    /// The seat of a record.
    pub fn new(partition: i32, offset: i64) -> Self {
        Self((i64::from(partition) << OFFSET_BITS) | offset)
    }

    pub(crate) fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// As stored.
    pub fn number(self) -> i64 {
        self.0
    }

    /// The partition.
    pub fn partition(self) -> i32 {
        i32::try_from(self.0 >> OFFSET_BITS).unwrap_or(i32::MAX)
    }

    /// The offset.
    pub fn offset(self) -> i64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

/// A row: what List can filter by, and the record itself.
///
/// It is read leniently from the wire: a newer worker's outcome or reason is stored and passed on, not refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where the record lies.
    pub seat: Seat,
    /// The verdict's id.
    pub verdict_id: VerdictId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The media.
    pub media_id: String,
    /// The redrive generation.
    pub generation: u32,
    /// `v1::Outcome`, as on the wire.
    pub outcome: i32,
    /// Name of the outcome's reason or class; empty without one. For people who look into the store.
    pub reason: String,
    /// P(forged).
    pub probability: Option<f32>,
    /// The model's name.
    pub model_name: String,
    /// The model's hex SHA-256.
    pub model_sha256: String,
    /// Unix time in microseconds.
    pub created_at_us: i64,
    /// The media's labels.
    pub labels: BTreeMap<String, String>,
    /// The record's value, unchanged: what this build does not know yet is kept for the next one.
    pub record: Bytes,
}

impl Row {
    /// Reads the value of a record of the verdict topic.
    ///
    /// # Errors
    /// When it is no verdict, or lacks what names one.
    pub fn decode(seat: Seat, value: Option<&Bytes>) -> Result<(Self, v1::Verdict), InvalidRecord> {
        let value = value.ok_or_else(|| invalid("it has no value"))?;
        let verdict = v1::Verdict::decode(value.clone()).map_err(invalid)?;
        let row = Self::new(seat, &verdict, value.clone())?;
        Ok((row, verdict))
    }

    fn new(seat: Seat, verdict: &v1::Verdict, record: Bytes) -> Result<Self, InvalidRecord> {
        let verdict_id = VerdictId::parse(&verdict.verdict_id)
            .ok_or_else(|| invalid("verdict_id is not 64 hexadecimal digits"))?;
        let tenant = Tenant::parse(&verdict.tenant).map_err(invalid)?;
        let media_id = MediaId::parse(&verdict.media_id).map_err(invalid)?.to_string();
        if verdict.outcome == 0 {
            return Err(invalid("outcome is missing"));
        }
        let created_at = verdict.created_at.as_ref().ok_or_else(|| invalid("created_at is missing"))?;
        system_time(created_at).ok_or_else(|| invalid("created_at is not a time that exists"))?;
        let created_at_us = micros(created_at);
        let model = verdict.model.clone().unwrap_or_default();
        Ok(Self {
            seat,
            verdict_id,
            tenant,
            media_id,
            generation: verdict.generation,
            outcome: verdict.outcome,
            reason: reason(verdict).to_owned(),
            probability: verdict.probability.filter(|p| (0.0..=1.0).contains(p)),
            model_name: model.name,
            model_sha256: model.sha256.to_ascii_lowercase(),
            created_at_us,
            labels: verdict.labels.clone().into_iter().collect(),
            record,
        })
    }
}

/// Unix time in microseconds; saturates far outside of what a verdict can carry.
pub(crate) fn micros(at: &prost_types::Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos / 1_000))
}

fn reason(verdict: &v1::Verdict) -> &'static str {
    match verdict.outcome() {
        v1::Outcome::Inconclusive => verdict.inconclusive_reason().as_str_name(),
        v1::Outcome::NotApplicable => verdict.not_applicable_reason().as_str_name(),
        v1::Outcome::Failed => verdict.failure_class().as_str_name(),
        _ => "",
    }
}

/// What a verdict record says of its media, to be compared. Timings and the like differ between two runs; this must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judgement {
    outcome: i32,
    reasons: [i32; 3],
    /// Probability and logit, bit for bit.
    scores: [Option<u32>; 2],
}

/// The judgement in a record; `None` where it is no verdict.
pub(crate) fn judgement(record: &[u8]) -> Option<Judgement> {
    let v = v1::Verdict::decode(record).ok()?;
    Some(Judgement {
        outcome: v.outcome,
        reasons: [v.inconclusive_reason, v.not_applicable_reason, v.failure_class],
        scores: [v.probability, v.logit].map(|score| score.map(f32::to_bits)),
    })
}

/// Whether two records of one verdict id say the same.
pub(crate) fn same_judgement(one: &[u8], other: &[u8]) -> bool {
    judgement(one) == judgement(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{record_of, verdict};

    #[test]
    fn a_seat_names_partition_and_offset() {
        let seat = Seat::new(7, 1 << 39);
        assert_eq!((seat.partition(), seat.offset()), (7, 1 << 39));
        assert!(Seat::new(1, 0) > Seat::new(0, (1 << 40) - 1));
    }

    #[test]
    fn a_newer_workers_values_are_kept_and_broken_records_are_refused() {
        let seat = Seat::new(0, 0);
        let newer = v1::Verdict { outcome: 77, probability: Some(f32::NAN), ..verdict("default", "m", 1) };
        let (row, _) = Row::decode(seat, Some(&record_of(&newer))).expect("kept");
        assert_eq!((row.outcome, row.probability), (77, None));
        for broken in [
            v1::Verdict { verdict_id: "7".to_owned(), ..verdict("default", "m", 1) },
            v1::Verdict { tenant: "A|B".to_owned(), ..verdict("default", "m", 1) },
            v1::Verdict { created_at: None, ..verdict("default", "m", 1) },
        ] {
            assert!(Row::decode(seat, Some(&record_of(&broken))).is_err());
        }
        assert!(Row::decode(seat, None).is_err());
        assert!(Row::decode(seat, Some(&Bytes::from_static(b"\xff\xff"))).is_err());
    }

    #[test]
    fn timings_are_no_divergence_and_scores_are() {
        let first = verdict("default", "m", 1);
        let later = v1::Verdict { attempt: 2, created_at: None, ..first.clone() };
        let other = v1::Verdict { probability: Some(0.123), ..first.clone() };
        assert!(same_judgement(&record_of(&first), &record_of(&later)));
        assert!(!same_judgement(&record_of(&first), &record_of(&other)));
    }
}
