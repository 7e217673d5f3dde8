//! The clerk puts ends into writing: verdicts with their deterministic id, and the records that carry them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forensics::{
    Calibration, CropMode, FaceVerdict, FacesIn, FailureClass, FrameVerdict, Judgement, Lane, ModelIdentity,
    ObjectDigest, Outcome, Policy, Preprocessing, Rules, Thresholds, Timings, Verdict, VerdictIdInputs,
};
use prost::Message;
use proto::topics::{self, Topics, headers};
use proto::{convert, v1};
use stream::{Delivery, NewRecord};

use crate::budget::Permit;
use crate::job::{Input, Subject};

/// What a verdict says about the model; known once the engines are loaded.
#[derive(Debug, Clone)]
pub(crate) struct ModelFacts {
    pub(crate) identity: ModelIdentity,
    pub(crate) calibration: Calibration,
    pub(crate) thresholds: Option<Thresholds>,
    pub(crate) crop: CropMode,
    /// The face detector that really runs.
    pub(crate) face_detector: String,
}

/// How an examination ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) judgement: Judgement,
    pub(crate) detail: Option<String>,
    pub(crate) faces: Vec<FaceVerdict>,
    pub(crate) faces_left_out: u32,
    pub(crate) timeline: Vec<FrameVerdict>,
    pub(crate) frames_unreadable: u32,
    pub(crate) contents: Vec<ObjectDigest>,
    pub(crate) timings: Timings,
    pub(crate) device_time: Duration,
    /// A person should look, whatever the class says.
    pub(crate) suspicious: bool,
}

impl End {
    /// An end without any score.
    pub(crate) fn without_scores(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            judgement: Judgement { outcome, probability: None, interval: None, logit: None },
            detail: Some(detail.into()),
            faces: Vec::new(),
            faces_left_out: 0,
            timeline: Vec::new(),
            frames_unreadable: 0,
            contents: Vec::new(),
            timings: Timings::default(),
            device_time: Duration::ZERO,
            suspicious: false,
        }
    }

    /// FAILED.
    pub(crate) fn failed(class: FailureClass, detail: impl Into<String>) -> Self {
        Self::without_scores(Outcome::Failed(class), detail)
    }
}

/// An input's outcome: what is written in the transaction that commits it.
pub(crate) struct Written {
    /// The outcome record, and an attachment beside it where a person should look.
    pub(crate) records: Vec<NewRecord>,
    /// Their bytes.
    pub(crate) bytes: usize,
    /// For the metrics, once committed.
    pub(crate) tally: Tally,
    /// Its room, given back when it is committed or given up.
    pub(crate) permit: Option<Permit>,
}

/// What a committed outcome adds to the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// The verdict's outcome; none for a dead letter.
    pub(crate) outcome: Option<Outcome>,
    /// The class of the record on the dead-letter topic, if there is one.
    pub(crate) dead_letter: Option<&'static str>,
    pub(crate) lane: Lane,
    pub(crate) written_at: SystemTime,
}

/// Writes verdicts and records.
pub(crate) struct Clerk {
    facts: ModelFacts,
    policy: Policy,
    policy_digest: [u8; 32],
    /// Of whole scenes and of crops: one media may be submitted as both, and gets two verdicts.
    preprocessing: [(String, [u8; 32]); 2],
    verdicts: Arc<str>,
    dead_letters: Arc<str>,
    desk: Desk,
}

/// How this worker's records are written.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) slot: Arc<str>,
    /// What the log promises of them.
    pub(crate) delivery: Delivery,
    pub(crate) record_bytes_max: usize,
}

/// Of a `traceparent`: version 00 has 55 bytes, later ones may add to it (W3C Trace Context, section 3.2).
const TRACE_BYTES_MAX: usize = 256;

/// Room for everything of a dead letter but the original bytes and its key: headers, positions, texts.
const DEAD_LETTER_FRAME_BYTES: usize = 4 * 1024;

