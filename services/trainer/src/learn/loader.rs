//! Batches of training samples, made ahead of the device.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use forensics::CROP_SIDE;
use tch::{Kind, Tensor};

use crate::ahead::Ahead;
use crate::forge::pairs::{MAP_SIDE, Pairs};

/// One step's samples: faces first, then their forgeries in the same order.
pub(crate) struct Batch {
    /// `[2·pairs, 256, 256, 3]` u8.
    pub(crate) pixels: Tensor,
    /// `[2·pairs]` int64: 0 authentic, 1 forged.
    pub(crate) labels: Tensor,
    /// `[2·pairs, 8, 8]` f32: the share of each cell's pixels that the forgery changed; −1 where nobody knows.
    pub(crate) changed: Tensor,
}

/// The batches of a range of steps, in their order.
pub(crate) struct Loader {
    ahead: Ahead<Samples>,
    pairs: usize,
}

impl Loader {
    /// Batches for `steps`, of `pairs` faces and as many forgeries.
    pub(crate) fn start(source: &Pairs, steps: Range<u64>, pairs: usize, threads: usize) -> Result<Self> {
        let source = source.clone();
        Ok(Self { ahead: Ahead::start(steps, threads, move |step| samples(&source, step, pairs))?, pairs })
    }

    /// The next step's batch.
    pub(crate) fn next(&mut self) -> Result<Batch> {
        let Samples { pixels, changed } = self.ahead.next()?;
        let (side, pairs) = (CROP_SIDE as i64, self.pairs as i64);
        let pixels = Tensor::f_from_data_size(&pixels, &[2 * pairs, side, side, 3], Kind::Uint8)?;
        let labels: Vec<i64> = (0..2 * pairs).map(|place| i64::from(place >= pairs)).collect();
        let side = MAP_SIDE as i64;
        let changed = Tensor::f_from_slice(&changed)?.f_view([2 * pairs, side, side])?;
        Ok(Batch { pixels, labels: Tensor::f_from_slice(&labels)?, changed })
    }

    /// How long the device had to wait for batches so far.
    pub(crate) fn waited(&self) -> Duration {
        self.ahead.waited()
    }
}

/// A batch before it is tensors.
struct Samples {
    pixels: Vec<u8>,
    changed: Vec<f32>,
}

fn samples(source: &Pairs, step: u64, pairs: usize) -> Result<Samples> {
    let (mut authentic, mut forged) = (Vec::new(), Vec::new());
    let mut changed = vec![0.0; pairs * MAP_SIDE * MAP_SIDE];
    for place in 0..pairs as u64 {
        let pair = source.learned(step * pairs as u64 + place)?;
        authentic.extend(pair.authentic);
        forged.extend(pair.forged);
        changed.extend(pair.changed);
    }
    authentic.extend(forged);
    Ok(Samples { pixels: authentic, changed })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::faces::tests::painted;

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
        assert_eq!(batch.changed.size(), [4, 8, 8]);
        let changed: Vec<f64> =
            Vec::try_from(batch.changed.sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Double)).unwrap();
        assert!(changed[..2] == [0.0; 2] && changed[2..].iter().all(|sum| *sum > 0.0), "{changed:?}");
        assert!(loader.next().is_err(), "there is no second step");
    }

    #[test]
    fn nobody_knows_where_a_given_forgery_is() {
        let source = Pairs::new(Arc::new(painted(5)), (0..4).collect(), 11).with_given(vec![4]);
        let mut loader = Loader::start(&source, 0..1, 16, 1).unwrap();
        let changed = loader.next().unwrap().changed;
        assert!(changed.narrow(0, 0, 16).equal(&changed.narrow(0, 0, 16).zeros_like()));
        let is_given = |pair: i64| changed.get(16 + pair).equal(&changed.get(0).full_like(-1.0));
        let given = (0..16).filter(|&pair| is_given(pair)).count();
        let known =
            (0..16).filter(|&pair: &i64| f64::try_from(changed.get(16 + pair).min()).unwrap() >= 0.0).count();
        assert!(given > 0 && known > 0 && given + known == 16, "{given} {known}");
    }
}
