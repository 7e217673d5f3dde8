//! Verdicts.

use forensics::{
    BoundingBox, Cache, DetectedFace, DeviceClass, FaceQuality, FaceVerdict, FailureClass, ForgeryScore,
    FrameVerdict, InconclusiveReason, Logit, MediaId, ModelIdentity, NotApplicableReason, ObjectDigest,
    Outcome, Point, Precision, Tenant, Timings, Verdict, VerdictId,
};

use super::{duration, non_empty, std_duration, system_time, timestamp};
use crate::v1;

/// A verdict record that this build cannot read: its field, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("verdict field {field}: {why}")]
pub struct InvalidVerdict {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

fn invalid(field: &'static str, why: impl ToString) -> InvalidVerdict {
    InvalidVerdict { field, why: why.to_string() }
}

macro_rules! wire_enum {
    ($($kind:ident),+) => {$(
        impl From<$kind> for v1::$kind {
            fn from(value: $kind) -> Self {
                let name = format!("{}_{}", prefix(stringify!($kind)), value.as_str());
                Self::from_str_name(&name).expect("the contract has every value of the vocabulary")
            }
        }

        impl TryFrom<v1::$kind> for $kind {
            type Error = InvalidVerdict;

            fn try_from(wire: v1::$kind) -> Result<Self, InvalidVerdict> {
                let prefix = prefix(stringify!($kind));
                let name = wire.as_str_name().strip_prefix(&prefix).and_then(|n| n.strip_prefix('_'));
                name.and_then(Self::parse).ok_or_else(|| invalid(stringify!($kind), wire.as_str_name()))
            }
        }
    )+};
}

/// `FailureClass` → `FAILURE_CLASS`.
fn prefix(kind: &str) -> String {
    let mut name = String::new();
    for c in kind.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

wire_enum!(InconclusiveReason, NotApplicableReason, FailureClass);

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::LikelyForged => Self::LikelyForged,
            Outcome::LikelyAuthentic => Self::LikelyAuthentic,
            Outcome::Inconclusive(_) => Self::Inconclusive,
            Outcome::NotApplicable(_) => Self::NotApplicable,
            Outcome::Failed(_) => Self::Failed,
        }
    }
}

impl From<&Verdict> for v1::Verdict {
    fn from(verdict: &Verdict) -> Self {
        let mut wire = Self {
            verdict_id: verdict.id.to_string(),
            tenant: verdict.tenant.to_string(),
            media_id: verdict.media_id.to_string(),
            generation: verdict.generation,
            outcome: v1::Outcome::from(verdict.outcome).into(),
            detail: verdict.detail.clone().unwrap_or_default(),
            probability: verdict.probability.map(ForgeryScore::get),
            interval: verdict.interval.map(|(low, high)| v1::Interval { low: low.get(), high: high.get() }),
            logit: verdict.logit.map(Logit::get),
            faces: verdict.faces.iter().map(wire_face).collect(),
            faces_left_out: verdict.faces_left_out,
            timeline: verdict.timeline.iter().map(wire_frame).collect(),
            frames_unreadable: verdict.frames_unreadable,
            model: Some((&verdict.model).into()),
            preprocessing: verdict.preprocessing.clone(),
            policy: verdict.policy.clone(),
            contents: verdict.contents.iter().map(wire_object).collect(),
            evidence: verdict.evidence.clone(),
            timings: Some(wire_timings(&verdict.timings)),
            device_time: Some(duration(verdict.device_time)),
            cache: match verdict.cache {
                Cache::None => v1::Cache::None,
                Cache::Exact => v1::Cache::Exact,
                Cache::Perceptual => v1::Cache::Perceptual,
            }
            .into(),
            replay_of: verdict.replay_of.map(|id| id.to_string()).unwrap_or_default(),
            attempt: verdict.attempt,
            due_at: verdict.due_at.map(timestamp),
            due_met: verdict.due_met(),
            labels: verdict.labels.clone().into_iter().collect(),
            created_at: Some(timestamp(verdict.created_at)),
            input: Some((&verdict.input).into()),
            ..Self::default()
        };
        match verdict.outcome {
            Outcome::LikelyForged | Outcome::LikelyAuthentic => {}
            Outcome::Inconclusive(reason) => wire.set_inconclusive_reason(reason.into()),
            Outcome::NotApplicable(reason) => wire.set_not_applicable_reason(reason.into()),
            Outcome::Failed(class) => {
                wire.set_failure_class(class.into());
                wire.retryable = class.retryable();
            }
        }
        wire
    }
}

