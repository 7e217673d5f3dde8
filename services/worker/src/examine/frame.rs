//! One frame: fetch, decode, faces, crop, score. Whatever goes wrong here is said of this frame alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forensics::frame::CROP_BYTES;
use forensics::{
    CROP_SIDE, CropMode, DetectedFace, FaceCrop, FaceQuality, FacesIn, FailureClass, Frame, FrameFinding,
    Logit, NotApplicableReason, ObjectDigest, ObjectRef, Policy, ScoredFace, Timings,
};

use media::Listed;

use super::store::{self, Unread};
use super::{Interrupted, Rooms};
use crate::batcher::Unscored;
use crate::budget::Share;
use crate::faces::NotFound;
use crate::job::Job;

/// What is known of one frame.
#[derive(Debug)]
pub(super) struct FrameReport {
    pub(super) index: u32,
    pub(super) object: ObjectDigest,
    pub(super) finding: FrameFinding,
    /// Why there is no score; for people.
    pub(super) detail: Option<String>,
    /// One entry a scored face, in the finding's order.
    pub(super) faces: Vec<ExaminedFace>,
    pub(super) faces_left_out: u32,
    /// `queued` and `total` stay zero.
    pub(super) timings: Timings,
    pub(super) device_time: Duration,
}

/// A scored face and where it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExaminedFace {
    pub(super) face: Option<DetectedFace>,
    pub(super) quality: FaceQuality,
    pub(super) logit: Logit,
}

/// A face that is good enough to be scored.
struct Candidate {
    crop: FaceCrop,
    quality: FaceQuality,
}

/// A frame's examination that ends before a score.
enum Stop {
    Interrupted,
    Found(FrameFinding, Option<String>),
}

impl Stop {
    fn unreadable(class: FailureClass, detail: impl Into<String>) -> Self {
        Self::Found(FrameFinding::Unreadable(class), Some(detail.into()))
    }

    fn nothing(reason: NotApplicableReason) -> Self {
        Self::Found(FrameFinding::NothingToJudge(reason), None)
    }
}

/// Examines one frame.
pub(super) async fn examine(
    job: &Job,
    rooms: &Rooms,
    Listed { key, object }: Listed,
    index: u32,
) -> Result<FrameReport, Interrupted> {
    let mut report = FrameReport {
        index,
        object: ObjectDigest { key: harmless(&key), version: None, etag: None, sha256: None },
        finding: FrameFinding::Unreadable(FailureClass::Decode),
        detail: None,
        faces: Vec::new(),
        faces_left_out: 0,
        timings: Timings::default(),
        device_time: Duration::ZERO,
    };
    let walked = match object {
        Ok(object) => walk(job, rooms, &object, &mut report).await,
        Err(odd) => {
            let detail = format!("{} cannot be referenced: {odd}", report.object.key);
            Err(Stop::unreadable(FailureClass::InvalidReference, detail))
        }
    };
    let stopped = match walked {
        Ok(()) => return Ok(report),
        Err(stopped) => stopped,
    };
    let Stop::Found(finding, detail) = stopped else { return Err(Interrupted) };
    report.finding = finding;
    report.detail = detail;
    Ok(report)
}

/// A key as a verdict may carry it: the store lists whatever anybody wrote. At most 1,024 bytes, without control
/// characters; of a key that can be referenced it is the key itself.
fn harmless(key: &str) -> String {
    let mut text = String::with_capacity(key.len().min(1_024));
    for c in key.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }) {
        if text.len() + c.len_utf8() > 1_024 {
            break;
        }
        text.push(c);
    }
    text
}

async fn walk(job: &Job, rooms: &Rooms, object: &ObjectRef, report: &mut FrameReport) -> Result<(), Stop> {
    let (frame, mut room) = picture(job, rooms, object, report).await?;
    let candidates = if job.reference.faces == FacesIn::Cropped || rooms.clerk.crop() == CropMode::None {
        whole(frame, rooms, report)?
    } else {
        let frame = Arc::new(frame);
        let began = Instant::now();
        let found = rooms.faces.find(Arc::clone(&frame), &job.time).await;
        report.timings.faces = began.elapsed();
        let faces = found.map_err(|error| match error {
            NotFound::Interrupted => Stop::Interrupted,
            NotFound::Invalid => {
                Stop::unreadable(FailureClass::InferenceInvalid, "the face detector gave no finite output")
            }
        })?;
        cut(&frame, faces, rooms, report).await?
    };
    room.shrink_to(candidates.len() * CROP_BYTES);
    score(job, rooms, candidates, report).await
}

