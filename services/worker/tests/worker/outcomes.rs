//! Each input ends where the contract says, and exactly once.

use std::collections::BTreeMap;

use crate::harness::{Stage, Tap, image, painted, png, reference};
use forensics::scripted::ScriptedForgeryDetector;
use forensics::{
    Calibration, CropBatch, DetectorError, FailureClass, ForgeryDetector, Logit, ModelIdentity,
    NotApplicableReason, Outcome, Preprocessing, Thresholds,
};
use ops::ExitReason;
use prost::Message;
use proto::v1;
use proto::v1::media_reference::Source;

/// A scene of 320×256 with one magenta-to-white face of 64×64 for each green given.
fn scene(greens: &[u8]) -> Vec<u8> {
    painted(320, 256, |x, y| {
        let face = greens.get((x / 96) as usize).filter(|_| x % 96 < 64 && (64..128).contains(&y));
        face.map_or([0, 0, 0], |green| [255, *green, 255])
    })
}

fn frames(keys: &[&str]) -> Source {
    let object = |key: &&str| v1::ObjectRef { key: (*key).to_owned(), ..Default::default() };
    Source::Frames(v1::FramesSource {
        bucket: "media".to_owned(),
        objects: keys.iter().map(object).collect(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_input_ends_where_the_contract_says() {
    let stage = Stage::new().await;
    let picture = png(256, 256, [255, 255, 255]);
    stage.store.put("white.png", picture.clone());
    stage.store.put("cut.png", picture[..picture.len() / 2].to_vec());
    stage.store.put("empty.png", vec![]);
    stage.store.put("text.jpg", &b"this is no picture, whatever its name says"[..]);
    stage.store.put("tiny.png", png(16, 16, [255, 255, 255]));
    stage.store.put("magenta.png", scene(&[0]));
    stage.store.put("both.png", scene(&[0, 255]));
    stage.store.put("nobody.png", scene(&[]));
    let (detect, cropped) = (v1::Faces::Detect, v1::Faces::Cropped);
    let video = Source::Video(v1::VideoSource {
        bucket: "media".to_owned(),
        object: Some(v1::ObjectRef { key: "a.mp4".to_owned(), ..Default::default() }),
        frames_max: 0,
    });
    let elsewhere =
        Source::Prefix(v1::PrefixSource { bucket: "other-bucket".to_owned(), prefix: "a/".to_owned() });
    let failed = Outcome::Failed;
    let not_applicable = Outcome::NotApplicable;
    let expected: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("white", image("white", "white.png", cropped), Outcome::LikelyForged),
        ("magenta", image("magenta", "magenta.png", detect), Outcome::LikelyAuthentic),
        ("both", image("both", "both.png", detect), Outcome::LikelyForged),
        ("nobody", image("nobody", "nobody.png", detect), not_applicable(NotApplicableReason::NoFace)),
        ("tiny", image("tiny", "tiny.png", cropped), not_applicable(NotApplicableReason::FaceTooSmall)),
        ("text", image("text", "text.jpg", cropped), not_applicable(NotApplicableReason::UnsupportedMedia)),
        ("video", reference("video", video, detect), not_applicable(NotApplicableReason::UnsupportedMedia)),
        ("gone", image("gone", "gone.png", cropped), failed(FailureClass::ObjectNotFound)),
        ("cut", image("cut", "cut.png", cropped), failed(FailureClass::Truncated)),
        ("empty", image("empty", "empty.png", cropped), failed(FailureClass::Truncated)),
        ("elsewhere", reference("elsewhere", elsewhere, detect), failed(FailureClass::BucketNotAllowed)),
        ("-", Vec::new(), failed(FailureClass::InvalidReference)),
        (
            "rest",
            reference("rest", frames(&["gone.png", "magenta.png", "cut.png"]), detect),
            Outcome::LikelyAuthentic,
        ),
    ];
    let unparsable = b"\xff\xff no reference".to_vec();
    let values = expected.iter().map(|(_, value, _)| value.clone()).chain([unparsable.clone()]);
    stage.submit(values).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(expected.len() + 1).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(expected.len() + 1).await;

    let verdicts = stage.verdicts().await;
    let by_name: BTreeMap<&str, _> = verdicts.iter().map(|v| (v.media_id.as_str(), v)).collect();
    let ends: BTreeMap<&str, Outcome> = by_name.iter().map(|(name, v)| (*name, v.outcome)).collect();
    let wanted: BTreeMap<&str, Outcome> =
        expected.iter().map(|(name, _, outcome)| (*name, *outcome)).collect();
    assert_eq!(ends, wanted);
    let rest = by_name["rest"];
    assert_eq!((rest.frames_unreadable, rest.timeline.len(), rest.contents.len()), (2, 3, 3));
    assert!(rest.contents[1].sha256.is_some() && rest.contents[0].sha256.is_none());
    assert!(rest.detail.as_ref().unwrap().contains("gone.png"), "people are told in full");
    assert_eq!(by_name["both"].faces.len(), 2);
    assert_eq!(by_name["both"].faces[0].quality.size, 64.0);
    assert_eq!(by_name["white"].preprocessing, "1/none/none");
    assert!(by_name["magenta"].timings.fetch > std::time::Duration::ZERO);

    let letters = stage.records(&stage.topics.dead_letters).await;
    assert_eq!(letters.len(), 1, "only what nobody can parse");
    let letter = v1::DeadLetter::decode(&**letters[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((&*letter.original, letter.kind()), (&*unparsable, v1::dead_letter::Kind::Unparsable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_in_json_is_judged_like_any_other() {
    let stage = Stage::new().await;
    stage.store.put("white.png", png(256, 256, [255, 255, 255]));
    stage
        .submit_json([
            r#"{"mediaId":"white","faces":"FACES_CROPPED","notOurs":{"a":[1]},
               "image":{"bucket":"media","object":{"key":"white.png"}}}"#,
            r#"{"media_id":"gone","image":{"bucket":"media","object":{"key":"gone.png"}}}"#,
            r#"{"mediaId":"#,
        ])
        .await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(3).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(3).await;
    let verdicts = stage.verdicts().await;
    let ends: BTreeMap<&str, Outcome> = verdicts.iter().map(|v| (v.media_id.as_str(), v.outcome)).collect();
    let gone = Outcome::Failed(FailureClass::ObjectNotFound);
    assert_eq!(ends, [("gone", gone), ("white", Outcome::LikelyForged)].into());
    assert_eq!(
        stage.records(&stage.topics.dead_letters).await.len(),
        1,
        "what is cut short nobody can parse"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_in_an_outage_waits_for_its_end() {
    let stage = Stage::new().await;
    stage.store.set(Tap::Broken);
    let worker = stage.worker("worker-0");
    let obstacle = async || {
        let obstacles = worker.ops.readiness.obstacles();
        obstacles.iter().any(|(gate, why)| gate == "object-store" && why.contains("server_error"))
    };
    stage.until(obstacle, "the readiness page to name the store").await;
    // No media was there to find it out, and none is needed to find out that it is over.
    stage.store.set(Tap::Open);
    worker.ready().await;
    stage.submit_pictures(4).await;
    stage.until_outcomes(4).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_store_is_waited_out() {
    let stage = Stage::new().await;
    stage.store.set(Tap::Broken);
    stage.submit_pictures(40).await;
    let worker = stage.worker("worker-0");
    let obstacle = async || {
        worker
            .ops
            .readiness
            .obstacles()
            .iter()
            .any(|(gate, why)| gate == "object-store" && why.contains("server_error"))
    };
    stage.until(obstacle, "the readiness page to name the store").await;
    assert!(stage.outcomes().await.is_empty(), "nothing is judged meanwhile");
    stage.store.set(Tap::Open);
    stage.until_outcomes(40).await;
    worker.ready().await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(40).await;
    assert!(stage.verdicts().await.iter().all(|verdict| verdict.outcome == Outcome::LikelyForged));
    assert!(stage.records(&stage.topics.dead_letters).await.is_empty());
}

/// Scripted, but for the batches that hold a black crop: those end as `trouble` says.
struct Troubled {
    inner: ScriptedForgeryDetector,
    trouble: fn(usize) -> DetectorError,
    /// So many self-tests pass.
    healthy_for: u32,
}

impl ForgeryDetector for Troubled {
    fn identity(&self) -> &ModelIdentity {
        self.inner.identity()
    }
    fn preprocessing(&self) -> &Preprocessing {
        self.inner.preprocessing()
    }
    fn calibration(&self) -> Calibration {
        self.inner.calibration()
    }
    fn thresholds(&self) -> Option<Thresholds> {
        self.inner.thresholds()
    }
    fn batch_max(&self) -> usize {
        self.inner.batch_max()
    }
    fn score(&mut self, batch: &CropBatch) -> Result<Vec<Logit>, DetectorError> {
        match (0..batch.count()).find(|&index| batch.crop(index)[..3] == [0, 0, 0]) {
            Some(item) => Err((self.trouble)(item)),
            None => self.inner.score(batch),
        }
    }
    fn self_test(&mut self) -> Result<(), DetectorError> {
        let left = self.healthy_for.checked_sub(1);
        self.healthy_for = left.ok_or_else(|| DetectorError::Device("golden scores differ".to_owned()))?;
        Ok(())
    }
}

fn troubled(trouble: fn(usize) -> DetectorError, healthy_for: u32) -> Box<worker::engine::ForgeryFactory> {
    let detector = move || Troubled { inner: ScriptedForgeryDetector::new(8), trouble, healthy_for };
    Box::new(Box::new(move || Ok(Box::new(detector()))))
}

/// Ten white pictures, and a black one among them.
async fn submit_with_a_black_one(stage: &Stage) {
    stage.submit_pictures(10).await;
    stage.store.put("4.png", png(256, 256, [0, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_score_that_is_no_number_costs_one_media() {
    let stage = Stage::new().await;
    submit_with_a_black_one(&stage).await;
    let worker = stage.worker_with("worker-0", *troubled(|item| DetectorError::NonFinite { item }, 1));
    stage.until_outcomes(10).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(10).await;
    for verdict in stage.verdicts().await {
        let black = verdict.media_id.as_str() == "m4";
        let failed = Outcome::Failed(FailureClass::InferenceInvalid);
        assert_eq!(verdict.outcome, if black { failed } else { Outcome::LikelyForged });
    }
    let copies = stage.records(&stage.topics.dead_letters).await;
    assert_eq!(copies.len(), 1, "a person should look");
    let copy = v1::DeadLetter::decode(&**copies[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(copy.kind(), v1::dead_letter::Kind::Copy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_often_gives_no_number_is_put_to_the_test() {
    let stage = Stage::new().await;
    submit_with_a_black_one(&stage).await;
    stage.store.put("7.png", png(256, 256, [0, 0, 0]));
    let not_finite = |item| DetectorError::NonFinite { item };
    // The first self-test is that of the start.
    let exit = stage.worker_with("worker-0", *troubled(not_finite, 1)).ended().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Bug, "{exit}");
    assert!(exit.why.contains("quarantined") && exit.why.contains("golden scores differ"), "{exit}");
    let healthy = stage.worker_with("worker-0", *troubled(not_finite, 2));
    stage.until_outcomes(10).await;
    assert_eq!(healthy.stop().await, Ok(()));
    stage.assert_exactly_once(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_device_ends_the_worker_soon_and_loses_nothing() {
    let stage = Stage::new().await;
    submit_with_a_black_one(&stage).await;
    let begin = std::time::Instant::now();
    let worker = stage.worker_with("worker-0", *troubled(|_| DetectorError::Device("sticky".to_owned()), 1));
    let exit = worker.ended().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Bug, "{exit}");
    assert!(exit.why.contains("sticky"), "{exit}");
    assert!(begin.elapsed().as_secs() < 5, "no drain for what cannot be done");
    let next = stage.worker("worker-0");
    stage.until_outcomes(10).await;
    assert_eq!(next.stop().await, Ok(()));
    stage.assert_exactly_once(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_refused_is_exit_78() {
    let stage = Stage::new().await;
    let refuse = || Err(ExitReason::Refused.because("weights have sha256 aa, the manifest says bb"));
    let exit = stage.worker_with("worker-0", Box::new(refuse)).ended().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Refused);
    assert!(exit.why.contains("manifest says bb"), "{exit}");
}
