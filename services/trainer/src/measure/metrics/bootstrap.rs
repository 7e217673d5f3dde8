//! How far a number would move with other people in the pictures: the bootstrap over identities.

use std::collections::BTreeMap;
use std::thread;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{Ranking, Scored};

/// A number with its 95 % interval: `low ≤ value ≤ high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of the scores as they are.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How often to resample, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// Resamples; 1000 leave 25 beyond either end of the interval (Efron & Tibshirani, 1993, § 13.3).
    pub count: usize,
    /// The same seed gives the same interval.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { count: 1000, seed: 0 }
    }
}

/// Share of the resamples that must define the statistic (chosen): an interval of the rest would flatter.
const DEFINED_MIN: f64 = 0.95;

/// `statistic` with its percentile interval over resampled identities. `None` where the scores, or more than one in
/// twenty resamples, do not define it, or where there are no two identities to resample.
///
/// Where resampling shifts a statistic (it raises the calibration error, whose noise adds up), the interval is widened
/// to hold the value.
pub fn bootstrap(
    scored: &[Scored],
    statistic: impl Fn(&Ranking) -> Option<f64> + Sync,
    resampling: Resampling,
) -> Option<Estimate> {
    let ranking = Ranking::new(scored);
    let value = statistic(&ranking)?;
    let mut numbers = BTreeMap::new();
    for scored in &ranking.scored {
        let next = numbers.len();
        numbers.entry(scored.identity).or_insert(next);
    }
    if numbers.len() < 2 || resampling.count == 0 {
        return None;
    }
    let clusters = Clusters {
        of: ranking.scored.iter().map(|scored| numbers[&scored.identity]).collect(),
        count: numbers.len(),
    };
    let mut found = replicates(&ranking, &clusters, &statistic, resampling);
    if (found.len() as f64) < DEFINED_MIN * resampling.count as f64 {
        return None;
    }
    found.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&found, 0.025), quantile(&found, 0.975));
    Some(Estimate { value, low: low.min(value), high: high.max(value) })
}

/// The identity of each score of a ranking, numbered from 0.
struct Clusters {
    of: Vec<usize>,
    count: usize,
}

impl Clusters {
    /// How often each identity is drawn in resample `index`: a ChaCha stream of its own, so that neither the number of
    /// threads nor of resamples changes it.
    fn draw(&self, seed: u64, index: usize) -> Vec<f64> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(index as u64);
        let mut drawn = vec![0.0; self.count];
        for _ in 0..self.count {
            // The high word of a product with a uniform 64-bit number is uniform to 2⁻⁶⁴ · count (Lemire, 2019).
            let at = (u128::from(generator.next_u64()) * self.count as u128) >> 64;
            drawn[at as usize] += 1.0;
        }
        drawn
    }
}

/// The statistic of every resample that defines it.
fn replicates(
    ranking: &Ranking,
    clusters: &Clusters,
    statistic: &(impl Fn(&Ranking) -> Option<f64> + Sync),
    resampling: Resampling,
) -> Vec<f64> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(resampling.count);
    let share = |first: usize| {
        let mut resample = ranking.clone();
        let mut found = Vec::new();
        for index in (first..resampling.count).step_by(threads) {
            let drawn = clusters.draw(resampling.seed, index);
            for (weight, &cluster) in resample.weights.iter_mut().zip(&clusters.of) {
                *weight = drawn[cluster];
            }
            found.extend(statistic(&resample));
        }
        found
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<f64>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().flat_map(join).collect()
    })
}

/// Of sorted values, by linear interpolation (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
