//! The verdict: closed, deterministic in its id, and explicit about what it does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::face::{DetectedFace, FaceQuality};
use crate::media::{MediaId, Tenant};
use crate::model::ModelIdentity;
use crate::score::{ForgeryScore, Logit};

/// Why a verdict abstains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InconclusiveReason {
    /// The probability lies between the policy's thresholds.
    BetweenThresholds,
    /// The model has no calibration or no thresholds: its score ranks, but says nothing alone.
    ModelNotCalibrated,
    /// The inputs drifted from what the model was calibrated on.
    DriftGuard,
}

/// Why there is nothing to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotApplicableReason {
    /// No face in any readable frame.
    NoFace,
    /// Every face is smaller than the policy's minimum.
    FaceTooSmall,
    /// Every face is more blurred than the policy allows.
    FaceTooBlurred,
    /// Not a picture in a supported format.
    UnsupportedMedia,
}

/// Why a media could not be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// The reference breaks the grammar.
    InvalidReference,
    /// The bucket is not on the tenant's list.
    BucketNotAllowed,
    /// No such object, or nothing below the prefix.
    ObjectNotFound,
    /// The store refuses this object to us.
    AccessDenied,
    /// Zero bytes, or the file ends early.
    Truncated,
    /// Version or entity tag moved while it was read, or is not the pinned one.
    ChangedWhileReading,
    /// Header or file beyond the limits.
    TooLarge,
    /// A broken picture.
    Decode,
    /// The job's deadline passed.
    TimedOut,
    /// The network gave no finite score, twice.
    InferenceInvalid,
    /// Somebody cancelled it.
    Cancelled,
    /// A kill switch is on.
    Suspended,
}

impl FailureClass {
    /// Whether trying again later can give another result.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::TimedOut | Self::ChangedWhileReading | Self::InferenceInvalid | Self::Suspended)
    }

    /// Whether a person should look: a copy of the media goes to the dead-letter topic beside its verdict.
    pub const fn worth_a_look(self) -> bool {
        matches!(self, Self::TimedOut | Self::ChangedWhileReading | Self::InferenceInvalid)
    }
}

/// The end of a media: exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// P(forged) at or above the upper threshold.
    LikelyForged,
    /// P(forged) below the lower threshold.
    LikelyAuthentic,
    /// It does not know.
    Inconclusive(InconclusiveReason),
    /// Nothing to judge.
    NotApplicable(NotApplicableReason),
    /// Could not be judged.
    Failed(FailureClass),
}

macro_rules! names {
    ($kind:ty { $($variant:path => $name:literal),+ $(,)? }) => {
        impl $kind {
            /// Every value.
            pub const ALL: &'static [Self] = &[$($variant),+];

            /// The name in the contract, in metrics and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $($variant => $name),+ }
            }

            /// The value of that name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some($variant),)+ _ => None }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(InconclusiveReason {
    Self::BetweenThresholds => "BETWEEN_THRESHOLDS",
    Self::ModelNotCalibrated => "MODEL_NOT_CALIBRATED",
    Self::DriftGuard => "DRIFT_GUARD",
});
names!(NotApplicableReason {
    Self::NoFace => "NO_FACE",
    Self::FaceTooSmall => "FACE_TOO_SMALL",
    Self::FaceTooBlurred => "FACE_TOO_BLURRED",
    Self::UnsupportedMedia => "UNSUPPORTED_MEDIA",
});
names!(FailureClass {
    Self::InvalidReference => "INVALID_REFERENCE",
    Self::BucketNotAllowed => "BUCKET_NOT_ALLOWED",
    Self::ObjectNotFound => "OBJECT_NOT_FOUND",
    Self::AccessDenied => "ACCESS_DENIED",
    Self::Truncated => "TRUNCATED",
    Self::ChangedWhileReading => "CHANGED_WHILE_READING",
    Self::TooLarge => "TOO_LARGE",
    Self::Decode => "DECODE",
    Self::TimedOut => "TIMED_OUT",
    Self::InferenceInvalid => "INFERENCE_INVALID",
    Self::Cancelled => "CANCELLED",
    Self::Suspended => "SUSPENDED",
});

