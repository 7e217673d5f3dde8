use forensics::{
    DeviceClass, FaceQuality, ForgeryScore, InconclusiveReason, Logit, MediaId, Precision, Tenant,
};
use proto::topics::Origin;
use stream::{AssignmentEpoch, Position, Record, TopicPartition};

use super::*;

const MAX: usize = 64 * 1024;

fn clerk() -> Clerk {
    clerk_with(None, Policy::default())
}

/// A clerk for a bundle with these thresholds.
fn clerk_with(thresholds: Option<Thresholds>, policy: Policy) -> Clerk {
    let facts = ModelFacts {
        identity: ModelIdentity {
            name: "m".to_owned(),
            version: "1".to_owned(),
            sha256: [7; 32],
            precision: Precision::Scripted,
            device: DeviceClass::Cpu,
        },
        calibration: Calibration::None,
        thresholds,
        crop: CropMode::Aligned,
        face_detector: "scripted".to_owned(),
    };
    let delivery = Delivery::ExactlyOnce;
    let desk = Desk { slot: "worker-0".into(), delivery, record_bytes_max: MAX };
    Clerk::new(facts, policy, &Topics::default(), desk)
}

fn input(value: Vec<u8>) -> Input {
    let partition = TopicPartition::new("touchstone.media.bulk.v1", 2);
    Input {
        epoch: AssignmentEpoch(1),
        record: Record {
            position: partition.at(41),
            timestamp_ms: 1_000,
            key: Some(Bytes::from_static(b"default|m")),
            value: Some(value.into()),
            headers: vec![("traceparent".to_owned(), Bytes::from_static(b"00-1-2-01"))],
        },
        partition,
        lane: Lane::Bulk,
        attempt: 3,
        taken_in_at: SystemTime::UNIX_EPOCH,
    }
}

fn subject(faces: FacesIn) -> Subject {
    Subject {
        tenant: Tenant::default_tenant(),
        media_id: MediaId::parse("m").unwrap(),
        generation: 0,
        faces,
        due_at: None,
        labels: [("k".to_owned(), "v".to_owned())].into(),
    }
}

fn position() -> forensics::InputPosition {
    let Position { topic, partition, offset } = Position::new("touchstone.media.bulk.v1", 2, 41);
    forensics::InputPosition { topic: topic.to_string(), partition, offset }
}

#[test]
fn a_verdict_is_an_outcome_and_its_copy_is_not() {
    let (clerk, input) = (clerk(), input(b"reference".to_vec()));
    let verdict = |class| clerk.verdict(&subject(FacesIn::Detect), &input, End::failed(class, "why"));
    let written = clerk.write(&input, &verdict(FailureClass::TimedOut), false);
    let [outcome, copy] = &*written.records else { panic!("a verdict and its copy") };
    assert_eq!(proto::topics::origin(&outcome.headers), Origin::Input(position()));
    assert_eq!(outcome.key.as_deref(), Some(&b"default|m"[..]));
    assert!(outcome.headers.iter().any(|(name, value)| name == "traceparent" && value == "00-1-2-01"));
    let decoded =
        Verdict::try_from(v1::Verdict::decode(&**outcome.value.as_ref().unwrap()).unwrap()).unwrap();
    assert_eq!((decoded.outcome, decoded.attempt), (Outcome::Failed(FailureClass::TimedOut), 3));
    assert_eq!(proto::topics::origin(&copy.headers), Origin::Absent);
    let letter = v1::DeadLetter::decode(&**copy.value.as_ref().unwrap()).unwrap();
    assert_eq!((&*letter.original, letter.verdict_id), (&b"reference"[..], decoded.id.to_string()));
    assert_eq!(clerk.write(&input, &verdict(FailureClass::Decode), false).records.len(), 1);
    assert_eq!(clerk.write(&input, &verdict(FailureClass::Decode), true).records.len(), 2, "a panic's");
}

#[test]
fn an_outcome_that_may_come_again_says_so() {
    let (mut clerk, input) = (clerk(), input(b"reference".to_vec()));
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        clerk.desk.delivery = delivery;
        let end = End::failed(FailureClass::TimedOut, "why");
        let verdict = clerk.verdict(&subject(FacesIn::Detect), &input, end);
        let records = clerk.write(&input, &verdict, false).records;
        let letter = clerk.dead_letter(&input, "not a reference".to_owned()).records;
        let says = |record: &NewRecord| proto::topics::may_repeat(&record.headers);
        let expected = delivery == Delivery::AtLeastOnce;
        assert_eq!((says(&records[0]), says(&letter[0])), (expected, expected), "{delivery:?}");
    }
}

