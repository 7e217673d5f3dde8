//! What the first pass suspects: a second pass finds the outcomes concerned, and then each is judged.
//!
//! Outcomes that were written together with their offset can neither be doubled nor run ahead of it: what is found is
//! a broken promise. Those of workers that deliver at least once may, for their offset follows them: they say so in a
//! header ([`may_repeat`]), each for itself, so that a fleet may change over while its topics hold both: an input may
//! have any number of such outcomes and one that is none of them, before or behind. What such outcomes still promise
//! is that they agree: same verdict id, same judgement. On a device whose scores depend on the
//! batch a second run may differ in the last bits: that is no agreement, for two readers may have seen two verdicts.

use std::collections::BTreeMap;

use forensics::VerdictId;
use proto::topics::{Origin, may_repeat, origin};
use stream::{Position, Record, TopicPartition};

use super::outcomes::{position, reader, verdict_id};
use super::sink::Sink;
use super::snapshot::{InputPart, OutcomeKind, OutcomePart, Snapshot};
use super::{Audit, AuditError, Kind, Violation};
use crate::store::{Judgement, judgement};

/// So many are looked into; more are counted as violations that are not listed. Chosen: some 25 MB of memory, and what
/// a hundred crashes of workers that deliver at least once leave behind.
const SUSPECTS_MAX: usize = 50_000;

/// So many places of one suspect are told.
const PLACES_MAX: usize = 3;

#[derive(Default)]
pub(super) struct Suspects {
    by_input: BTreeMap<Position, Suspect>,
    unlisted: u64,
}

struct Suspect {
    kind: Kind,
    outcomes: u64,
    /// Where the first of them lie.
    places: Vec<Position>,
    first: Option<Said>,
    /// So many of them were delivered exactly once.
    exact: u64,
    /// All of them say what the first one says.
    agree: bool,
}

/// What an outcome says, as far as it must not differ.
#[derive(PartialEq)]
enum Said {
    Verdict(VerdictId, Judgement),
    /// That nobody can parse the input.
    DeadLetter,
}

impl Suspects {
    pub(super) fn note(&mut self, input: Position, kind: Kind) {
        if self.by_input.contains_key(&input) || self.by_input.len() < SUSPECTS_MAX {
            self.by_input.entry(input).or_insert(Suspect::new(kind));
        } else {
            self.unlisted += 1;
        }
    }

    /// Finds the outcomes of what is suspected, and says what is a violation.
    pub(super) async fn judge(
        mut self,
        audit: &Audit,
        snapshot: &Snapshot,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        if !self.by_input.is_empty() {
            for part in &snapshot.outcomes {
                self.collect(audit, part).await?;
            }
        }
        let mut ends = BTreeMap::new();
        for (input, suspect) in self.by_input {
            let kind = match suspect.kind {
                Kind::OutcomeWithoutInput if suspect.exact == 0 => {
                    let waits = waits_for_commit(audit, snapshot, &input, &mut ends).await?;
                    if waits && suspect.agree {
                        sink.report.outcomes_uncommitted += suspect.outcomes;
                        continue;
                    }
                    if waits { Kind::DoubleOutcome } else { suspect.kind }
                }
                Kind::DoubleOutcome if suspect.may_be_double() => {
                    sink.report.outcomes_repeated += suspect.outcomes.saturating_sub(1);
                    continue;
                }
                kind => kind,
            };
            sink.violation(suspect.violation(kind, input, audit, snapshot)).await?;
        }
        sink.unlisted(self.unlisted);
        Ok(())
    }

    async fn collect(&mut self, audit: &Audit, part: &OutcomePart) -> Result<(), AuditError> {
        let mut reader = reader(audit, part, part.low).await?;
        while let Some(batch) = reader.next().await? {
            for record in batch.records.iter().filter(|record| record.position.offset < part.read_to) {
                if let Origin::Input(input) = origin(&record.headers)
                    && let Some(suspect) = self.by_input.get_mut(&position(input))
                {
                    suspect.add(part.kind, record);
                }
            }
            if batch.next_offset >= part.read_to {
                break;
            }
        }
        Ok(())
    }
}

impl Suspect {
    fn new(kind: Kind) -> Self {
        Self { kind, outcomes: 0, places: vec![], first: None, exact: 0, agree: true }
    }

    fn add(&mut self, kind: OutcomeKind, record: &Record) {
        let said = Said::read(kind, record);
        if self.outcomes == 0 {
            self.first = said;
        } else {
            self.agree &= said == self.first;
        }
        // What cannot be read agrees with nothing.
        self.agree &= self.first.is_some();
        self.exact += u64::from(!may_repeat(&record.headers));
        self.outcomes += 1;
        if self.places.len() < PLACES_MAX {
            self.places.push(record.position.clone());
        }
    }

    /// Of those that were delivered exactly once there is one at most, and it is not alone: a second one may have gone
    /// by retention meanwhile.
    fn may_be_double(&self) -> bool {
        self.agree && (self.exact == 0 || self.exact == 1 && self.outcomes > 1)
    }

    fn violation(self, kind: Kind, input: Position, audit: &Audit, snapshot: &Snapshot) -> Violation {
        let all: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        let all = all.join(" and ");
        let outcome = self.places.last().cloned();
        let (detail, verdict_id) = match (kind, self.first) {
            (Kind::DoubleOutcome, Some(Said::Verdict(id, _))) if self.agree => (
                format!("outcomes at {all}, of one verdict id, and not all but one delivered at-least-once"),
                Some(id),
            ),
            (Kind::DoubleOutcome, _) if self.agree => {
                (format!("dead letters at {all}, not all but one delivered at-least-once"), None)
            }
            (Kind::DoubleOutcome, _) => (format!("outcomes at {all}, which do not say the same"), None),
            _ => (format!("its outcome is at {all}; {}", why_not(audit, snapshot, &input)), None),
        };
        Violation { kind, input: Some(input), outcome, verdict_id, detail }
    }
}

impl Said {
    fn read(kind: OutcomeKind, record: &Record) -> Option<Self> {
        match kind {
            OutcomeKind::DeadLetter => Some(Self::DeadLetter),
            OutcomeKind::Verdict => {
                Some(Self::Verdict(verdict_id(record)?, judgement(record.value.as_deref()?)?))
            }
        }
    }
}

/// Whether this input is there, and only its offset is not committed. `ends`: those that were asked for already.
async fn waits_for_commit(
    audit: &Audit,
    snapshot: &Snapshot,
    input: &Position,
    ends: &mut BTreeMap<TopicPartition, i64>,
) -> Result<bool, AuditError> {
    let partition = input.topic_partition();
    let Some(part) = snapshot.inputs.iter().find(|part| part.partition == partition) else {
        return Ok(false);
    };
    let end = match ends.get(&partition) {
        Some(end) => *end,
        None => {
            let end = audit.log.watermarks(&partition).await?.high;
            ends.insert(partition, end);
            end
        }
    };
    Ok((part.end()..end).contains(&input.offset))
}

/// Why this is no input that may have an outcome.
fn why_not(audit: &Audit, snapshot: &Snapshot, input: &Position) -> String {
    let group = &audit.worker_group;
    match snapshot.inputs.iter().find(|part| part.partition == input.topic_partition()) {
        None => "no media topic has this partition".to_owned(),
        Some(InputPart { committed_later: None, .. }) => {
            format!("group {group} has committed nothing there, or the log has forgotten it")
        }
        Some(part) if input.offset >= part.end() => {
            format!("group {group} has committed up to {}, as far as there are records", part.end())
        }
        Some(_) => "no record is there".to_owned(),
    }
}
