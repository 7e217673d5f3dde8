//! Weights that any program can rebuild from a word: for parity with the published code, tests, and a fleet
//! that has no trained weights yet.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::architecture::Architecture;
use super::scope::{Entry, Role};
use super::srm;
use super::weights::{TwoStreamWeights, WeightsError, entries};

impl TwoStreamWeights {
    /// The weights that `salt` stands for: a fixed function of salt, official name and index.
    pub fn seeded(architecture: Architecture, salt: &str) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for entry in entries(architecture) {
            let tensor = match entry.role {
                Role::Counter => Tensor::f_zeros(&entry.shape, (Kind::Int64, Device::Cpu))?,
                Role::Filter => srm::published_kernel(&entry.shape)?,
                Role::Parameter | Role::Statistic => {
                    Tensor::f_from_slice(&values(&entry, salt))?.f_view(entry.shape.as_slice())?
                }
            };
            tensors.insert(entry.name, tensor);
        }
        Self::from_tensors(tensors, architecture)
    }
}

fn values(entry: &Entry, salt: &str) -> Vec<f32> {
    let start = fnv1a(format!("{salt}/{}", entry.name).as_bytes());
    let count = entry.shape.iter().product::<i64>() as u64;
    let leaf = entry.name.rsplit('.').next().unwrap_or_default();
    let (offset, scale) = match leaf {
        "running_mean" => (0.0, 0.1),
        "running_var" => (1.0, 0.5),
        "gamma1" | "gamma2" => (0.6, 0.2),
        _ if entry.shape.len() >= 2 => {
            let fan_in = entry.shape[1..].iter().product::<i64>();
            (0.0, (3.0 / fan_in as f64).sqrt() as f32)
        }
        "weight" => (1.0, 0.25),
        _ => (0.0, 0.1),
    };
    (0..count).map(|index| offset + scale * uniform(start, index)).collect()
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// SplitMix64 of the index-th step from `start`, as a value in [−1, 1) that f32 holds exactly.
fn uniform(start: u64, index: u64) -> f32 {
    let mut z = start.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 * 2f32.powi(-23) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draw_is_a_fixed_function_within_its_range() {
        // FNV-1a's published test vector, and the range of the draw.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let draws: Vec<f32> = (0..4096).map(|index| uniform(fnv1a(b"salt/name"), index)).collect();
        assert!(draws.iter().all(|draw| (-1.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        assert!(mean.abs() < 0.05, "mean {mean}");
    }
}
