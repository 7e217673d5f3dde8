//! Scores to outcome: faces → frame → media. Pure, and total: every input has exactly one outcome.

use crate::model::Calibration;
use crate::policy::{Policy, Thresholds};
use crate::score::{ForgeryScore, Logit};
use crate::verdict::{FailureClass, InconclusiveReason, NotApplicableReason, Outcome};

/// A face with the network's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredFace {
    /// The raw margin.
    pub logit: Logit,
}

/// What is known about one frame.
#[derive(Debug, Clone, PartialEq)]
pub enum FrameFinding {
    /// It could not be read or scored.
    Unreadable(FailureClass),
    /// It was read, and holds nothing to judge.
    NothingToJudge(NotApplicableReason),
    /// Its faces were scored; never empty.
    Scored(Vec<ScoredFace>),
}

/// The media's end, and the numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The end.
    pub outcome: Outcome,
    /// P(forged) of the media.
    pub probability: Option<ForgeryScore>,
    /// Its 95 % interval.
    pub interval: Option<(ForgeryScore, ForgeryScore)>,
    /// The media's score as a raw margin.
    pub logit: Option<Logit>,
}

/// What turns scores into outcomes.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The operator's policy.
    pub policy: &'a Policy,
    /// The model's calibration.
    pub calibration: Calibration,
    /// The bundle's thresholds; the policy's win.
    pub thresholds: Option<Thresholds>,
}

/// The frame's score: that of its highest face.
pub fn frame_score(faces: &[ScoredFace], calibration: &Calibration) -> Option<ForgeryScore> {
    let scores = faces.iter().map(|face| calibration.probability(face.logit));
    scores.max_by(|a, b| a.get().total_cmp(&b.get()))
}

/// Judges a media by what is known of its frames.
///
/// Frames with scores decide; unreadable ones beside them are only counted. Without any score: one frame that
/// was read and holds nothing makes the media NOT_APPLICABLE; all unreadable, FAILED. No frame at all is an
/// empty prefix: FAILED(OBJECT_NOT_FOUND).
pub fn judge(frames: &[FrameFinding], rules: Rules<'_>) -> Judgement {
    let scores: Vec<f32> = frames
        .iter()
        .filter_map(|frame| match frame {
            FrameFinding::Scored(faces) => frame_score(faces, &rules.calibration).map(ForgeryScore::get),
            _ => None,
        })
        .collect();
    let media = rules.policy.aggregation.apply(&scores).and_then(ForgeryScore::new);
    let Some(probability) = media else {
        return Judgement { outcome: without_scores(frames), probability: None, interval: None, logit: None };
    };
    let logit = rules.calibration.logit(probability);
    Judgement {
        outcome: by_thresholds(probability, &rules),
        probability: Some(probability),
        interval: rules.calibration.interval(logit),
        logit: Some(logit),
    }
}

fn by_thresholds(probability: ForgeryScore, rules: &Rules<'_>) -> Outcome {
    let thresholds = rules.policy.thresholds_in_force(rules.thresholds);
    let (Some(thresholds), Calibration::Platt { .. }) = (thresholds, rules.calibration) else {
        return Outcome::Inconclusive(InconclusiveReason::ModelNotCalibrated);
    };
    if probability.get() >= thresholds.forged {
        Outcome::LikelyForged
    } else if probability.get() < thresholds.authentic {
        Outcome::LikelyAuthentic
    } else {
        Outcome::Inconclusive(InconclusiveReason::BetweenThresholds)
    }
}

fn without_scores(frames: &[FrameFinding]) -> Outcome {
    // A face that could not be judged says more than a frame without one, and both say more than a file that
    // is no picture.
    let rank = |reason: &NotApplicableReason| match reason {
        NotApplicableReason::FaceTooBlurred => 3,
        NotApplicableReason::FaceTooSmall => 2,
        NotApplicableReason::NoFace => 1,
        NotApplicableReason::UnsupportedMedia => 0,
    };
    let nothing = frames.iter().filter_map(|frame| match frame {
        FrameFinding::NothingToJudge(reason) => Some(*reason),
        _ => None,
    });
    if let Some(reason) = nothing.max_by_key(rank) {
        return Outcome::NotApplicable(reason);
    }
    Outcome::Failed(most_common_failure(frames).unwrap_or(FailureClass::ObjectNotFound))
}