impl Clerk {
    /// A clerk for this model and policy.
    pub(crate) fn new(facts: ModelFacts, policy: Policy, topics: &Topics, desk: Desk) -> Self {
        let detect = Preprocessing { crop: facts.crop, face_detector: facts.face_detector.clone() };
        let cropped = Preprocessing { crop: CropMode::None, face_detector: "none".to_owned() };
        Self {
            policy_digest: policy.digest(facts.thresholds),
            preprocessing: [detect, cropped].map(|way| (way.name(), way.digest())),
            verdicts: topics.verdicts.as_str().into(),
            dead_letters: topics.dead_letters.as_str().into(),
            desk,
            facts,
            policy,
        }
    }

    /// What turns scores into outcomes.
    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules { policy: &self.policy, calibration: self.facts.calibration, thresholds: self.facts.thresholds }
    }

    /// The operator's policy.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How faces are cut.
    pub(crate) fn crop(&self) -> CropMode {
        self.facts.crop
    }

    /// The verdict of an end.
    pub(crate) fn verdict(&self, subject: &Subject, input: &Input, end: End) -> Verdict {
        let (preprocessing, digest) = match subject.faces {
            FacesIn::Detect => &self.preprocessing[0],
            FacesIn::Cropped => &self.preprocessing[1],
        };
        let contents: Vec<_> = end.contents.iter().map(|object| object.sha256).collect();
        let id = VerdictIdInputs {
            tenant: &subject.tenant,
            media_id: &subject.media_id,
            contents: &contents,
            model: &self.facts.identity.sha256,
            preprocessing: digest,
            policy: &self.policy_digest,
            generation: subject.generation,
        }
        .id();
        Verdict {
            id,
            tenant: subject.tenant.clone(),
            media_id: subject.media_id.clone(),
            generation: subject.generation,
            outcome: end.judgement.outcome,
            detail: end.detail,
            probability: end.judgement.probability,
            interval: end.judgement.interval,
            logit: end.judgement.logit,
            faces: end.faces,
            faces_left_out: end.faces_left_out,
            timeline: end.timeline,
            frames_unreadable: end.frames_unreadable,
            model: self.facts.identity.clone(),
            preprocessing: preprocessing.clone(),
            policy: self.policy.version.clone(),
            contents: end.contents,
            evidence: Vec::new(),
            timings: end.timings,
            device_time: end.device_time,
            cache: forensics::Cache::None,
            replay_of: None,
            attempt: input.attempt,
            due_at: subject.due_at,
            labels: subject.labels.clone(),
            created_at: SystemTime::now(),
            input: input.position(),
        }
    }

    /// The records of a verdict. One that fails in a way worth a look brings a copy of its reference for the
    /// dead-letter topic, without origin headers: it is no outcome.
    pub(crate) fn write(&self, input: &Input, verdict: &Verdict, suspicious: bool) -> Written {
        let mut wire = v1::Verdict::from(verdict);
        let envelope = self.outcome_headers(input);
        let key = topics::key(verdict.tenant.as_str(), verdict.media_id.as_str());
        let around: usize = envelope.iter().map(|(name, value)| name.len() + value.len()).sum();
        fit(&mut wire, self.desk.record_bytes_max.saturating_sub(around + key.len()));
        let mut records = vec![NewRecord {
            topic: Arc::clone(&self.verdicts),
            partition: None,
            key: Some(key),
            value: Some(Bytes::from(wire.encode_to_vec())),
            headers: envelope,
        }];
        let class = match verdict.outcome {
            Outcome::Failed(class) if class.worth_a_look() || suspicious => Some(class),
            _ => None,
        };
        if class.is_some() {
            let letter = self.letter(input, v1::dead_letter::Kind::Copy, wire.detail, wire.verdict_id);
            let kind = (headers::CONTENT_TYPE.to_owned(), Bytes::from_static(topics::PROTOBUF.as_bytes()));
            records.push(self.letter_record(input, &letter, vec![kind]));
        }
        written(records, Some(verdict.outcome), class.map(FailureClass::as_str), input)
    }

    /// The record of an input that nobody can parse.
    pub(crate) fn dead_letter(&self, input: &Input, why: String) -> Written {
        let letter = self.letter(input, v1::dead_letter::Kind::Unparsable, why, String::new());
        let record = self.letter_record(input, &letter, self.outcome_headers(input));
        written(vec![record], None, Some("UNPARSABLE"), input)
    }

    fn outcome_headers(&self, input: &Input) -> Vec<stream::Header> {
        let mut envelope =
            topics::outcome_headers(&input.position(), &self.desk.slot, env!("CARGO_PKG_VERSION"));
        if self.desk.delivery == Delivery::AtLeastOnce {
            let said = Bytes::from_static(topics::AT_LEAST_ONCE.as_bytes());
            envelope.push((headers::DELIVERY.to_owned(), said));
        }
        // W3C trace context: a trace goes on through the verdict. Longer ones are none, and would not fit in a record.
        let trace = input.record.header("traceparent");
        if let Some(trace) = trace.filter(|trace| trace.len() <= TRACE_BYTES_MAX) {
            envelope.push(("traceparent".to_owned(), trace.clone()));
        }
        envelope
    }

    fn letter(
        &self,
        input: &Input,
        kind: v1::dead_letter::Kind,
        mut detail: String,
        verdict_id: String,
    ) -> v1::DeadLetter {
        let room = self.desk.record_bytes_max.saturating_sub(DEAD_LETTER_FRAME_BYTES);
        let part = |bytes: &Option<Bytes>, room: usize| {
            bytes.as_ref().map_or_else(Vec::new, |bytes| bytes[..bytes.len().min(room)].to_vec())
        };
        truncate(&mut detail, DEAD_LETTER_FRAME_BYTES / 4);
        // The key goes out twice: in the letter, and as the record's own.
        let key = part(&input.record.key, room / 4);
        let original = part(&input.record.value, room - 2 * key.len());
        if original.len() + key.len() < input.bytes() {
            let (kept, bytes) = (original.len() + key.len(), input.bytes());
            detail.push_str(&format!("; {kept} of {bytes} bytes of the record are kept"));
        }
        v1::DeadLetter {
            original,
            position: Some((&input.position()).into()),
            timestamp: Some(convert::timestamp(input.written_at())),
            kind: kind.into(),
            detail,
            attempts: input.attempt,
            worker: self.desk.slot.to_string(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            verdict_id,
            key,
        }
    }

    fn letter_record(
        &self,
        input: &Input,
        letter: &v1::DeadLetter,
        envelope: Vec<stream::Header>,
    ) -> NewRecord {
        NewRecord {
            topic: Arc::clone(&self.dead_letters),
            partition: None,
            key: input.record.key.as_ref().map(|key| key.slice(..letter.key.len())),
            value: Some(Bytes::from(letter.encode_to_vec())),
            headers: envelope,
        }
    }
}

