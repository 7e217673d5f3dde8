//! Our own backlog is no media's failure: its deadline is about the store and about its own work.

use std::time::Duration;

use forensics::scripted::ScriptedForgeryDetector;
use forensics::{
    Calibration, CropBatch, DetectorError, FailureClass, ForgeryDetector, Logit, ModelIdentity, Outcome,
    Preprocessing, Thresholds,
};

use crate::harness::{Stage, image};
use proto::v1;

/// Scripted, but as slow as a large network on a small machine.
struct Slow {
    inner: ScriptedForgeryDetector,
    a_crop: Duration,
}

impl ForgeryDetector for Slow {
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
        std::thread::sleep(self.a_crop * u32::try_from(batch.count()).unwrap());
        self.inner.score(batch)
    }
    fn self_test(&mut self) -> Result<(), DetectorError> {
        self.inner.self_test()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_that_wait_behind_each_other_all_have_their_time() {
    let mut stage = Stage::new().await;
    // Together they need four times as long as each of them may take.
    stage.knobs.extend([("T__WORKER__EXAMINE__DEADLINE", "2s"), ("T__DECODE__THREADS", "1")]);
    stage.submit_pictures(80).await;
    let slow = || -> Result<Box<dyn ForgeryDetector>, ops::Exit> {
        Ok(Box::new(Slow { inner: ScriptedForgeryDetector::new(8), a_crop: Duration::from_millis(100) }))
    };
    let worker = stage.worker_with("worker-0", Box::new(slow));
    stage.until_outcomes(80).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(80).await;
    let verdicts = stage.verdicts().await;
    let late = verdicts.iter().filter(|verdict| verdict.outcome != Outcome::LikelyForged).count();
    assert_eq!(late, 0, "of {} media", verdicts.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_never_comes_holds_its_partition_until_the_deadline() {
    let mut stage = Stage::new().await;
    stage.knobs.push(("T__WORKER__EXAMINE__DEADLINE", "1s"));
    stage.store.get_stuck_on("stuck.png");
    stage.submit([image("stuck", "stuck.png", v1::Faces::Cropped)]).await;
    stage.submit_pictures(8).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(9).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(9).await;
    for verdict in stage.verdicts().await {
        let stuck = verdict.media_id.as_str() == "stuck";
        let timed_out = Outcome::Failed(FailureClass::TimedOut);
        assert_eq!(verdict.outcome, if stuck { timed_out } else { Outcome::LikelyForged });
        assert!(!stuck || verdict.detail.is_some_and(|why| why.contains("not done within 1s")));
    }
}
