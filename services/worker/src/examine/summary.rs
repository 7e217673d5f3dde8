//! Frames to one end: pure, but for the rules it is handed.

use std::time::Duration;

use forensics::{FaceVerdict, FrameFinding, FrameVerdict, Rules, Timings, aggregate};

use super::Rooms;
use super::frame::FrameReport;
use crate::clerk::End;

/// So many frames' troubles are told in full.
const DETAILS_MAX: usize = 3;

/// The end of a media of which `listed` frames were named and these were examined.
pub(super) fn sum_up(frames: Vec<FrameReport>, listed: usize, rooms: &Rooms) -> End {
    let end = summarise(frames, listed, rooms.clerk.rules());
    rooms.metrics.faces_per_media.observe(end.faces.len() as f64);
    if let Some(probability) = end.judgement.probability {
        rooms.metrics.score.observe(f64::from(probability.get()));
    }
    end
}

fn summarise(frames: Vec<FrameReport>, listed: usize, rules: Rules<'_>) -> End {
    let detail = detail(&frames, listed);
    let (mut findings, mut faces) = (Vec::with_capacity(frames.len()), Vec::new());
    let (mut timeline, mut contents) = (Vec::with_capacity(frames.len()), Vec::with_capacity(frames.len()));
    let (mut timings, mut device_time) = (Timings::default(), Duration::ZERO);
    let (mut left_out, mut unreadable) = (0u32, 0u32);
    for frame in frames {
        let calibration = rules.calibration;
        faces.extend(frame.faces.iter().map(|face| FaceVerdict {
            frame: frame.index,
            face: face.face,
            quality: face.quality,
            logit: face.logit,
            score: calibration.probability(face.logit),
        }));
        let (score, failure) = match &frame.finding {
            FrameFinding::Scored(scored) => (aggregate::frame_score(scored, &calibration), None),
            FrameFinding::Unreadable(class) => (None, Some(*class)),
            FrameFinding::NothingToJudge(_) => (None, None),
        };
        unreadable += u32::from(failure.is_some());
        left_out = left_out.saturating_add(frame.faces_left_out);
        device_time += frame.device_time;
        add(&mut timings, &frame.timings);
        timeline.push(FrameVerdict { key: frame.object.key.clone(), score, failure });
        contents.push(frame.object);
        findings.push(frame.finding);
    }
    End {
        judgement: forensics::judge(&findings, rules),
        detail,
        faces,
        faces_left_out: left_out,
        timeline,
        frames_unreadable: unreadable,
        contents,
        timings,
        device_time,
        suspicious: false,
    }
}

/// Work is summed over the frames: of a long media it is more than the time that passed.
fn add(sum: &mut Timings, frame: &Timings) {
    sum.fetch += frame.fetch;
    sum.decode += frame.decode;
    sum.faces += frame.faces;
    sum.wait += frame.wait;
    sum.inference += frame.inference;
}

fn detail(frames: &[FrameReport], listed: usize) -> Option<String> {
    let told: Vec<&str> = frames.iter().filter_map(|frame| frame.detail.as_deref()).collect();
    let mut parts: Vec<String> = told.iter().take(DETAILS_MAX).map(|text| (*text).to_owned()).collect();
    if told.len() > DETAILS_MAX {
        parts.push(format!("and {} more frames with trouble", told.len() - DETAILS_MAX));
    }
    if listed > frames.len() {
        parts.push(format!("{} of {listed} frames were sampled", frames.len()));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use forensics::{
        Calibration, FaceQuality, FailureClass, Logit, ObjectDigest, Outcome, Policy, ScoredFace, Thresholds,
    };

    use super::super::frame::ExaminedFace;
    use super::*;

    fn report(index: u32, finding: FrameFinding) -> FrameReport {
        let logits = match &finding {
            FrameFinding::Scored(faces) => faces.iter().map(|face| face.logit).collect(),
            _ => vec![],
        };
        let quality = FaceQuality { size: 100.0, sharpness: 50.0 };
        FrameReport {
            index,
            object: ObjectDigest { key: format!("f{index}"), version: None, etag: None, sha256: None },
            detail: matches!(finding, FrameFinding::Unreadable(_)).then(|| format!("frame {index} is cut")),
            finding,
            faces: logits.into_iter().map(|logit| ExaminedFace { face: None, quality, logit }).collect(),
            faces_left_out: 1,
            timings: Timings { fetch: Duration::from_millis(2), ..Timings::default() },
            device_time: Duration::from_millis(1),
        }
    }

    #[test]
    fn a_bad_frame_is_counted_and_the_rest_is_judged() {
        let policy = Policy::default();
        let calibration = Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.0; 3] };
        let rules = Rules { policy: &policy, calibration, thresholds: Thresholds::new(0.9, 0.1) };
        let scored = FrameFinding::Scored(vec![ScoredFace { logit: Logit::new(5.0).unwrap() }]);
        let frames = vec![report(0, FrameFinding::Unreadable(FailureClass::Truncated)), report(1, scored)];
        let end = summarise(frames, 700, rules);
        assert_eq!(end.judgement.outcome, Outcome::LikelyForged);
        assert_eq!((end.frames_unreadable, end.faces_left_out, end.faces.len()), (1, 2, 1));
        assert_eq!(end.faces[0].frame, 1);
        assert_eq!(end.timings.fetch, Duration::from_millis(4));
        assert_eq!(end.timeline[0].failure, Some(FailureClass::Truncated));
        assert_eq!(end.detail.as_deref(), Some("frame 0 is cut; 2 of 700 frames were sampled"));
    }
}
