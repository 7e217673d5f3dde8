//! Judged samples: what they are, what they went through, and their score.

use serde::{Deserialize, Serialize};

use crate::data::labels::AUTHENTIC;
use crate::forge::{Degradation, Manipulation};
use crate::measure::metrics::Scored;

/// What a sample went through before it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// Nothing: as cut out of the photo.
    Untouched,
    /// What of gamma, resizing, blur, noise and JPEG 40 to 100 was drawn.
    AsDrawn,
    /// The same draw, with JPEG 75 in place of the drawn one.
    Jpeg75,
}

/// A judged sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Which of the faces.
    pub(crate) face: usize,
    /// Whose face.
    pub(crate) person: u32,
    /// Its number among the face's draws.
    pub(crate) number: u64,
    /// The media it belongs to, where that is known: pictures of one group are one video, say.
    pub(crate) group: Option<String>,
    /// [`AUTHENTIC`], or how it was forged.
    pub(crate) kind: String,
    /// The kind of the forgeries that it is told from, if it is the authentic twin of one.
    pub(crate) twin_of: Option<Manipulation>,
    /// What it went through.
    pub(crate) condition: Condition,
    /// How much of the forgery was mixed in, in (0, 1]; 0 if authentic.
    pub(crate) strength: f32,
    /// JPEG quality of its condition, if it was stored as one.
    pub(crate) jpeg: Option<u8>,
    /// The shorter side of the face in its photo, in pixels.
    pub(crate) face_size: f32,
    /// Forged minus authentic.
    pub(crate) logit: f32,
}

impl Sample {
    /// Whether it belongs to the measure of forgeries of that kind: one of them, or an authentic one to tell them from.
    pub(crate) fn measures(&self, kind: &str) -> bool {
        match self.is_forged() {
            true => self.kind == kind,
            false => self.twin_of.is_none_or(|twin_of| twin_of.as_str() == kind),
        }
    }

    /// Authentic, and nothing was done to it but the losses of its condition.
    pub(crate) fn is_pristine(&self) -> bool {
        !self.is_forged() && self.twin_of.is_none_or(|twin_of| twin_of == Manipulation::Swapped)
    }

    pub(crate) fn is_forged(&self) -> bool {
        self.kind != AUTHENTIC
    }
}

impl Condition {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Untouched, Self::AsDrawn, Self::Jpeg75];

    /// The name in reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::AsDrawn => "as drawn",
            Self::Jpeg75 => "JPEG 75",
        }
    }

    /// What a sample goes through for which `drawn` was drawn.
    pub(crate) fn losses(self, drawn: &Degradation) -> Degradation {
        match self {
            Self::Untouched => Degradation::none(),
            Self::AsDrawn => drawn.clone(),
            Self::Jpeg75 => drawn.clone().with_jpeg(75),
        }
    }
}

/// The samples as scores.
pub(crate) fn scores<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Vec<Scored> {
    let scored = |of: &Sample| Scored { logit: of.logit, forged: of.is_forged(), identity: of.person };
    samples.into_iter().map(scored).collect()
}
