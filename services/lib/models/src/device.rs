//! What the network runs on, and in which arithmetic.

use std::str::FromStr;

use forensics::{DetectorError, DeviceClass, Precision};
use tch::{Cuda, Device, Kind, TchError};

use crate::process;

/// What to run on, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Which device.
    pub device: DeviceChoice,
    /// Which arithmetic.
    pub precision: PrecisionChoice,
    /// Threads of one operation on a CPU; 0 takes one for each core.
    pub threads: usize,
    /// Crops in a batch at most; 0 takes what suits the device.
    pub batch_max: usize,
}

/// Which device: `auto`, `cpu` or `cuda:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if there is one, the CPU otherwise.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of that number.
    Cuda(usize),
}

/// Which arithmetic: `auto`, `f32` or `bf16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// bf16 where the hardware multiplies it, f32 elsewhere.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16, on whatever hardware.
    Bf16,
}

/// A device that is there, with the arithmetic chosen for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
}

/// Why the configured device is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The configuration names no device or arithmetic.
    #[error("{found:?} is none of {known}")]
    Unknown {
        /// What was configured.
        found: String,
        /// What there is.
        known: &'static str,
    },
    /// The configured GPU is not there.
    #[error("device cuda:{index} is configured, and this process sees {count} GPUs")]
    Absent {
        /// The configured number.
        index: usize,
        /// GPUs that libtorch sees.
        count: i64,
    },
}

/// Crops in a batch on a CPU: larger ones gain nothing (measured 2026-11-24, see the network bench) and only make the
/// first verdict later.
const CPU_BATCH_MAX: usize = 8;
/// Crops in a batch on a GPU where memory allows: its multiprocessors are full long before (chosen).
const CUDA_BATCH_MAX: usize = 256;

impl Default for DeviceConfig {
    fn default() -> Self {
        Self { device: DeviceChoice::Auto, precision: PrecisionChoice::Auto, threads: 0, batch_max: 0 }
    }
}

impl DeviceConfig {
    /// Finds the device, sets libtorch's threads, and says in the log what was chosen and why.
    pub fn open(&self) -> Result<Placement, DeviceError> {
        process::prepare_libraries();
        let gpus = Cuda::device_count();
        let device = match self.device {
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Auto if gpus > 0 => Device::Cuda(0),
            DeviceChoice::Auto => Device::Cpu,
            DeviceChoice::Cuda(index) if (index as i64) < gpus => Device::Cuda(index),
            DeviceChoice::Cuda(index) => return Err(DeviceError::Absent { index, count: gpus }),
        };
        let (kind, why) = self.kind_on(device);
        if device == Device::Cpu {
            let threads = match self.threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                configured => configured,
            };
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let placement = Placement { device, kind };
        tracing::info!(
            device = placement.class().as_str(),
            precision = placement.precision().as_str(),
            threads = tch::get_num_threads(),
            gpus,
            "device chosen: {why}"
        );
        Ok(placement)
    }

    fn kind_on(&self, device: Device) -> (Kind, &'static str) {
        match (self.precision, device) {
            (PrecisionChoice::F32, _) => (Kind::Float, "f32 is configured"),
            (PrecisionChoice::Bf16, _) => (Kind::BFloat16, "bf16 is configured"),
            (PrecisionChoice::Auto, Device::Cpu) if !cpu_has_bf16() => {
                (Kind::Float, "f32, since this CPU has neither AVX512-BF16 nor AMX")
            }
            (PrecisionChoice::Auto, _) => (Kind::BFloat16, "bf16, since the hardware multiplies it"),
        }
    }

    /// The largest batch to try on `placement`.
    pub(crate) fn batch_limit(&self, placement: &Placement) -> usize {
        match (self.batch_max, placement.class()) {
            (0, DeviceClass::Cpu) => CPU_BATCH_MAX,
            (0, DeviceClass::Cuda) => CUDA_BATCH_MAX,
            (configured, _) => configured,
        }
    }
}

impl Placement {
    /// The device itself.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The arithmetic chosen for it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The kind of device, as verdicts name it.
    pub fn class(&self) -> DeviceClass {
        if self.device.is_cuda() { DeviceClass::Cuda } else { DeviceClass::Cpu }
    }

    /// The arithmetic, as verdicts name it.
    pub fn precision(&self) -> Precision {
        if self.kind == Kind::BFloat16 { Precision::Bf16 } else { Precision::F32 }
    }
}

/// Whether this CPU multiplies bf16 in hardware. Without it bf16 is emulated, and slower than f32. (Every CPU with AMX
/// has AVX512-BF16 too, so one question is enough.)
pub fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// libtorch's error as what the caller does next.
pub(crate) fn detector_error(error: &TchError, batch: usize) -> DetectorError {
    let detail = brief(error);
    // The words of the CUDA allocator, of cuBLAS and cuDNN, and of the CPU allocator in libtorch 2.11.
    let exhausted = ["out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory"];
    if exhausted.iter().any(|words| detail.contains(words)) {
        DetectorError::OutOfMemory { batch, detail }
    } else {
        DetectorError::Device(detail)
    }
}

/// libtorch's own words, without the C++ stack that follows them.
pub(crate) fn brief(error: &TchError) -> String {
    let text = error.to_string();
    let end = text.find("\nException raised from").unwrap_or(text.len());
    text[..end].trim_end().to_owned()
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { found: text.to_owned(), known: "auto, cpu, cuda:0" };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                index.map(Self::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl FromStr for PrecisionChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(DeviceError::Unknown { found: text.to_owned(), known: "auto, f32, bf16" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_the_configuration() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert!("tpu".parse::<DeviceChoice>().unwrap_err().to_string().contains("tpu"));
        assert_eq!("bf16".parse(), Ok(PrecisionChoice::Bf16));
        assert!("f64".parse::<PrecisionChoice>().is_err());
    }

    #[test]
    fn an_absent_gpu_is_an_error_and_not_the_cpu() {
        let config = DeviceConfig { device: DeviceChoice::Cuda(99), ..DeviceConfig::default() };
        assert!(matches!(config.open(), Err(DeviceError::Absent { index: 99, .. })));
    }

    #[test]
    fn exhausted_memory_is_told_from_a_broken_device() {
        let error = |text: &str| detector_error(&TchError::Torch(text.to_owned()), 64);
        let full = error("CUDA out of memory. Tried to allocate 2.00 GiB\nException raised from malloc at x");
        let DetectorError::OutOfMemory { batch: 64, detail } = full else { panic!("{full:?}") };
        assert!(!detail.contains("Exception raised"));
        assert!(matches!(
            error("DefaultCPUAllocator: can't allocate memory: you tried"),
            DetectorError::OutOfMemory { .. }
        ));
        assert!(matches!(error("CUDA error: an illegal memory access"), DetectorError::Device(_)));
    }
}
