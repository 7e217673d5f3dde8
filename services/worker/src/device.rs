//! The device thread: sole owner of the forgery detector.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forensics::{Calibration, CropBatch, ForgeryDetector, Logit, ModelIdentity, Preprocessing, Thresholds};
use ops::{Exit, ExitReason, Failpoints, Gate};
use tokio::sync::oneshot;

use crate::batcher::{DeviceSeat, PackedBatch};
use crate::engine::ForgeryFactory;
use crate::metrics::Metrics;
use crate::resilient::{self, EngineFault};

/// So many invalid outputs within [`INVALID_WINDOW`] put the device to the test.
const INVALID_MAX: usize = 3;

/// See [`INVALID_MAX`]: three a minute, as the fault matrix has it.
const INVALID_WINDOW: Duration = Duration::from_secs(60);

/// What the detector says about itself, once it is loaded and has passed its self-test.
#[derive(Debug, Clone)]
pub(crate) struct DetectorFacts {
    pub(crate) identity: ModelIdentity,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) calibration: Calibration,
    pub(crate) thresholds: Option<Thresholds>,
    pub(crate) batch_max: usize,
}

/// Loads the detector on the thread that will own it. The gate is ready when the self-test has passed.
pub(crate) fn load(
    factory: ForgeryFactory,
    gate: Gate,
    metrics: Metrics,
    failpoints: Failpoints,
) -> Result<(Device, DetectorFacts), Exit> {
    let mut detector = factory()?;
    detector.self_test().map_err(|error| {
        gate.not_ready(error.to_string());
        ExitReason::Refused.because(format_args!("model {}: {error}", detector.identity().name))
    })?;
    let facts = DetectorFacts {
        identity: detector.identity().clone(),
        preprocessing: detector.preprocessing().clone(),
        calibration: detector.calibration(),
        thresholds: detector.thresholds(),
        batch_max: detector.batch_max(),
    };
    gate.ready();
    Ok((Device { detector, gate, metrics, failpoints, invalid: VecDeque::new() }, facts))
}

/// Loads the detector, tells about it, waits for its seat and works until there are no more batches.
pub(crate) fn run(
    factory: ForgeryFactory,
    gate: Gate,
    metrics: Metrics,
    failpoints: Failpoints,
    (loaded, seat): (oneshot::Sender<DetectorFacts>, oneshot::Receiver<DeviceSeat>),
) -> Result<(), Exit> {
    let (mut device, facts) = load(factory, gate, metrics, failpoints)?;
    // Nobody listens, or no seat comes: the start was given up.
    if loaded.send(facts).is_err() {
        return Ok(());
    }
    match seat.blocking_recv() {
        Ok(seat) => device.work(&seat),
        Err(_) => Ok(()),
    }
}

/// A loaded detector at work.
pub(crate) struct Device {
    detector: Box<dyn ForgeryDetector>,
    gate: Gate,
    metrics: Metrics,
    failpoints: Failpoints,
    /// When outputs were invalid lately.
    invalid: VecDeque<Instant>,
}

impl Device {
    /// Scores batches until there are no more.
    pub(crate) fn work(&mut self, seat: &DeviceSeat) -> Result<(), Exit> {
        while let Some(batch) = seat.next() {
            let pixels = self.score(seat, batch)?;
            seat.give_back(pixels);
        }
        Ok(())
    }

    fn score(&mut self, seat: &DeviceSeat, batch: PackedBatch) -> Result<CropBatch, Exit> {
        let (began, count) = (Instant::now(), batch.pixels.count());
        let detector = &mut self.detector;
        let mut engine = |part: std::ops::Range<usize>| {
            if part.len() == count {
                detector.score(&batch.pixels)
            } else {
                detector.score(&batch.pixels.slice(part.start, part.len()))
            }
        };
        self.failpoints.reach("scoring");
        let answered = match resilient::answer::<Logit>(count, &mut engine) {
            Ok(answered) => answered,
            Err(fault) => return Err(self.give_up(&fault)),
        };
        if answered.halved > 0 {
            let fits = (count >> answered.halved.min(3)).max(1);
            let class = self.metrics.device_faults.with_label_values(&["out_of_memory"]);
            class.inc_by(u64::from(answered.halved));
            tracing::warn!(batch = count, fits, "device out of memory: batches are smaller from now on");
            seat.lower_size_max(fits);
        }
        let pixels = batch.answer(answered.items, began, began.elapsed(), &self.metrics);
        self.metrics.stages.score.observe(began.elapsed().as_secs_f64());
        self.mistrust(answered.non_finite)?;
        Ok(pixels)
    }

    /// Too many outputs that are no numbers: the device has to show the golden scores, or is not used any more.
    fn mistrust(&mut self, non_finite: u32) -> Result<(), Exit> {
        if non_finite == 0 {
            return Ok(());
        }
        self.metrics.invalid_outputs.inc_by(u64::from(non_finite));
        self.metrics.device_faults.with_label_values(&["non_finite"]).inc_by(u64::from(non_finite));
        let now = Instant::now();
        self.invalid.extend((0..non_finite).map(|_| now));
        while self.invalid.front().is_some_and(|at| now.duration_since(*at) > INVALID_WINDOW) {
            self.invalid.pop_front();
        }
        if self.invalid.len() < INVALID_MAX {
            return Ok(());
        }
        self.invalid.clear();
        self.gate.not_ready("self-test after invalid outputs");
        tracing::warn!("the network gave {INVALID_MAX} invalid outputs within a minute: self-test");
        match self.detector.self_test() {
            Ok(()) => {
                self.gate.ready();
                Ok(())
            }
            Err(error) => {
                self.gate.not_ready(error.to_string());
                self.metrics.device_faults.with_label_values(&["self_test"]).inc();
                Err(ExitReason::Bug.because(format_args!("device quarantined: {error}")))
            }
        }
    }

    fn give_up(&self, fault: &EngineFault) -> Exit {
        self.gate.not_ready(fault.to_string());
        exit("forgery detector", fault, &self.metrics)
    }
}

/// The exit for an engine that is done for: a device that is full may be empty after a restart, a broken one
/// needs a person.
pub(crate) fn exit(engine: &str, fault: &EngineFault, metrics: &Metrics) -> Exit {
    let (class, reason) = match fault {
        EngineFault::OutOfMemory { .. } => ("out_of_memory", ExitReason::Temporary),
        EngineFault::Broken(_) => ("device", ExitReason::Bug),
    };
    metrics.device_faults.with_label_values(&[class]).inc();
    reason.because(format_args!("{engine}: {fault}"))
}
