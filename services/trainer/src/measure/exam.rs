//! What a model is asked: faces and forgeries of them, or labelled pictures. Each question is a function of its number, so
//! that it can be asked by many threads, and shown again afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use forensics::{CropBatch, DetectorError, Logit};

use crate::ahead::Ahead;
use crate::data::faces::Faces;
use crate::data::labels::{AUTHENTIC, Labelled};
use crate::forge::pairs::Pairs;
use crate::forge::{Degradation, Manipulation, View};
use crate::measure::samples::{Condition, Sample};
use crate::telling::Progress;

/// Scores crops: the logits of a batch, in its order.
pub(crate) type Judge<'a> = dyn FnMut(&CropBatch) -> Result<Vec<Logit>, DetectorError> + 'a;

/// Questions by number.
#[derive(Clone)]
pub(crate) struct Exam {
    faces: Arc<Faces>,
    /// The number of each face's person.
    people: Arc<[u32]>,
    questions: Questions,
}

#[derive(Clone)]
enum Questions {
    /// A face, a forgery of each kind and their authentic twins; so many of each face. No swap where nobody else is there.
    Forged { pairs: Pairs, draws: u64 },
    /// Pictures as they are, by number of the face.
    Labelled { members: Arc<[usize]>, labels: Arc<BTreeMap<PathBuf, Labelled>> },
}

/// Crops judged at a time: what a GPU computes in one piece.
const BATCH: usize = 64;

impl Exam {
    /// `draws` questions of every face of `pairs`: a forgery of each kind and its authentic twin.
    pub(crate) fn forged(pairs: Pairs, draws: u64) -> Self {
        Self { people: pairs.people(), faces: pairs.faces(), questions: Questions::Forged { pairs, draws } }
    }

    /// Each of `members`, whose label is known.
    pub(crate) fn labelled(
        faces: Arc<Faces>,
        members: Vec<usize>,
        labels: Arc<BTreeMap<PathBuf, Labelled>>,
    ) -> Self {
        let questions = Questions::Labelled { members: members.into(), labels };
        Self { people: faces.people.numbers(), faces, questions }
    }

    fn len(&self) -> u64 {
        match &self.questions {
            Questions::Forged { pairs, draws } => pairs.len() as u64 * draws,
            Questions::Labelled { members, .. } => members.len() as u64,
        }
    }

    /// Asks everything under each of `conditions`; questions are made ahead on `threads`.
    pub(crate) fn judged(
        &self,
        conditions: &[Condition],
        judge: &mut Judge<'_>,
        threads: usize,
        progress: &Progress<'_>,
    ) -> Result<Vec<Sample>> {
        let (exam, conditions) = (self.clone(), conditions.to_vec());
        let mut ahead =
            Ahead::start(0..self.len(), threads, move |number| exam.question(number, &conditions))?;
        progress.begin(self.len());
        let mut samples: Vec<Sample> = Vec::new();
        let (mut crops, mut judged) = (CropBatch::with_capacity(BATCH), 0);
        for number in 1..=self.len() {
            for (sample, crop) in ahead.next()? {
                ensure!(crops.push(&crop), "a crop is not 256 × 256 pixels");
                samples.push(sample);
            }
            if crops.count() >= BATCH || number == self.len() {
                for (sample, logit) in samples[judged..].iter_mut().zip(judge(&crops)?) {
                    sample.logit = logit.get();
                }
                judged = samples.len();
                crops.clear();
            }
            progress.done(1)?;
        }
        progress.end();
        Ok(samples)
    }

    /// The pictures of question `number`, not judged yet, as u8 RGB `[256, 256, 3]`.
    fn question(&self, number: u64, conditions: &[Condition]) -> Result<Vec<(Sample, Vec<u8>)>> {
        match &self.questions {
            Questions::Forged { pairs, draws } => {
                let face = pairs.members()[(number / draws) as usize];
                self.forgeries(pairs, face, number % draws, conditions)
            }
            Questions::Labelled { members, labels } => {
                self.as_it_is(members[number as usize], labels, conditions)
            }
        }
    }

