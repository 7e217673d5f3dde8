//! The two ways in which the one network was published.

use std::fmt;
use std::str::FromStr;

use forensics::CropMode;

use crate::two_stream::Fusion;

/// Whose code wrote the checkpoint: its names, and how the fused features meet their attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The first author's code.
    Official,
    /// DeepfakeBench's detector `srm`, such as its `srm_best.pth`.
    DeepfakeBench,
}

/// A name that no dialect has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither official nor deepfakebench")]
pub struct UnknownDialect(String);

/// The streams' prefixes: official, DeepfakeBench.
const STREAMS: [(&str, &str); 2] =
    [("xception_rgb.model.", "backbone_rgb."), ("xception_srm.model.", "backbone_srm.")];

impl Dialect {
    /// The name on the command line and in messages.
    pub fn name(self) -> &'static str {
        self.fusion().name()
    }

    /// The wiring that goes with the weights.
    pub fn fusion(self) -> Fusion {
        match self {
            Self::Official => Fusion::Official,
            Self::DeepfakeBench => Fusion::DeepfakeBench,
        }
    }

    /// How its authors cut faces for training.
    pub fn crop(self) -> CropMode {
        match self {
            Self::Official => CropMode::Box,
            Self::DeepfakeBench => CropMode::Aligned,
        }
    }

    /// What its authors say about the licence of their weights.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Official => "none published",
            Self::DeepfakeBench => "CC BY-NC 4.0",
        }
    }

    /// What its authors say about the training of their weights.
    pub fn training(self) -> &'static str {
        match self {
            Self::Official => "by the first author of arXiv 2103.12376",
            Self::DeepfakeBench => "by DeepfakeBench on FaceForensics++ c23",
        }
    }

    /// The official name of the entry; `None` for one that the network does not use.
    pub(super) fn official_name(self, own: &str) -> Option<String> {
        if self == Self::Official {
            return Some(own.to_owned());
        }
        if own == "blur.weight" {
            return None;
        }
        for (official, prefix) in STREAMS {
            if let Some(rest) = own.strip_prefix(prefix) {
                return match rest.strip_prefix("last_linear.") {
                    _ if rest.starts_with("adjust_channel.") => None,
                    // Behind a dropout in the official code, alone here.
                    Some(leaf @ ("weight" | "bias")) => Some(format!("{official}last_linear.1.{leaf}")),
                    _ => Some(format!("{official}{rest}")),
                };
            }
        }
        Some(own.to_owned())
    }

    /// What the entry of that official name is called in this dialect.
    pub(super) fn own_name(self, name: &str) -> String {
        let stream = STREAMS.iter().find_map(|(official, own)| Some((own, name.strip_prefix(official)?)));
        match (self, stream) {
            (Self::DeepfakeBench, Some((own, rest))) => {
                format!("{own}{}", rest.replace("last_linear.1.", "last_linear."))
            }
            _ => name.to_owned(),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        [Self::Official, Self::DeepfakeBench]
            .into_iter()
            .find(|dialect| dialect.name() == name)
            .ok_or_else(|| UnknownDialect(name.to_owned()))
    }
}