#[test]
fn scenes_and_crops_of_one_media_have_two_ids() {
    let (clerk, input) = (clerk(), input(vec![]));
    let end = || End::failed(FailureClass::TimedOut, "why");
    let detect = clerk.verdict(&subject(FacesIn::Detect), &input, end());
    let cropped = clerk.verdict(&subject(FacesIn::Cropped), &input, end());
    assert_ne!(detect.id, cropped.id);
    assert_eq!((&*detect.preprocessing, &*cropped.preprocessing), ("1/aligned/scripted", "1/none/none"));
}

#[test]
fn the_thresholds_in_force_are_part_of_the_id() {
    let id = |bundle: Option<Thresholds>, policy: Option<Thresholds>| {
        let clerk = clerk_with(bundle, Policy { thresholds: policy, ..Policy::default() });
        let end = End::failed(FailureClass::TimedOut, "why");
        clerk.verdict(&subject(FacesIn::Detect), &input(vec![]), end).id
    };
    let (wide, narrow) = (Thresholds::new(0.9, 0.1), Thresholds::new(0.6, 0.4));
    assert_ne!(id(wide, None), id(narrow, None), "a bundle with other thresholds judges otherwise");
    assert_ne!(id(wide, None), id(None, None));
    assert_eq!(id(wide, narrow), id(None, narrow), "the policy's win, whatever the bundle says");
    assert_eq!(id(narrow, None), id(None, narrow), "whoever gave them, they judge the same");
}

/// Foreign headers may fill a record, and the outcome is one with more in it.
#[test]
fn whatever_a_header_brings_the_outcome_fits() {
    let (clerk, mut input) = (clerk(), input(b"reference".to_vec()));
    input.record.headers = vec![("traceparent".to_owned(), vec![b'0'; 990_000].into())];
    let verdict =
        clerk.verdict(&subject(FacesIn::Detect), &input, End::failed(FailureClass::TimedOut, "why"));
    let verdict = clerk.write(&input, &verdict, false);
    let letter = clerk.dead_letter(&input, "not a reference".to_owned());
    for record in verdict.records.iter().chain(&letter.records) {
        assert!(record.size_bytes() <= MAX, "{}", record.size_bytes());
    }
}

#[test]
fn a_dead_letter_keeps_the_bytes_as_far_as_they_fit() {
    let clerk = clerk();
    for (size, kept) in [(100, 100), (MAX + 5_000, MAX - DEAD_LETTER_FRAME_BYTES - 18)] {
        let written = clerk.dead_letter(&input(vec![9; size]), "not a reference".to_owned());
        let [record] = &*written.records else { panic!("one record") };
        assert!(record.size_bytes() <= MAX, "{}", record.size_bytes());
        assert_eq!(proto::topics::origin(&record.headers), Origin::Input(position()));
        let letter = v1::DeadLetter::decode(&**record.value.as_ref().unwrap()).unwrap();
        assert_eq!((letter.original.len(), letter.kind()), (kept, v1::dead_letter::Kind::Unparsable));
        assert_eq!(letter.detail.contains("are kept"), kept < size, "{}", letter.detail);
    }
}

#[test]
fn a_verdict_that_is_too_long_keeps_its_outcome_and_its_highest_faces() {
    let (clerk, input) = (clerk(), input(vec![]));
    let quality = FaceQuality { size: 50.0, sharpness: 9.0 };
    let face = |frame: u32| FaceVerdict {
        frame,
        face: None,
        quality,
        logit: Logit::new(frame as f32).unwrap(),
        score: ForgeryScore::new(frame as f32 / 4_000.0).unwrap(),
    };
    let key = |index: usize| format!("{index}{}", "k".repeat(1_000));
    let digest = |index| ObjectDigest { key: key(index), version: None, etag: None, sha256: Some([1; 32]) };
    let timeline = |index| FrameVerdict { key: key(index), score: None, failure: None };
    let outcome = Outcome::Inconclusive(InconclusiveReason::ModelNotCalibrated);
    for (faces, frames) in [(4_000, 1), (4_000, 200), (1, 40), (1, 300)] {
        let mut end = End::without_scores(outcome, "");
        end.faces = (0..faces).map(face).collect();
        end.timeline = (0..frames).map(timeline).collect();
        end.contents = (0..frames).map(digest).collect();
        let verdict = clerk.verdict(&subject(FacesIn::Detect), &input, end);
        let written = clerk.write(&input, &verdict, false);
        assert!(written.records[0].size_bytes() <= MAX, "{faces} faces, {frames} frames");
        let wire = v1::Verdict::decode(&**written.records[0].value.as_ref().unwrap()).unwrap();
        assert!(wire.detail.contains("left out"), "{}", wire.detail);
        assert_eq!(wire.faces.last().map(|face| face.frame), Some(faces - 1), "the highest stays");
        assert_eq!(Verdict::try_from(wire).unwrap().id, verdict.id);
    }
}
