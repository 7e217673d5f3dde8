//! Chance as a function: the same seed, purpose and index give the same numbers, on every machine and after every resume.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// A stream of random numbers that (seed, purpose, index) stand for.
pub(crate) struct Draw(ChaCha8Rng);

/// What numbers are drawn for; purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A training pair.
    Pair = 1,
    /// The order of an epoch.
    Order = 2,
    /// A sample of an evaluation.
    Evaluation = 3,
    /// The grain of a picture.
    Noise = 4,
    /// A training pair whose forgery was given.
    Given = 5,
}

impl Draw {
    pub(crate) fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = purpose as u8;
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(index);
        Self(generator)
    }

    /// In [0, 1), on a grid of 2⁻²⁴.
    fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// In [low, high).
    pub(crate) fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Between −most and most.
    pub(crate) fn around_zero(&mut self, most: f32) -> f32 {
        self.within(-most, most)
    }

    /// True with that probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Below `count`, which must not be 0. The bias of 2⁻³² is far below what training can see.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u64::from(self.0.next_u32()) * count as u64) >> 32) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Nearly normal, mean 0, variance 1, within ±6 (the sum of twelve; good enough for noise, and cheap).
    pub(crate) fn normal(&mut self) -> f32 {
        // Twelve 16-bit numbers out of three 64-bit ones.
        let mut sum = 0u64;
        for _ in 0..3 {
            let bits = self.0.next_u64();
            sum += (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        }
        sum as f32 / 65536.0 - 6.0
    }

    /// The numbers 0 to `count` − 1 in random order (Fisher–Yates).
    pub(crate) fn order(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for place in (1..count).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_a_fixed_function_of_seed_purpose_and_index() {
        let numbers = |seed, purpose, index| {
            let mut draw = Draw::new(seed, purpose, index);
            [draw.unit(), draw.unit(), draw.unit()]
        };
        let first = numbers(7, Purpose::Pair, 3);
        assert_eq!(first, numbers(7, Purpose::Pair, 3));
        for other in [(8, Purpose::Pair, 3), (7, Purpose::Order, 3), (7, Purpose::Pair, 4)] {
            assert_ne!(first, numbers(other.0, other.1, other.2));
        }
    }

    #[test]
    fn moments_are_those_of_their_names() {
        let mut draw = Draw::new(1, Purpose::Pair, 0);
        let normals: Vec<f32> = (0..20_000).map(|_| draw.normal()).collect();
        let mean = normals.iter().sum::<f32>() / normals.len() as f32;
        let variance = normals.iter().map(|x| x * x).sum::<f32>() / normals.len() as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..1000).all(|_| (2.0..3.0).contains(&draw.within(2.0, 3.0)) && draw.below(7) < 7));
        let mut order = draw.order(100);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..100));
    }
}