fn written(
    records: Vec<NewRecord>,
    outcome: Option<Outcome>,
    dead_letter: Option<&'static str>,
    input: &Input,
) -> Written {
    let tally = Tally { outcome, dead_letter, lane: input.lane, written_at: input.written_at() };
    let bytes = records.iter().map(NewRecord::size_bytes).sum();
    Written { records, bytes, tally, permit: None }
}

/// Cuts a verdict to `max` encoded bytes: first the lowest-scoring faces go, then the timeline, then the
/// contents; the detail says so. The outcome, its numbers and the id always stay.
fn fit(verdict: &mut v1::Verdict, max: usize) {
    let mut left_out: Vec<String> = Vec::new();
    truncate(&mut verdict.detail, 8 * 1024);
    while verdict.encoded_len() + 256 > max {
        if verdict.faces.len() > 16 {
            let keep = verdict.faces.len() / 2;
            verdict.faces.sort_by(|a, b| b.score.total_cmp(&a.score));
            verdict.faces.truncate(keep);
            verdict.faces.sort_by_key(|face| face.frame);
            left_out.retain(|what| !what.ends_with("faces"));
            left_out.push(format!("all but the {keep} highest faces"));
        } else if !verdict.timeline.is_empty() {
            verdict.timeline.clear();
            left_out.push("the timeline".to_owned());
        } else if !verdict.contents.is_empty() {
            verdict.contents.clear();
            left_out.push("the contents".to_owned());
        } else {
            break;
        }
    }
    if !left_out.is_empty() {
        let separator = if verdict.detail.is_empty() { "" } else { "; " };
        let note = format!("{separator}too long for a record, left out: {}", left_out.join(", "));
        verdict.detail.push_str(&note);
    }
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests;
