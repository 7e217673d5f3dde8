//! The vocabulary of Touchstone: media, frame, face, score, verdict, and how scores become a verdict.
//!
//! In come a [`MediaReference`] and the scores of its faces; out goes a [`Verdict`] with a deterministic
//! [`VerdictId`].
//!
//! It never does I/O, spawns nothing, knows no wire format and has no native dependency: everything here is
//! a value or a pure function, so every rule can be property-tested in milliseconds.
//!
//! Start reading at [`verdict`], then [`aggregate`]; the two seams behind which the engines stand are in
//! [`detect`].
//!
//! Before you change anything: verdict ids must not move for the same input (test vectors pin them), and an
//! outcome is closed: a new one is a new version of the contract.

pub mod access;
pub mod aggregate;
pub mod detect;
pub mod face;
pub mod frame;
pub mod media;
pub mod model;
pub mod policy;
pub mod score;
pub mod scripted;
pub mod verdict;

pub use access::BucketAllowList;
pub use aggregate::{FrameFinding, Judgement, Rules, ScoredFace, frame_score, judge};
pub use detect::{DetectorError, FaceDetector, ForgeryDetector};
pub use face::{BoundingBox, DetectedFace, FaceQuality, Point};
pub use frame::{CROP_SIDE, CropBatch, FaceCrop, Frame};
pub use media::{
    Bucket, FacesIn, InvalidReference, Lane, MediaId, MediaReference, ObjectKey, ObjectRef, Source, Tenant,
};
pub use model::{Calibration, CropMode, DeviceClass, ModelIdentity, Precision, Preprocessing};
pub use policy::{Aggregation, Policy, Thresholds};
pub use score::{ForgeryScore, Logit};
pub use verdict::{
    Cache, FaceVerdict, FailureClass, FrameVerdict, InconclusiveReason, InputPosition, NotApplicableReason,
    ObjectDigest, Outcome, Timings, Verdict, VerdictId, VerdictIdInputs,
};
