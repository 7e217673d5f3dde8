//! The decoder's settings: as written ([`DecodeSettings`]), and checked ([`DecodeConfig`]).

use ops::config::{ByteSize, ConfigError, Problems};
use serde::{Deserialize, Serialize};

use super::DecodeError;

/// The table `[decode]` as written; each knob is explained in [`crate::DEFAULTS`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct DecodeSettings {
    pub threads: u32,
    pub queue_max: u32,
    pub side_max: u32,
    pub pixels_max: u64,
    pub bytes_max: ByteSize,
    pub memory_max: ByteSize,
    pub scans_max: u32,
}

/// Checked settings of one pool.
#[derive(Debug, Clone)]
pub struct DecodeConfig {
    /// Decode threads; at least one.
    pub threads: usize,
    /// Pictures that may wait.
    pub queue_max: usize,
    /// What one picture may take.
    pub limits: DecodeLimits,
}

/// What one picture may take; all of it is known from the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The longer side in pixels.
    pub side_max: u32,
    /// Width × height.
    pub pixels_max: u64,
    /// The encoded picture.
    pub bytes_max: usize,
    /// Output and working memory together.
    pub memory_max: u64,
    /// Scans of a JPEG. Scans × pixels are bounded at ten times `pixels_max` besides: an encoder's default
    /// progressive script has ten scans (libjpeg, `jpeg_simple_progression`), and work grows with the product.
    pub scans_max: u32,
}

/// Those of [`crate::DEFAULTS`], for programs without a configuration.
impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            side_max: 8192,
            pixels_max: 40_000_000,
            bytes_max: 32 << 20,
            memory_max: 256 << 20,
            scans_max: 64,
        }
    }
}

impl DecodeSettings {
    /// The checked configuration, or everything that is wrong with it.
    pub fn check(self) -> Result<DecodeConfig, ConfigError> {
        let mut problems = Problems::default();
        problems.require(self.queue_max > 0, "decode.queue_max", "must be at least 1");
        problems.require((1..=16_384).contains(&self.side_max), "decode.side_max", "must be 1 to 16384");
        problems.require(self.pixels_max > 0, "decode.pixels_max", "must be at least 1");
        problems.require(self.bytes_max.bytes() > 0, "decode.bytes_max", "must be at least 1 byte");
        problems.require(self.memory_max.bytes() > 0, "decode.memory_max", "must be at least 1 byte");
        problems.require((1..=64).contains(&self.scans_max), "decode.scans_max", "must be 1 to 64");
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores() } else { self.threads as usize };
        problems.finish(DecodeConfig {
            threads,
            queue_max: self.queue_max as usize,
            limits: DecodeLimits {
                side_max: self.side_max,
                pixels_max: self.pixels_max,
                bytes_max: self.bytes_max.as_usize(),
                memory_max: self.memory_max.bytes(),
                scans_max: self.scans_max,
            },
        })
    }
}

impl DecodeLimits {
    /// Whether a picture of this size may be decoded at all.
    pub(super) fn check_size(&self, width: u32, height: u32) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::Broken(format!("{width} × {height} pixels")));
        }
        if width.max(height) > self.side_max {
            let most = self.side_max;
            return Err(DecodeError::TooLarge(format!(
                "{width} × {height} pixels, the longest side is {most}"
            )));
        }
        if u64::from(width) * u64::from(height) > self.pixels_max {
            let most = self.pixels_max;
            return Err(DecodeError::TooLarge(format!("{width} × {height} pixels, the most is {most}")));
        }
        Ok(())
    }

    /// Whether decoding may take so many bytes of memory.
    pub(super) fn check_memory(&self, bytes: u64) -> Result<(), DecodeError> {
        if bytes <= self.memory_max {
            return Ok(());
        }
        let most = self.memory_max;
        Err(DecodeError::TooLarge(format!("would take {bytes} bytes of memory, the most is {most}")))
    }

    /// Whether a picture of so many pixels may have so many scans.
    pub(super) fn check_scans(&self, scans: u32, pixels: u64) -> Result<(), DecodeError> {
        if scans > self.scans_max || u64::from(scans) * pixels > self.pixels_max.saturating_mul(10) {
            return Err(DecodeError::TooLarge(format!("{scans} scans over {pixels} pixels")));
        }
        Ok(())
    }
}