/// The class of most unreadable frames; of equally many, the one that comes first in [`FailureClass::ALL`].
fn most_common_failure(frames: &[FrameFinding]) -> Option<FailureClass> {
    let count =
        |class: FailureClass| frames.iter().filter(|f| **f == FrameFinding::Unreadable(class)).count();
    let best = FailureClass::ALL.iter().rev().copied().max_by_key(|&class| count(class))?;
    (count(best) > 0).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Aggregation;
    use proptest::prelude::*;

    const PLATT: Calibration =
        Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.01, 0.0, 0.04] };

    fn scored(logits: &[f32]) -> FrameFinding {
        FrameFinding::Scored(
            logits.iter().map(|&l| ScoredFace { logit: Logit::new(l).expect("finite") }).collect(),
        )
    }

    fn rules(policy: &Policy) -> Rules<'_> {
        Rules { policy, calibration: PLATT, thresholds: Thresholds::new(0.9, 0.2) }
    }

    #[test]
    fn a_short_forged_passage_is_not_averaged_away() {
        let frames: Vec<_> = [[-4.0]; 6].iter().chain(&[[6.0]; 3]).map(|l| scored(l)).collect();
        let policy = Policy::default();
        assert_eq!(judge(&frames, rules(&policy)).outcome, Outcome::LikelyForged);
        let mean = Policy { aggregation: Aggregation::Mean, ..Policy::default() };
        assert_eq!(
            judge(&frames, rules(&mean)).outcome,
            Outcome::Inconclusive(InconclusiveReason::BetweenThresholds)
        );
    }

    #[test]
    fn unreadable_frames_do_not_spoil_the_rest() {
        let frames = [FrameFinding::Unreadable(FailureClass::Decode), scored(&[-5.0])];
        assert_eq!(judge(&frames, rules(&Policy::default())).outcome, Outcome::LikelyAuthentic);
    }

    #[test]
    fn without_scores_the_reason_is_the_most_telling_one() {
        let policy = Policy::default();
        let end = |frames: &[FrameFinding]| judge(frames, rules(&policy)).outcome;
        let nothing = FrameFinding::NothingToJudge;
        assert_eq!(end(&[]), Outcome::Failed(FailureClass::ObjectNotFound));
        assert_eq!(
            end(&[nothing(NotApplicableReason::NoFace), nothing(NotApplicableReason::FaceTooSmall)]),
            Outcome::NotApplicable(NotApplicableReason::FaceTooSmall)
        );
        assert_eq!(
            end(&[FrameFinding::Unreadable(FailureClass::Truncated), nothing(NotApplicableReason::NoFace)]),
            Outcome::NotApplicable(NotApplicableReason::NoFace)
        );
        let unreadable = FrameFinding::Unreadable;
        assert_eq!(
            end(&[
                unreadable(FailureClass::Decode),
                unreadable(FailureClass::Truncated),
                unreadable(FailureClass::Decode)
            ]),
            Outcome::Failed(FailureClass::Decode)
        );
    }

    #[test]
    fn an_uncalibrated_model_always_abstains() {
        let policy = Policy { thresholds: Thresholds::new(0.5, 0.5), ..Policy::default() };
        let rules = Rules { policy: &policy, calibration: Calibration::None, thresholds: None };
        let judgement = judge(&[scored(&[9.0])], rules);
        assert_eq!(judgement.outcome, Outcome::Inconclusive(InconclusiveReason::ModelNotCalibrated));
        assert_eq!(judgement.interval, None, "no interval without a calibration");
    }

    fn any_finding() -> impl Strategy<Value = FrameFinding> {
        prop_oneof![
            proptest::sample::select(FailureClass::ALL).prop_map(FrameFinding::Unreadable),
            proptest::sample::select(NotApplicableReason::ALL).prop_map(FrameFinding::NothingToJudge),
            proptest::collection::vec(-40f32..40.0, 1..4).prop_map(|logits| scored(&logits)),
        ]
    }

    proptest! {
        #[test]
        fn the_judgement_is_total_bounded_and_independent_of_order(
            mut frames in proptest::collection::vec(any_finding(), 0..12),
            aggregation in proptest::sample::select(vec![Aggregation::TopThirdMean, Aggregation::Mean, Aggregation::Max]),
        ) {
            let policy = Policy { aggregation, ..Policy::default() };
            let judgement = judge(&frames, rules(&policy));
            frames.reverse();
            prop_assert_eq!(judgement, judge(&frames, rules(&policy)));
            let judged = frames.iter().any(|f| matches!(f, FrameFinding::Scored(_)));
            prop_assert_eq!(judgement.probability.is_some(), judged);
            if let (Some(p), Some((low, high))) = (judgement.probability, judgement.interval) {
                prop_assert!((0.0..=1.0).contains(&p.get()));
                prop_assert!(low <= p && p <= high || (p.get() - low.get()).abs() < 1e-5 || (high.get() - p.get()).abs() < 1e-5);
            }
        }

        #[test]
        fn a_higher_score_never_lowers_the_media(
            logits in proptest::collection::vec(-9f32..9.0, 1..9), at in 0usize..9, raise in 0f32..5.0,
        ) {
            let policy = Policy::default();
            let score = |logits: &[f32]| {
                let frames: Vec<_> = logits.iter().map(|&l| scored(&[l])).collect();
                judge(&frames, rules(&policy)).probability.expect("scored").get()
            };
            let mut raised = logits.clone();
            let at = at % raised.len();
            raised[at] += raise;
            prop_assert!(score(&raised) >= score(&logits) - 1e-6);
        }
    }
}