/// The decoded picture, and the room that it and its crops take.
async fn picture(
    job: &Job,
    rooms: &Rooms,
    object: &ObjectRef,
    report: &mut FrameReport,
) -> Result<(Frame, Share), Stop> {
    let began = Instant::now();
    let fetched = store::fetch(rooms, job.reference.source.bucket(), object, &job.time).await;
    report.timings.fetch = began.elapsed();
    let fetched = fetched.map_err(|unread| match unread {
        Unread::Failed(class, detail) => Stop::unreadable(class, detail),
        Unread::Video => Stop::nothing(NotApplicableReason::UnsupportedMedia),
    })?;
    report.object.version = fetched.version;
    report.object.etag = fetched.etag;
    report.object.sha256 = Some(fetched.sha256);
    rooms.failpoints.reach("fetched");

    let began = Instant::now();
    let place = rooms.decode_places.acquire().await.expect("the semaphore is never closed");
    let decoded = rooms.decode.decode_timed(fetched.bytes, &job.time).await;
    report.timings.decode = began.elapsed();
    rooms.metrics.stages.decode.observe(report.timings.decode.as_secs_f64());
    let frame = decoded.map_err(|error| match error.finding() {
        Some(finding) => Stop::Found(finding, Some(format!("{}: {error}", object.key))),
        None => Stop::Interrupted,
    })?;
    let crops = match job.reference.faces {
        FacesIn::Cropped => 1,
        FacesIn::Detect => rooms.clerk.policy().faces_max,
    };
    rooms.failpoints.reach("decoded");
    let room = rooms.pixels.acquire(frame.rgb().len() + crops * CROP_BYTES).await;
    drop(place);
    Ok((frame, room))
}

/// A picture that is one face.
fn whole(frame: Frame, rooms: &Rooms, report: &mut FrameReport) -> Result<Vec<Candidate>, Stop> {
    let policy = rooms.clerk.policy();
    let size = frame.width().min(frame.height()) as f32;
    if size < policy.face_size_min {
        return Err(Stop::nothing(NotApplicableReason::FaceTooSmall));
    }
    let began = Instant::now();
    let side = CROP_SIDE as u32;
    let crop = if (frame.width(), frame.height()) == (side, side) {
        // It is what the network takes: moved, not copied.
        FaceCrop { pixels: frame.into_rgb().into_boxed_slice(), face: None }
    } else {
        media::crop_whole(&frame)
    };
    let candidate = candidate(crop, size);
    report.timings.faces += began.elapsed();
    rooms.metrics.stages.crop.observe(began.elapsed().as_secs_f64());
    if candidate.quality.sharpness < policy.sharpness_min {
        return Err(Stop::nothing(NotApplicableReason::FaceTooBlurred));
    }
    Ok(vec![candidate])
}

/// The faces that the policy lets pass, the largest first, cut out.
async fn cut(
    frame: &Frame,
    faces: Vec<DetectedFace>,
    rooms: &Rooms,
    report: &mut FrameReport,
) -> Result<Vec<Candidate>, Stop> {
    let policy = rooms.clerk.policy();
    let (chosen, left_out) = choose(faces, policy).map_err(Stop::nothing)?;
    report.faces_left_out = left_out;
    let mut candidates = Vec::with_capacity(chosen.len());
    let mut busy = Duration::ZERO;
    for face in &chosen {
        let began = Instant::now();
        let cut = candidate(media::crop_face(frame, face, rooms.clerk.crop()), face.size());
        if cut.quality.sharpness >= policy.sharpness_min {
            candidates.push(cut);
        }
        busy += began.elapsed();
        // A crop costs some hundred microseconds: others on this thread get their turn between two.
        tokio::task::yield_now().await;
    }
    report.timings.faces += busy;
    rooms.metrics.stages.crop.observe(busy.as_secs_f64());
    if candidates.is_empty() {
        return Err(Stop::nothing(NotApplicableReason::FaceTooBlurred));
    }
    Ok(candidates)
}

