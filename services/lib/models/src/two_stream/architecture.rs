//! How large the network is. The wiring is always the published one; channels and depth may shrink.

use std::fmt;

/// Width and depth of a two-stream network; everything else follows from the published wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Architecture {
    width_percent: u32,
    middle_blocks: u32,
}

/// Why no network of that size is built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such architecture: {0}")]
pub struct InvalidArchitecture(String);

/// How the fused features meet their channel attention: the one difference between the two published checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fusion {
    /// `f + f·CA(f)`, the first author's code.
    Official,
    /// `f·CA(f)`, DeepfakeBench's detector `srm`.
    DeepfakeBench,
}

/// Input side in pixels. The position attention is a `Linear(256, 256)` over 16 × 16 places, which fixes it.
pub const INPUT_SIDE: i64 = 256;
/// Places of the 16 × 16 map on which the two streams attend to each other.
pub(crate) const PLACES: i64 = 256;

impl Architecture {
    /// The published sizes: 53,250,128 values.
    pub const FULL: Architecture = Architecture { width_percent: 100, middle_blocks: 8 };
    /// A quarter of the width and half of the middle blocks, for CPUs and tests.
    pub const MINI: Architecture = Architecture { width_percent: 25, middle_blocks: 4 };

    /// A network of `width_percent` of the published channels and `middle_blocks` blocks at 16 × 16, half of
    /// them before and half of them behind the second cross attention.
    pub fn new(width_percent: u32, middle_blocks: u32) -> Result<Self, InvalidArchitecture> {
        if !(10..=100).contains(&width_percent) {
            return Err(InvalidArchitecture(format!("width {width_percent} % is not within 10 % and 100 %")));
        }
        if !(2..=8).contains(&middle_blocks) || !middle_blocks.is_multiple_of(2) {
            return Err(InvalidArchitecture(format!("{middle_blocks} middle blocks, not 2, 4, 6 or 8")));
        }
        Ok(Self { width_percent, middle_blocks })
    }

    /// The preset of that name: `full` or `mini`.
    pub fn preset(name: &str) -> Result<Self, InvalidArchitecture> {
        match name {
            "full" => Ok(Self::FULL),
            "mini" => Ok(Self::MINI),
            _ => Err(InvalidArchitecture(format!("{name:?} is neither full nor mini"))),
        }
    }

    /// Channels in percent of the published ones.
    pub fn width_percent(&self) -> u32 {
        self.width_percent
    }

    /// Blocks at 16 × 16 in each stream.
    pub fn middle_blocks(&self) -> u32 {
        self.middle_blocks
    }

    /// The published channel count at this width, rounded up to a multiple of 8 (a whole AVX2 register;
    /// every published count already is one).
    pub fn channels(&self, published: u32) -> i64 {
        i64::from((published * self.width_percent).div_ceil(800) * 8)
    }

    /// Numbers of the middle blocks before and behind the second cross attention. A block keeps the number of the
    /// block in whose place it stands (4–7, 8–11), so that a name means the same in every size.
    pub(crate) fn middle_block_numbers(&self) -> [std::ops::Range<u32>; 2] {
        let half = self.middle_blocks / 2;
        [4..4 + half, 8..8 + half]
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FULL => f.write_str("full"),
            Self::MINI => f.write_str("mini"),
            Self { width_percent, middle_blocks } => {
                write!(f, "width {width_percent} %, {middle_blocks} middle blocks")
            }
        }
    }
}

impl Fusion {
    /// The dialect of that name: `official` or `deepfakebench`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Fusion::Official, Fusion::DeepfakeBench].into_iter().find(|fusion| fusion.name() == name)
    }

    /// The name in manifests and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Fusion::Official => "official",
            Fusion::DeepfakeBench => "deepfakebench",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_channels_are_kept_and_narrow_ones_are_whole_registers() {
        for published in [32, 64, 128, 256, 728, 1024, 1536, 2048] {
            assert_eq!(Architecture::FULL.channels(published), i64::from(published));
            assert_eq!(Architecture::MINI.channels(published) % 8, 0);
        }
        assert_eq!(Architecture::MINI.channels(728), 184);
        assert_eq!(Architecture::MINI.middle_block_numbers(), [4..6, 8..10]);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (width, blocks) in [(0, 8), (101, 8), (25, 3), (25, 0), (25, 10)] {
            assert!(Architecture::new(width, blocks).is_err(), "{width} % and {blocks} blocks");
        }
        assert!(Architecture::preset("huge").is_err());
        assert_eq!(Fusion::from_name("deepfakebench"), Some(Fusion::DeepfakeBench));
        assert_eq!(Fusion::from_name("other"), None);
    }
}