    fn forgeries(
        &self,
        pairs: &Pairs,
        face: usize,
        number: u64,
        conditions: &[Condition],
    ) -> Result<Vec<(Sample, Vec<u8>)>> {
        let drawn = pairs.losses(face, number);
        let mut pictures = Vec::new();
        for manipulation in Manipulation::ALL {
            let (made, recipe) = pairs.forged(face, manipulation, number)?;
            if manipulation == Manipulation::Swapped && !recipe.has_donor {
                continue;
            }
            pictures.push((AUTHENTIC, Some(manipulation), 0.0, made.twin));
            pictures.push((manipulation.as_str(), None, recipe.ratio, made.picture));
        }
        let mut samples = Vec::new();
        for &condition in conditions {
            let losses = condition.losses(&drawn);
            for (kind, twin_of, strength, picture) in &pictures {
                let sample = Sample {
                    number,
                    kind: (*kind).to_owned(),
                    twin_of: *twin_of,
                    strength: *strength,
                    jpeg: losses.jpeg(),
                    ..self.sample(face, condition)
                };
                samples.push((sample, losses.apply(picture.clone())));
            }
        }
        Ok(samples)
    }

    /// A labelled picture under those of `conditions` that need no draw: as it is, and after JPEG 75.
    fn as_it_is(
        &self,
        face: usize,
        labels: &BTreeMap<PathBuf, Labelled>,
        conditions: &[Condition],
    ) -> Result<Vec<(Sample, Vec<u8>)>> {
        let path = &self.faces.faces[face].path;
        let label = labels.get(path).with_context(|| format!("{}: no label", path.display()))?;
        let picture = View::MIDDLE.of(&self.faces.wide(face)?.picture);
        let conditions = conditions.iter().filter(|condition| **condition != Condition::AsDrawn);
        let samples = conditions.map(|&condition| {
            let losses = condition.losses(&Degradation::none());
            let sample = Sample {
                group: Some(label.group.clone()),
                kind: label.kind.clone(),
                jpeg: losses.jpeg(),
                ..self.sample(face, condition)
            };
            (sample, losses.apply(picture.clone()))
        });
        Ok(samples.collect())
    }

    /// An authentic sample of that face, not judged.
    fn sample(&self, face: usize, condition: Condition) -> Sample {
        Sample {
            face,
            person: self.people[face],
            number: 0,
            group: None,
            kind: AUTHENTIC.to_owned(),
            twin_of: None,
            condition,
            strength: 0.0,
            jpeg: None,
            face_size: self.faces.faces[face].size,
            logit: f32::NAN,
        }
    }