fn wire_face(face: &FaceVerdict) -> v1::FaceVerdict {
    let point = |p: &Point| v1::Point { x: p.x, y: p.y };
    v1::FaceVerdict {
        frame: face.frame,
        r#box: face.face.map(|f| v1::BoundingBox {
            left: f.bounds.left,
            top: f.bounds.top,
            right: f.bounds.right,
            bottom: f.bounds.bottom,
        }),
        landmarks: face.face.iter().flat_map(|f| f.landmarks.iter().map(point)).collect(),
        confidence: face.face.map_or(0.0, |f| f.confidence),
        size: face.quality.size,
        sharpness: face.quality.sharpness,
        score: face.score.get(),
        logit: face.logit.get(),
    }
}

fn wire_frame(frame: &FrameVerdict) -> v1::FrameVerdict {
    v1::FrameVerdict {
        key: frame.key.clone(),
        score: frame.score.map(ForgeryScore::get),
        failure_class: frame.failure.map_or(v1::FailureClass::Unspecified, Into::into).into(),
    }
}

fn wire_object(object: &ObjectDigest) -> v1::ObjectDigest {
    v1::ObjectDigest {
        key: object.key.clone(),
        version: object.version.clone().unwrap_or_default(),
        etag: object.etag.clone().unwrap_or_default(),
        sha256: object.sha256.map(hex::encode).unwrap_or_default(),
    }
}

fn wire_timings(timings: &Timings) -> v1::Timings {
    v1::Timings {
        queued: Some(duration(timings.queued)),
        fetch: Some(duration(timings.fetch)),
        decode: Some(duration(timings.decode)),
        faces: Some(duration(timings.faces)),
        wait: Some(duration(timings.wait)),
        inference: Some(duration(timings.inference)),
        total: Some(duration(timings.total)),
    }
}

impl From<&ModelIdentity> for v1::ModelIdentity {
    fn from(model: &ModelIdentity) -> Self {
        Self {
            name: model.name.clone(),
            version: model.version.clone(),
            sha256: hex::encode(model.sha256),
            precision: model.precision.as_str().to_owned(),
            device_class: model.device.as_str().to_owned(),
        }
    }
}

impl TryFrom<v1::Verdict> for Verdict {
    type Error = InvalidVerdict;

    fn try_from(wire: v1::Verdict) -> Result<Self, InvalidVerdict> {
        let outcome = outcome(&wire)?;
        let timings = wire.timings.unwrap_or_default();
        let probability = |field, p: f32| ForgeryScore::new(p).ok_or_else(|| invalid(field, p));
        let interval = match wire.interval {
            Some(i) => Some((probability("interval", i.low)?, probability("interval", i.high)?)),
            None => None,
        };
        let id = |field, text: &str| VerdictId::parse(text).ok_or_else(|| invalid(field, text));
        Ok(Self {
            id: id("verdict_id", &wire.verdict_id)?,
            tenant: Tenant::parse(&wire.tenant).map_err(|e| invalid("tenant", e))?,
            media_id: MediaId::parse(&wire.media_id).map_err(|e| invalid("media_id", e))?,
            generation: wire.generation,
            outcome,
            detail: non_empty(wire.detail),
            probability: wire.probability.map(|p| probability("probability", p)).transpose()?,
            interval,
            logit: wire.logit.map(|l| logit("logit", l)).transpose()?,
            faces: wire.faces.into_iter().map(face).collect::<Result<_, _>>()?,
            faces_left_out: wire.faces_left_out,
            timeline: wire.timeline.into_iter().map(frame).collect::<Result<_, _>>()?,
            frames_unreadable: wire.frames_unreadable,
            model: model(wire.model.ok_or_else(|| invalid("model", "is missing"))?)?,
            preprocessing: wire.preprocessing,
            policy: wire.policy,
            contents: wire.contents.into_iter().map(object).collect::<Result<_, _>>()?,
            evidence: wire.evidence,
            timings: Timings {
                queued: std_duration(timings.queued),
                fetch: std_duration(timings.fetch),
                decode: std_duration(timings.decode),
                faces: std_duration(timings.faces),
                wait: std_duration(timings.wait),
                inference: std_duration(timings.inference),
                total: std_duration(timings.total),
            },
            device_time: std_duration(wire.device_time),
            cache: match v1::Cache::try_from(wire.cache) {
                Ok(v1::Cache::Exact) => Cache::Exact,
                Ok(v1::Cache::Perceptual) => Cache::Perceptual,
                _ => Cache::None,
            },
            replay_of: match wire.replay_of.as_str() {
                "" => None,
                text => Some(id("replay_of", text)?),
            },
            attempt: wire.attempt,
            due_at: wire.due_at.as_ref().and_then(system_time),
            labels: wire.labels.into_iter().collect(),
            created_at: wire
                .created_at
                .as_ref()
                .and_then(system_time)
                .ok_or_else(|| invalid("created_at", "is missing"))?,
            input: wire.input.ok_or_else(|| invalid("input", "is missing"))?.into(),
        })
    }
}