impl Outcome {
    /// The outcome's name without its reason, as metrics label it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LikelyForged => "LIKELY_FORGED",
            Self::LikelyAuthentic => "LIKELY_AUTHENTIC",
            Self::Inconclusive(_) => "INCONCLUSIVE",
            Self::NotApplicable(_) => "NOT_APPLICABLE",
            Self::Failed(_) => "FAILED",
        }
    }

    /// The reason's name, where the outcome has one.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::LikelyForged | Self::LikelyAuthentic => None,
            Self::Inconclusive(reason) => Some(reason.as_str()),
            Self::NotApplicable(reason) => Some(reason.as_str()),
            Self::Failed(class) => Some(class.as_str()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}({reason})", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// Names a verdict: equal for equal media, content, model, preprocessing, policy and generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerdictId([u8; 32]);

impl VerdictId {
    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for VerdictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for VerdictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerdictId({self})")
    }
}

/// What a verdict id is made of.
#[derive(Debug, Clone, Copy)]
pub struct VerdictIdInputs<'a> {
    /// Who asked.
    pub tenant: &'a Tenant,
    /// The media.
    pub media_id: &'a MediaId,
    /// The objects that were read, in order; `None` stands for one that was not.
    pub contents: &'a [Option<[u8; 32]>],
    /// Weights and calibration.
    pub model: &'a [u8; 32],
    /// [`crate::Preprocessing::digest`].
    pub preprocessing: &'a [u8; 32],
    /// [`crate::Policy::digest`].
    pub policy: &'a [u8; 32],
    /// The redrive generation.
    pub generation: u32,
}

impl VerdictIdInputs<'_> {
    /// SHA-256 of `touchstone.verdict.v1\0`, then each field preceded by its length as u32 big-endian.
    pub fn id(&self) -> VerdictId {
        let mut content = Sha256::new();
        for object in self.contents {
            content.update(object.unwrap_or([0; 32]));
        }
        let content: [u8; 32] = content.finalize().into();
        let generation = self.generation.to_be_bytes();
        let fields: [&[u8]; 7] = [
            self.tenant.as_str().as_bytes(),
            self.media_id.as_str().as_bytes(),
            &content,
            self.model,
            self.preprocessing,
            self.policy,
            &generation,
        ];
        let mut hash = Sha256::new();
        hash.update(b"touchstone.verdict.v1\0");
        for field in fields {
            hash.update(u32::try_from(field.len()).expect("fields are short").to_be_bytes());
            hash.update(field);
        }
        VerdictId(hash.finalize().into())
    }
}

/// One object that was read, or tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDigest {
    /// The object's key.
    pub key: String,
    /// The store's version, where it gives one.
    pub version: Option<String>,
    /// The store's entity tag.
    pub etag: Option<String>,
    /// SHA-256 of its bytes; `None` where it was not read to its end.
    pub sha256: Option<[u8; 32]>,
}

/// One face of a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceVerdict {
    /// The frame's index among the judged frames.
    pub frame: u32,
    /// Where it was found; `None` where the picture came as a crop.
    pub face: Option<DetectedFace>,
    /// How well it can be judged.
    pub quality: FaceQuality,
    /// The network's raw margin.
    pub logit: Logit,
    /// P(forged).
    pub score: ForgeryScore,
}

/// One frame of a verdict's timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameVerdict {
    /// The frame's object key.
    pub key: String,
    /// The highest score of its faces; `None` where it has none.
    pub score: Option<ForgeryScore>,
    /// Why it has none, where it could not be read.
    pub failure: Option<FailureClass>,
}

/// Where the time went. Queued is wall-clock (it crosses machines); the rest is monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From submission to the start of the job.
    pub queued: Duration,
    /// Reading objects.
    pub fetch: Duration,
    /// Decoding pictures.
    pub decode: Duration,
    /// Finding and cutting faces.
    pub faces: Duration,
    /// Waiting for a batch and the device.
    pub wait: Duration,
    /// On the device.
    pub inference: Duration,
    /// From the start of the job to its verdict.
    pub total: Duration,
}

