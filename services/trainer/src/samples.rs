//! Samples of an evaluation, judged: every face and its forgeries, through the losses that uploads go through.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::faces::Faces;
use crate::forge::{Degradation, Manipulation, View};
use crate::labels::Labelled;
use crate::metrics::Scored;
use crate::pairs::Pairs;

/// A network that gives crops their scores.
pub(crate) trait Judge {
    /// Forged minus authentic, for each crop of u8 RGB `[256, 256, 3]`.
    fn score(&mut self, crops: &[Vec<u8>]) -> Result<Vec<f32>>;
}

/// What a sample went through before it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// Nothing: as cut out of the photo.
    Untouched,
    /// Gamma, resizing, blur, noise, JPEG of 40 to 100, as drawn.
    AsDrawn,
    /// The same draw, with JPEG 75 at its end whatever was drawn.
    Jpeg75,
}

/// The kind of what nobody forged.
pub(crate) const AUTHENTIC: &str = "authentic";

/// A judged sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Whose face.
    pub(crate) identity: String,
    /// Its number in the evaluation.
    pub(crate) number: u64,
    /// The media it belongs to: pictures of one group are one video, say.
    pub(crate) group: String,
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

/// Judges `draws` samples of every face of `pairs`: a forgery of each kind and its authentic twin, under each of `conditions`.
/// The forge works ahead on a thread of its own.
pub(crate) fn judged(
    pairs: &Pairs,
    draws: u64,
    conditions: &[Condition],
    judge: &mut dyn Judge,
    progress: &ProgressBar,
) -> Result<Vec<Sample>> {
    progress.set_length(pairs.len() as u64 * draws);
    thread::scope(|scope| {
        let (send, receive) = sync_channel(8);
        let make = move || {
            for member in 0..pairs.len() {
                for number in 0..draws {
                    let made = unjudged(pairs, member, number, conditions);
                    let failed = made.is_err();
                    if send.send(made).is_err() || failed {
                        return;
                    }
                }
            }
        };
        // The sender ends with its thread, and with it the loop below.
        let forge = thread::Builder::new().name("forge".to_owned()).spawn_scoped(scope, make);
        let forge = forge.context("a thread for the forge")?;
        let mut judged = Vec::new();
        for made in receive {
            let (mut samples, crops): (Vec<Sample>, Vec<Vec<u8>>) = made?.into_iter().unzip();
            for (sample, logit) in samples.iter_mut().zip(judge.score(&crops)?) {
                sample.logit = logit;
            }
            judged.append(&mut samples);
            progress.inc(1);
        }
        forge.join().map_err(|_| anyhow!("the forge's thread panicked"))?;
        progress.finish_and_clear();
        Ok(judged)
    })
}

fn unjudged(
    pairs: &Pairs,
    member: usize,
    number: u64,
    conditions: &[Condition],
) -> Result<Vec<(Sample, Vec<u8>)>> {
    let drawn = pairs.losses(member, number);
    let mut pictures = Vec::new();
    for manipulation in Manipulation::ALL {
        let (made, recipe) = pairs.forged(member, manipulation, number)?;
        pictures.push((AUTHENTIC, Some(manipulation), 0.0, made.twin));
        pictures.push((manipulation.as_str(), None, recipe.ratio, made.picture));
    }
    let mut samples = Vec::new();
    for &condition in conditions {
        let losses = condition.losses(&drawn);
        for (place, (kind, twin_of, strength, picture)) in pictures.iter().enumerate() {
            let sample = Sample {
                identity: pairs.identity(member).to_owned(),
                number,
                group: format!("{}/{number}/{place}", pairs.identity(member)),
                kind: (*kind).to_owned(),
                twin_of: *twin_of,
                condition,
                strength: *strength,
                jpeg: losses.jpeg(),
                face_size: pairs.size(member),
                logit: f32::NAN,
            };
            samples.push((sample, losses.apply(picture.clone())));
        }
    }
    Ok(samples)
}

/// The samples as scores, those that `keep` lets through; identities numbered by name.
pub(crate) fn scores(samples: &[Sample], keep: impl Fn(&Sample) -> bool) -> Vec<Scored> {
    let mut names: Vec<&str> = samples.iter().map(|sample| &*sample.identity).collect();
    names.sort_unstable();
    names.dedup();
    let number = |name: &str| names.binary_search(&name).unwrap_or_default() as u32;
    let kept = samples.iter().filter(|sample| keep(sample));
    let scored = |sample: &Sample| Scored {
        logit: sample.logit,
        forged: sample.is_forged(),
        identity: number(&sample.identity),
    };
    kept.map(scored).collect()
}

/// Judges labelled pictures under those of `conditions` that need no draw: as they are, and after JPEG 75.
pub(crate) fn labelled(
    (faces, members): (&Faces, &[usize]),
    labels: &BTreeMap<PathBuf, Labelled>,
    conditions: &[Condition],
    judge: &mut dyn Judge,
    progress: &ProgressBar,
) -> Result<Vec<Sample>> {
    progress.set_length(members.len() as u64);
    let mut judged = Vec::new();
    for &member in members {
        let face = &faces.faces[member];
        let label = labels.get(&face.path).with_context(|| face.path.display().to_string())?;
        let picture = View::MIDDLE.of(&faces.wide(member)?.picture);
        let conditions = conditions.iter().copied().filter(|condition| *condition != Condition::AsDrawn);
        let conditions: Vec<Condition> = conditions.collect();
        let lossy = |condition: &Condition| condition.losses(&Degradation::none()).apply(picture.clone());
        let crops: Vec<Vec<u8>> = conditions.iter().map(lossy).collect();
        for (condition, logit) in conditions.into_iter().zip(judge.score(&crops)?) {
            judged.push(Sample {
                identity: face.identity.clone(),
                number: 0,
                group: label.group.clone(),
                kind: label.kind.clone(),
                twin_of: None,
                condition,
                strength: 0.0,
                jpeg: (condition == Condition::Jpeg75).then_some(75),
                face_size: face.size,
                logit,
            });
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(judged)
}