fn outcome(wire: &v1::Verdict) -> Result<Outcome, InvalidVerdict> {
    Ok(match wire.outcome() {
        v1::Outcome::LikelyForged => Outcome::LikelyForged,
        v1::Outcome::LikelyAuthentic => Outcome::LikelyAuthentic,
        v1::Outcome::Inconclusive => Outcome::Inconclusive(wire.inconclusive_reason().try_into()?),
        v1::Outcome::NotApplicable => Outcome::NotApplicable(wire.not_applicable_reason().try_into()?),
        v1::Outcome::Failed => Outcome::Failed(wire.failure_class().try_into()?),
        v1::Outcome::Unspecified => return Err(invalid("outcome", wire.outcome)),
    })
}

fn logit(field: &'static str, value: f32) -> Result<Logit, InvalidVerdict> {
    Logit::new(value).ok_or_else(|| invalid(field, value))
}

fn digest(field: &'static str, text: &str) -> Result<[u8; 32], InvalidVerdict> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|e| invalid(field, e))?;
    Ok(bytes)
}

fn face(wire: v1::FaceVerdict) -> Result<FaceVerdict, InvalidVerdict> {
    let face = match wire.r#box {
        None => None,
        Some(b) => {
            let points: Vec<Point> = wire.landmarks.iter().map(|p| Point { x: p.x, y: p.y }).collect();
            let count = points.len();
            let landmarks =
                points.try_into().map_err(|_| invalid("faces.landmarks", format!("has {count}, not 5")))?;
            let bounds = BoundingBox { left: b.left, top: b.top, right: b.right, bottom: b.bottom };
            Some(DetectedFace { bounds, landmarks, confidence: wire.confidence })
        }
    };
    Ok(FaceVerdict {
        frame: wire.frame,
        face,
        quality: FaceQuality { size: wire.size, sharpness: wire.sharpness },
        logit: logit("faces.logit", wire.logit)?,
        score: ForgeryScore::new(wire.score).ok_or_else(|| invalid("faces.score", wire.score))?,
    })
}

fn frame(wire: v1::FrameVerdict) -> Result<FrameVerdict, InvalidVerdict> {
    let score = match wire.score {
        Some(s) => Some(ForgeryScore::new(s).ok_or_else(|| invalid("timeline.score", s))?),
        None => None,
    };
    let failure = match wire.failure_class() {
        v1::FailureClass::Unspecified => None,
        class => Some(class.try_into()?),
    };
    Ok(FrameVerdict { key: wire.key, score, failure })
}

fn object(wire: v1::ObjectDigest) -> Result<ObjectDigest, InvalidVerdict> {
    Ok(ObjectDigest {
        key: wire.key,
        version: non_empty(wire.version),
        etag: non_empty(wire.etag),
        sha256: match wire.sha256.as_str() {
            "" => None,
            text => Some(digest("contents.sha256", text)?),
        },
    })
}