/// Whether the scores were computed for this media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cache {
    /// Computed.
    #[default]
    None,
    /// The same bytes were judged before.
    Exact,
    /// A picture that looks the same was judged before.
    Perceptual,
}

/// Where the reference stood in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputPosition {
    /// The media topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for InputPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// One verdict about one media by one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Deterministic: see [`VerdictIdInputs`].
    pub id: VerdictId,
    /// Who asked.
    pub tenant: Tenant,
    /// The media.
    pub media_id: MediaId,
    /// The redrive generation.
    pub generation: u32,
    /// The end.
    pub outcome: Outcome,
    /// What failed, on which input, and what to do next; for people.
    pub detail: Option<String>,
    /// P(forged) of the media, calibrated where the model is.
    pub probability: Option<ForgeryScore>,
    /// Its 95 % interval; `None` where the model is not calibrated.
    pub interval: Option<(ForgeryScore, ForgeryScore)>,
    /// The media's score as a raw margin.
    pub logit: Option<Logit>,
    /// The scored faces.
    pub faces: Vec<FaceVerdict>,
    /// Faces left out because a frame had more than the policy's maximum.
    pub faces_left_out: u32,
    /// The judged frames, in order.
    pub timeline: Vec<FrameVerdict>,
    /// Frames that could not be read.
    pub frames_unreadable: u32,
    /// The model.
    pub model: ModelIdentity,
    /// [`crate::Preprocessing::name`].
    pub preprocessing: String,
    /// The policy's version.
    pub policy: String,
    /// The objects behind it.
    pub contents: Vec<ObjectDigest>,
    /// References to evidence kept elsewhere.
    pub evidence: Vec<String>,
    /// Where the time went.
    pub timings: Timings,
    /// The media's share of device time.
    pub device_time: Duration,
    /// Whether the scores were reused.
    pub cache: Cache,
    /// The verdict this one replays, if any.
    pub replay_of: Option<VerdictId>,
    /// 1 for the first try.
    pub attempt: u32,
    /// When an answer was wanted.
    pub due_at: Option<SystemTime>,
    /// The submitter's labels.
    pub labels: BTreeMap<String, String>,
    /// When the verdict was made.
    pub created_at: SystemTime,
    /// Where the reference stood in the log.
    pub input: InputPosition,
}

impl Verdict {
    /// Whether the answer came in time; `None` where no time was set.
    pub fn due_met(&self) -> Option<bool> {
        self.due_at.map(|due| self.created_at <= due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_name_parses_back() {
        for &class in FailureClass::ALL {
            assert_eq!(FailureClass::parse(class.as_str()), Some(class));
        }
        assert_eq!(FailureClass::ALL.len(), 12);
        assert_eq!(Outcome::Failed(FailureClass::Decode).to_string(), "FAILED(DECODE)");
    }

    #[test]
    fn the_published_test_vector_holds() {
        // Made independently with a dozen lines of Python (hashlib, struct) from the rule on VerdictIdInputs::id.
        let inputs = VerdictIdInputs {
            tenant: &Tenant::parse("default").expect("valid"),
            media_id: &MediaId::parse("clip-1").expect("valid"),
            contents: &[Some([1; 32]), None],
            model: &[2; 32],
            preprocessing: &[3; 32],
            policy: &[4; 32],
            generation: 5,
        };
        assert_eq!(
            inputs.id().to_string(),
            "622103457c764169df51e4b7cfbf41fc34aade8c9156651b27b2fc8aceeb01ae"
        );
    }

    proptest! {
        #[test]
        fn fields_cannot_run_into_each_other(one in 1usize..6, other in 1usize..6, generation in 0u32..3) {
            let text = "abcdefg";
            let id = |at: usize| {
                VerdictIdInputs {
                    tenant: &Tenant::parse(&text[..at]).expect("valid"),
                    media_id: &MediaId::parse(&text[at..]).expect("valid"),
                    contents: &[],
                    model: &[0; 32],
                    preprocessing: &[0; 32],
                    policy: &[0; 32],
                    generation,
                }
                .id()
            };
            prop_assert_eq!(id(one) == id(other), one == other);
            prop_assert_eq!(VerdictId::parse(&id(one).to_string()), Some(id(one)));
        }
    }
}