/// The faces to be judged, largest first, and how many more there were; or why there is none.
fn choose(
    mut faces: Vec<DetectedFace>,
    policy: &Policy,
) -> Result<(Vec<DetectedFace>, u32), NotApplicableReason> {
    if faces.is_empty() {
        return Err(NotApplicableReason::NoFace);
    }
    faces.retain(|face| face.size() >= policy.face_size_min);
    if faces.is_empty() {
        return Err(NotApplicableReason::FaceTooSmall);
    }
    faces.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
    let left_out = faces.len().saturating_sub(policy.faces_max);
    faces.truncate(policy.faces_max);
    Ok((faces, u32::try_from(left_out).unwrap_or(u32::MAX)))
}

fn candidate(crop: FaceCrop, size: f32) -> Candidate {
    let sharpness = media::sharpness(&crop.pixels);
    Candidate { crop, quality: FaceQuality { size, sharpness } }
}

/// Scores all faces of the frame. One that has no score, twice, makes the frame unreadable: a face that
/// nobody could judge is not passed over in silence.
async fn score(
    job: &Job,
    rooms: &Rooms,
    candidates: Vec<Candidate>,
    report: &mut FrameReport,
) -> Result<(), Stop> {
    let mut waiting = Vec::with_capacity(candidates.len());
    for Candidate { crop, quality } in candidates {
        let answer = rooms.scorer.bring(crop.pixels, job.input.lane).await;
        waiting.push((crop.face, quality, answer));
    }
    let mut scored = Vec::with_capacity(waiting.len());
    for (face, quality, answer) in waiting {
        match answer.await.unwrap_or(Err(Unscored::Interrupted)) {
            Ok(answer) => {
                report.timings.wait = report.timings.wait.max(answer.waited);
                report.timings.inference = report.timings.inference.max(answer.inference);
                report.device_time += answer.device_time;
                job.time.add(answer.device_time);
                scored.push(ScoredFace { logit: answer.logit });
                report.faces.push(ExaminedFace { face, quality, logit: answer.logit });
            }
            Err(Unscored::Interrupted) => return Err(Stop::Interrupted),
            Err(Unscored::Invalid) => {
                report.faces.clear();
                let why = "the network gave no finite score for a face, twice";
                return Err(Stop::unreadable(FailureClass::InferenceInvalid, why));
            }
        }
    }
    rooms.metrics.stages.wait.observe(report.timings.wait.as_secs_f64());
    report.finding = FrameFinding::Scored(scored);
    Ok(())
}

#[cfg(test)]
mod tests {
    use forensics::{BoundingBox, Point};

    use super::*;

    fn face(side: f32) -> DetectedFace {
        let bounds = BoundingBox { left: 0.0, top: 0.0, right: side, bottom: side };
        DetectedFace { bounds, landmarks: [Point::default(); 5], confidence: 0.9 }
    }

    #[test]
    fn a_listed_key_is_carried_without_its_tricks() {
        let longest = "k".repeat(1_024);
        for key in ["frames/ünïcode/1.jpg", &longest] {
            assert_eq!(harmless(key), key);
        }
        assert_eq!(harmless("f/1\n2\u{1b}[2J"), "f/1\u{fffd}2\u{fffd}[2J");
        assert_eq!(harmless(&format!("{longest}and more")), longest);
    }

    #[test]
    fn the_largest_faces_are_judged_and_the_rest_counted() {
        let policy = Policy { faces_max: 2, face_size_min: 40.0, ..Policy::default() };
        let (chosen, left_out) = choose([39.0, 50.0, 90.0, 70.0].map(face).to_vec(), &policy).unwrap();
        assert_eq!(chosen.iter().map(DetectedFace::size).collect::<Vec<_>>(), [90.0, 70.0]);
        assert_eq!(left_out, 1, "the too small one is not among those left out");
        assert_eq!(choose(vec![], &policy), Err(NotApplicableReason::NoFace));
        assert_eq!(choose(vec![face(10.0)], &policy), Err(NotApplicableReason::FaceTooSmall));
    }
}
