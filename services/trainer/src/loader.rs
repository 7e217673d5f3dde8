//! Batches ahead of the device: made on threads of their own, handed over in the order of the steps.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use forensics::CROP_SIDE;
use tch::{Kind, Tensor};

use crate::pairs::Pairs;

/// One step's samples: faces first, then their forgeries in the same order.
pub(crate) struct Batch {
    /// `[2·pairs, 256, 256, 3]` u8.
    pub(crate) pixels: Tensor,
    /// `[2·pairs]` int64: 0 authentic, 1 forged.
    pub(crate) labels: Tensor,
}

/// Makes batches ahead; dropped, its threads end with the batch they are at.
pub(crate) struct Loader {
    /// Thread i makes the steps that are i modulo their number.
    threads: Vec<Receiver<Result<Vec<u8>>>>,
    pairs: usize,
    next: u64,
    first: u64,
    waited: Duration,
}

/// Finished batches that wait for each thread's turn.
const AHEAD: usize = 2;

impl Loader {
    /// Batches for `steps`, of `pairs` faces and as many forgeries.
    pub(crate) fn start(source: &Pairs, steps: Range<u64>, pairs: usize, threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let start = |thread: usize| -> Result<_> {
            let (send, receive) = sync_channel(AHEAD);
            let (source, steps) = (source.clone(), steps.clone());
            let make = move || {
                for step in steps.skip(thread).step_by(threads) {
                    let batch = pixels(&source, step, pairs);
                    let failed = batch.is_err();
                    if send.send(batch).is_err() || failed {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("forge-{thread}"))
                .spawn(make)
                .context("a thread for the forge")?;
            Ok(receive)
        };
        let threads = (0..threads).map(start).collect::<Result<_>>()?;
        Ok(Self { threads, pairs, next: steps.start, first: steps.start, waited: Duration::ZERO })
    }

    /// The next step's batch.
    pub(crate) fn next(&mut self) -> Result<Batch> {
        let thread = (self.next - self.first) as usize % self.threads.len();
        let asked = Instant::now();
        let bytes = self.threads[thread].recv().map_err(|_| anyhow!("a thread of the forge ended"))??;
        self.waited += asked.elapsed();
        self.next += 1;
        let (side, pairs) = (CROP_SIDE as i64, self.pairs as i64);
        let pixels = Tensor::f_from_data_size(&bytes, &[2 * pairs, side, side, 3], Kind::Uint8)?;
        let labels: Vec<i64> = (0..2 * pairs).map(|place| i64::from(place >= pairs)).collect();
        Ok(Batch { pixels, labels: Tensor::f_from_slice(&labels)? })
    }

    /// How long the device had to wait for batches so far.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

fn pixels(source: &Pairs, step: u64, pairs: usize) -> Result<Vec<u8>> {
    let (mut authentic, mut forged) = (Vec::new(), Vec::new());
    for place in 0..pairs as u64 {
        let pair = source.learned(step * pairs as u64 + place)?;
        authentic.extend(pair.authentic);
        forged.extend(pair.forged);
    }
    authentic.extend(forged);
    Ok(authentic)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::faces::tests::painted;

    fn batches(source: &Pairs, steps: Range<u64>, threads: usize) -> Vec<Tensor> {
        let mut loader = Loader::start(source, steps.clone(), 2, threads).unwrap();
        steps.map(|_| loader.next().unwrap().pixels).collect()
    }

    #[test]
    fn batches_depend_on_their_step_alone() {
        let source = Pairs::new(Arc::new(painted(5)), (0..5).collect(), 11);
        let one = batches(&source, 0..5, 1);
        assert_eq!(one, batches(&source, 0..5, 3), "more threads");
        assert_eq!(one[2..], batches(&source, 2..5, 2), "a start in the middle");
        assert_ne!(one[0], one[1]);
        let mut loader = Loader::start(&source, 0..1, 2, 1).unwrap();
        let batch = loader.next().unwrap();
        assert_eq!(batch.pixels.size(), [4, 256, 256, 3]);
        assert_eq!(batch.labels, Tensor::from_slice(&[0i64, 0, 1, 1]));
        assert!(loader.next().is_err(), "there is no second step");
    }
}
