//! The face-detector thread: frames of many media, batched.

use std::sync::Arc;
use std::time::Instant;

use forensics::{DetectedFace, FaceDetector, Frame};
use media::Stopwatch;
use ops::metrics::{Queue, Queued};
use ops::{Exit, Gate};
use tokio::sync::{mpsc, oneshot};

use crate::engine::FaceFactory;
use crate::metrics::Metrics;
use crate::{device, resilient};

/// Why there is no answer about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// The detector's outputs are not numbers, twice.
    Invalid,
    /// The worker is going down.
    Interrupted,
}

struct Item {
    frame: Arc<Frame>,
    reply: oneshot::Sender<Result<Vec<DetectedFace>, NotFound>>,
    queued: Queued,
    job_time: Stopwatch,
}

/// The jobs' end. When it is dropped the thread ends.
pub(crate) struct FaceFinder {
    items: mpsc::Sender<Item>,
    waiting: Queue,
}

/// The thread's end.
pub(crate) struct FaceBench {
    items: mpsc::Receiver<Item>,
}

/// Both ends; at most `queue_max` frames wait.
pub(crate) fn room(queue_max: usize, metrics: &Metrics) -> (FaceFinder, FaceBench) {
    let (sender, items) = mpsc::channel(queue_max);
    (FaceFinder { items: sender, waiting: metrics.queues.queue("faces", queue_max) }, FaceBench { items })
}

impl FaceFinder {
    /// The faces of a frame, most confident first. A caller that goes away while it waits costs nothing. The frame's
    /// share of the batch it is in counts as its job's time; the waiting does not.
    pub(crate) async fn find(
        &self,
        frame: Arc<Frame>,
        job_time: &Stopwatch,
    ) -> Result<Vec<DetectedFace>, NotFound> {
        let place = self.items.reserve().await.map_err(|_| NotFound::Interrupted)?;
        let (reply, answer) = oneshot::channel();
        place.send(Item { frame, reply, queued: self.waiting.enter(), job_time: job_time.clone() });
        answer.await.unwrap_or(Err(NotFound::Interrupted))
    }
}

/// Loads the detector on the thread that owns it, tells its name, and works until no more frames come.
pub(crate) fn run(
    factory: FaceFactory,
    gate: Gate,
    metrics: Metrics,
    (loaded, mut bench): (oneshot::Sender<String>, FaceBench),
) -> Result<(), Exit> {
    let mut detector = factory()?;
    gate.ready();
    if loaded.send(detector.name().to_owned()).is_err() {
        return Ok(());
    }
    let most = detector.batch_max().max(1);
    while let Some(first) = bench.items.blocking_recv() {
        let mut items = vec![first];
        while items.len() < most
            && let Ok(item) = bench.items.try_recv()
        {
            items.push(item);
        }
        items.retain(|item| !item.reply.is_closed());
        if let Err(exit) = detect(&mut *detector, items, &metrics) {
            gate.not_ready(exit.why.clone());
            return Err(exit);
        }
    }
    Ok(())
}

fn detect(detector: &mut dyn FaceDetector, items: Vec<Item>, metrics: &Metrics) -> Result<(), Exit> {
    if items.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let (mut frames, mut replies) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for Item { frame, reply, queued, job_time } in items {
        drop(queued);
        frames.push(frame);
        replies.push((reply, job_time));
    }
    let views: Vec<&Frame> = frames.iter().map(|frame| &**frame).collect();
    let answered = resilient::answer(views.len(), &mut |part| detector.detect(&views[part]));
    let answered = answered.map_err(|fault| device::exit("face detector", &fault, metrics))?;
    metrics.invalid_outputs.inc_by(u64::from(answered.non_finite));
    let took = began.elapsed();
    metrics.stages.faces.observe(took.as_secs_f64());
    let share = took / u32::try_from(replies.len()).unwrap_or(u32::MAX).max(1);
    // The jobs count their frames' memory until they have the answer.
    drop(frames);
    for ((reply, job_time), faces) in replies.into_iter().zip(answered.items) {
        job_time.add(share);
        // Whoever went away meanwhile does not want it.
        drop(reply.send(faces.ok_or(NotFound::Invalid)));
    }
    Ok(())
}