    /// The crop of a judged sample, made again: u8 RGB `[256, 256, 3]`.
    pub(crate) fn crop(&self, sample: &Sample) -> Result<Vec<u8>> {
        let conditions = &[sample.condition];
        let made = match &self.questions {
            Questions::Forged { pairs, .. } => {
                self.forgeries(pairs, sample.face, sample.number, conditions)?
            }
            Questions::Labelled { labels, .. } => self.as_it_is(sample.face, labels, conditions)?,
        };
        let same = |other: &Sample| other.kind == sample.kind && other.twin_of == sample.twin_of;
        let found = made.into_iter().find(|(other, _)| same(other));
        Ok(found.context("the sample is not of this exam")?.1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::data::faces::tests::painted;

    /// A crop's mean brightness as its logit, so that a picture made again can be known by it.
    fn brightness(crops: &CropBatch) -> Result<Vec<Logit>, DetectorError> {
        Ok((0..crops.count()).map(|at| Logit::new(mean(crops.crop(at))).unwrap()).collect())
    }

    fn mean(crop: &[u8]) -> f32 {
        crop.iter().map(|value| u64::from(*value)).sum::<u64>() as f32 / crop.len() as f32
    }

    fn judged(exam: &Exam, threads: usize) -> Vec<Sample> {
        let going = AtomicBool::new(false);
        let progress = Progress::new("judged", &going);
        exam.judged(&Condition::ALL, &mut brightness, threads, &progress).unwrap()
    }

    #[test]
    fn every_face_is_asked_about_and_every_crop_comes_again() {
        let faces = Arc::new(painted(4));
        let exam = Exam::forged(Pairs::new(Arc::clone(&faces), vec![0, 1, 3], 7), 2);
        let samples = judged(&exam, 1);
        assert_eq!(samples.len(), 3 * 2 * 3 * 6, "faces, draws, conditions, pictures");
        assert_eq!(samples, judged(&exam, 3), "more threads");
        for sample in samples.iter().step_by(7) {
            assert_eq!(mean(&exam.crop(sample).unwrap()), sample.logit, "{sample:?}");
        }
        let people: std::collections::BTreeSet<u32> = samples.iter().map(|sample| sample.person).collect();
        assert_eq!(people.len(), 3);
    }

    #[test]
    fn one_person_alone_is_not_swapped() {
        let samples = judged(&Exam::forged(Pairs::new(Arc::new(painted(2)), vec![0], 7), 1), 1);
        let kinds = |kind: &str| samples.iter().filter(|sample| sample.kind == kind).count();
        assert_eq!(
            ["self-blended", "regional", "swapped", AUTHENTIC].map(kinds),
            [3, 3, 0, 6],
            "three conditions"
        );
    }

    #[test]
    fn all_pictures_of_a_draw_go_through_the_same_losses() {
        let pairs = Pairs::new(Arc::new(painted(3)), vec![0, 2], 7);
        let exam = Exam::forged(pairs.clone(), 3);
        let samples = judged(&exam, 2);
        let mut changed = 0;
        for sample in samples.iter().filter(|sample| sample.condition == Condition::AsDrawn) {
            let before = exam.crop(&Sample { condition: Condition::Untouched, ..sample.clone() }).unwrap();
            let drawn = pairs.losses(sample.face, sample.number);
            let picture = crate::picture::Picture::from_rgb(256, 256, &before);
            let apart = |after: &[u8]| {
                let steps = drawn.apply(picture.clone()).iter().zip(after).map(|(a, b)| a.abs_diff(*b)).max();
                steps.unwrap_or_default()
            };
            // The untouched one was rounded to levels.
            let after = exam.crop(sample).unwrap();
            let mean = after.iter().zip(drawn.apply(picture.clone())).map(|(a, b)| u64::from(a.abs_diff(b)));
            let mean = mean.sum::<u64>() as f64 / after.len() as f64;
            assert!(mean < 1.0, "{mean} (up to {}) of {sample:?}", apart(&after));
            changed += usize::from(after != before);
        }
        assert!(changed > 0, "some losses were drawn");
    }

    #[test]
    fn a_labelled_picture_is_asked_about_as_it_is_and_after_a_jpeg() {
        let faces = Arc::new(painted(3));
        let label = |kind: &str| Labelled { kind: kind.into(), identity: "x".into(), group: "video".into() };
        let kinds = [AUTHENTIC, "swap", AUTHENTIC];
        let labels = faces.faces.iter().zip(kinds).map(|(face, kind)| (face.path.clone(), label(kind)));
        let exam = Exam::labelled(Arc::clone(&faces), vec![1, 2], Arc::new(labels.collect()));
        let samples = judged(&exam, 2);
        let kinds: Vec<(&str, Option<u8>)> =
            samples.iter().map(|sample| (&*sample.kind, sample.jpeg)).collect();
        assert_eq!(kinds, [("swap", None), ("swap", Some(75)), (AUTHENTIC, None), (AUTHENTIC, Some(75))]);
        for sample in &samples {
            assert_eq!(mean(&exam.crop(sample).unwrap()), sample.logit);
        }
    }

    #[test]
    fn a_stop_is_heard_at_the_next_question() {
        let exam = Exam::forged(Pairs::new(Arc::new(painted(3)), vec![0, 1], 7), 2);
        let stop = AtomicBool::new(true);
        let progress = Progress::new("judged", &stop);
        let error = exam.judged(&Condition::ALL, &mut brightness, 1, &progress).unwrap_err().to_string();
        assert!(error.contains("stopped: judged 1 of 4"), "{error}");
    }
}