fn model(wire: v1::ModelIdentity) -> Result<ModelIdentity, InvalidVerdict> {
    let precision = [Precision::F32, Precision::Bf16, Precision::Scripted]
        .into_iter()
        .find(|p| p.as_str() == wire.precision)
        .ok_or_else(|| invalid("model.precision", &wire.precision))?;
    let device = [DeviceClass::Cpu, DeviceClass::Cuda]
        .into_iter()
        .find(|d| d.as_str() == wire.device_class)
        .ok_or_else(|| invalid("model.device_class", &wire.device_class))?;
    let sha256 = digest("model.sha256", &wire.sha256)?;
    Ok(ModelIdentity { name: wire.name, version: wire.version, sha256, precision, device })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forensics::InputPosition;
    use std::time::{Duration, UNIX_EPOCH};

    fn verdict(outcome: Outcome) -> Verdict {
        let score = ForgeryScore::new(0.75).expect("in range");
        let face = DetectedFace {
            bounds: BoundingBox { left: 1.0, top: 2.0, right: 30.0, bottom: 40.0 },
            landmarks: [Point { x: 3.0, y: 4.0 }; 5],
            confidence: 0.99,
        };
        let logit = Logit::new(1.5).expect("finite");
        let quality = FaceQuality { size: 29.0, sharpness: 120.0 };
        let created_at = UNIX_EPOCH + Duration::from_millis(1_795_485_600_123);
        Verdict {
            id: VerdictId::from_bytes([7; 32]),
            tenant: Tenant::default_tenant(),
            media_id: MediaId::parse("m").expect("valid"),
            generation: 2,
            outcome,
            detail: Some("why".to_owned()),
            probability: Some(score),
            interval: Some((
                ForgeryScore::new(0.5).expect("in range"),
                ForgeryScore::new(0.9).expect("in range"),
            )),
            logit: Some(logit),
            faces: vec![
                FaceVerdict { frame: 0, face: Some(face), quality, logit, score },
                FaceVerdict { frame: 1, face: None, quality, logit, score },
            ],
            faces_left_out: 3,
            timeline: vec![
                FrameVerdict { key: "a".to_owned(), score: Some(score), failure: None },
                FrameVerdict { key: "b".to_owned(), score: None, failure: Some(FailureClass::Decode) },
            ],
            frames_unreadable: 1,
            model: ModelIdentity {
                name: "n".to_owned(),
                version: "1".to_owned(),
                sha256: [9; 32],
                precision: Precision::Bf16,
                device: DeviceClass::Cuda,
            },
            preprocessing: "1/aligned/x".to_owned(),
            policy: "default-1".to_owned(),
            contents: vec![ObjectDigest {
                key: "a".to_owned(),
                version: None,
                etag: Some("e".to_owned()),
                sha256: Some([1; 32]),
            }],
            evidence: vec![],
            timings: Timings { fetch: Duration::from_micros(1_500), ..Timings::default() },
            device_time: Duration::from_millis(3),
            cache: Cache::Exact,
            replay_of: Some(VerdictId::from_bytes([8; 32])),
            attempt: 1,
            due_at: Some(created_at),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            created_at,
            input: InputPosition { topic: "t".to_owned(), partition: 1, offset: 5 },
        }
    }

    #[test]
    fn every_outcome_survives_the_wire() {
        let mut outcomes = vec![Outcome::LikelyForged, Outcome::LikelyAuthentic];
        outcomes.extend(InconclusiveReason::ALL.iter().map(|&r| Outcome::Inconclusive(r)));
        outcomes.extend(NotApplicableReason::ALL.iter().map(|&r| Outcome::NotApplicable(r)));
        outcomes.extend(FailureClass::ALL.iter().map(|&c| Outcome::Failed(c)));
        for outcome in outcomes {
            let verdict = verdict(outcome);
            let wire = v1::Verdict::from(&verdict);
            assert_eq!(wire.due_met, Some(true));
            assert_eq!(Verdict::try_from(wire), Ok(verdict));
        }
    }

    #[test]
    fn a_broken_record_is_an_error_that_names_the_field() {
        let wire = v1::Verdict::from(&verdict(Outcome::LikelyForged));
        let field = |wire: v1::Verdict| Verdict::try_from(wire).expect_err("invalid").field;
        assert_eq!(field(v1::Verdict { outcome: 0, ..wire.clone() }), "outcome");
        assert_eq!(field(v1::Verdict { probability: Some(f32::NAN), ..wire.clone() }), "probability");
        assert_eq!(field(v1::Verdict { verdict_id: "zz".to_owned(), ..wire }), "verdict_id");
    }
}
