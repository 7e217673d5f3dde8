//! Crops of many media become batches: the packing thread copies them side by side while the device works on
//! the batch before, and hands over what it has the moment the device is free. No batch lingers for more.

mod packing;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forensics::{CropBatch, Lane, Logit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics::Metrics;
use packing::{OpenBatch, Ticket, Waiting};

/// One crop's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    pub(crate) logit: Logit,
    /// From the door of this room to the start of its batch.
    pub(crate) waited: Duration,
    /// The batch's time on the device.
    pub(crate) inference: Duration,
    /// This crop's share of it.
    pub(crate) device_time: Duration,
}

/// Why a crop has no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unscored {
    /// The network's output is not a number, twice.
    Invalid,
    /// The worker is going down; the media will be examined by another.
    Interrupted,
}

/// A crop on its way to the device.
pub(crate) struct Crop {
    /// `[256, 256, 3]`; empty once copied into a batch.
    pixels: Box<[u8]>,
    live: bool,
    since: Instant,
    reply: oneshot::Sender<Result<Scored, Unscored>>,
    _room: OwnedSemaphorePermit,
}

impl Ticket for Crop {
    fn is_live(&self) -> bool {
        self.live
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A batch that is ready for the device.
pub(crate) struct PackedBatch {
    pub(crate) pixels: CropBatch,
    crops: Vec<Crop>,
    reason: packing::CloseReason,
}

impl PackedBatch {
    /// Answers every crop; gives the share of device time that nobody wanted any more.
    pub(crate) fn answer(
        self,
        logits: Vec<Option<Logit>>,
        began: Instant,
        inference: Duration,
        metrics: &Metrics,
    ) -> CropBatch {
        let count = u32::try_from(self.crops.len()).unwrap_or(u32::MAX).max(1);
        let device_time = inference / count;
        metrics.batch_size.observe(f64::from(count));
        metrics.batch_close.with_label_values(&[self.reason.as_str()]).inc();
        metrics.device_busy.inc_by(inference.as_secs_f64());
        for (crop, logit) in self.crops.into_iter().zip(logits) {
            let waited = began.saturating_duration_since(crop.since);
            metrics.batch_wait.observe(waited.as_secs_f64());
            let scored = logit.map(|logit| Scored { logit, waited, inference, device_time });
            if crop.reply.send(scored.ok_or(Unscored::Invalid)).is_err() {
                metrics.wasted_device.inc_by(device_time.as_secs_f64());
            }
        }
        self.pixels
    }
}

/// Where jobs bring their crops, the packing thread packs them, and the device thread fetches batches.
struct Desk {
    /// Guards the few fields below; pixels are copied outside.
    state: Mutex<State>,
    for_packer: Condvar,
    for_device: Condvar,
}

struct State {
    waiting: Waiting<Crop>,
    device_waits: bool,
    packed: Option<PackedBatch>,
    /// Buffers that came back from the device; two circulate.
    spare: Vec<CropBatch>,
    size_max: usize,
    /// No more crops will come.
    closed: bool,
    /// Packer or device are gone: crops are turned away.
    broken: bool,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.for_packer.notify_all();
        self.for_device.notify_all();
    }

    fn break_down(&self) {
        self.shut(|state| {
            state.broken = true;
            // Dropping the replies tells the jobs.
            state.waiting.clear();
        });
    }
}

/// Makes the three ends of the room: for jobs, for the packing thread, for the device thread. Batches hold at
/// most `size_max` crops; twice as many more may wait.
pub(crate) fn room(size_max: usize, metrics: Metrics) -> (Scorer, Packer, DeviceSeat) {
    let size_max = size_max.max(1);
    let state = State {
        waiting: Waiting::new(),
        device_waits: false,
        packed: None,
        spare: (0..2).map(|_| CropBatch::with_capacity(size_max)).collect(),
        size_max,
        closed: false,
        broken: false,
    };
    let desk =
        Arc::new(Desk { state: Mutex::new(state), for_packer: Condvar::new(), for_device: Condvar::new() });
    let capacity = 2 * size_max;
    let depth = metrics.queues.queue("score", capacity);
    let scorer = Scorer { desk: Arc::clone(&desk), places: Arc::new(Semaphore::new(capacity)), depth };
    (scorer, Packer { desk: Arc::clone(&desk) }, DeviceSeat { desk })
}

/// The jobs' end. When it is dropped the room finishes what waits and ends.
pub(crate) struct Scorer {
    desk: Arc<Desk>,
    places: Arc<Semaphore>,
    depth: ops::metrics::Queue,
}

impl Scorer {
    /// Brings a crop, `[256, 256, 3]`, as soon as there is a place; the answer comes through the receiver.
    /// A receiver that is dropped abandons the crop.
    pub(crate) async fn bring(
        &self,
        pixels: Box<[u8]>,
        lane: Lane,
    ) -> oneshot::Receiver<Result<Scored, Unscored>> {
        let since = Instant::now();
        let room = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let (reply, answer) = oneshot::channel();
        let crop = Crop { pixels, live: lane == Lane::Live, since, reply, _room: room };
        {
            let mut state = self.desk.state();
            if !state.broken {
                state.waiting.push(crop);
                self.depth.set_depth(state.waiting.len());
            }
        }
        self.desk.for_packer.notify_one();
        answer
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        self.desk.shut(|state| state.closed = true);
    }
}

/// The packing thread's end.
pub(crate) struct Packer {
    desk: Arc<Desk>,
}

impl Packer {
    /// Packs until no more crops come.
    pub(crate) fn pack(self) {
        let mut open = OpenBatch::new();
        let mut pixels = CropBatch::default();
        loop {
            let mut state = self.desk.state();
            loop {
                if state.broken || (state.closed && state.waiting.is_empty() && open.is_empty()) {
                    return;
                }
                let room = open.has_room(state.size_max) && !state.waiting.is_empty();
                if room || (state.device_waits && !open.is_empty()) {
                    break;
                }
                state = self.desk.for_packer.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let size_max = state.size_max;
            let first = open.take_from(&mut state.waiting, size_max);
            drop(state);
            for crop in open.tickets_from(first) {
                let copied = pixels.push(&std::mem::take(&mut crop.pixels));
                assert!(copied, "a crop is made of 256 x 256 pixels");
            }
            let mut state = self.desk.state();
            if state.device_waits && !open.is_empty() {
                let (crops, reason) = open.close(size_max);
                let full = std::mem::replace(&mut pixels, state.spare.pop().unwrap_or_default());
                state.packed = Some(PackedBatch { pixels: full, crops, reason });
                state.device_waits = false;
                self.desk.for_device.notify_one();
            }
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        // Orderly or not: without a packer no crop gets any further. A batch that was handed over does.
        self.desk.break_down();
    }
}

/// The device thread's end.
pub(crate) struct DeviceSeat {
    desk: Arc<Desk>,
}

impl DeviceSeat {
    /// Waits for the next batch; `None` when there will be none.
    pub(crate) fn next(&self) -> Option<PackedBatch> {
        let mut state = self.desk.state();
        state.device_waits = true;
        self.desk.for_packer.notify_one();
        loop {
            if let Some(batch) = state.packed.take() {
                return Some(batch);
            }
            if state.broken {
                return None;
            }
            state = self.desk.for_device.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives a batch's memory back for another one.
    pub(crate) fn give_back(&self, mut pixels: CropBatch) {
        pixels.clear();
        let mut state = self.desk.state();
        if state.spare.len() < 2 {
            state.spare.push(pixels);
        }
    }

    /// Batches hold at most so many crops from now on.
    pub(crate) fn lower_size_max(&self, size_max: usize) {
        let mut state = self.desk.state();
        state.size_max = state.size_max.min(size_max.max(1));
    }
}

impl Drop for DeviceSeat {
    fn drop(&mut self) {
        self.desk.break_down();
        self.desk.state().packed = None;
    }
}

#[cfg(test)]
mod tests;
