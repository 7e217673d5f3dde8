//! What a training learns from: photos, forgeries that were given with them, and who stands on which side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::arguments::{Shared, Train};
use crate::data::faces::{Faces, harvest};
use crate::data::labels::{self, Labelled};
use crate::data::photos::photos;
use crate::data::split::{Side, Split};
use crate::engine::detector;
use crate::files::write_whole;
use crate::forge::pairs::{Pairs, spread};
use crate::measure::exam::Exam;
use crate::telling::say;

/// Faces with their sides and labels.
pub(crate) struct TrainingSet {
    faces: Arc<Faces>,
    pub(crate) split: Split,
    /// What every picture is, where a manifest was given; empty where none was.
    labels: Arc<BTreeMap<PathBuf, Labelled>>,
}

/// Forgeries need donors, and a batch more than one face.
const FACES_MIN: usize = 8;
/// A donor is somebody else, and of one person nobody could say how far another would be from them.
const PEOPLE_MIN: usize = 2;
/// Labelled pictures of a validation at most: a minute on two cores. Chosen.
const LABELLED_MAX: usize = 500;

impl TrainingSet {
    /// Finds the faces, keeps them in `folder`, and writes there who stands on which side.
    pub(crate) fn gather(what: &Train, folder: &Path, with: &Shared, stop: &AtomicBool) -> Result<Self> {
        let begun = what.init.as_deref().filter(|path| path.is_dir());
        let parent = begun.map(Split::read).transpose()?.flatten();
        let naming = with.naming(parent.as_ref());
        let mut labels = match &what.pairs {
            Some(manifest) => labels::read(manifest, naming)?,
            None => BTreeMap::new(),
        };
        // A picture of both is what the manifest says, and of two copies the first stays.
        let mut all = labels::photos(&labels);
        all.extend(photos(&what.real, naming)?.into_iter().filter(|photo| !labels.contains_key(&photo.path)));
        if what.pairs.is_some() {
            for photo in &all {
                labels.entry(photo.path.clone()).or_insert_with(|| Labelled::authentic(photo));
            }
        }
        let (faces, harvest) = harvest(&all, Some(folder), &mut detector(with)?, stop)?;
        harvest.at_least(FACES_MIN)?;
        let mut split = Split::of(&faces, naming);
        match (begun, &parent) {
            (_, Some(parent)) => split.inherit(&faces, parent),
            (Some(begun), None) => say(&format!(
                "{} does not say whom it was trained with: they may be among the tested",
                begun.display()
            )),
            (None, None) => {}
        }
        write_whole(&folder.join("split.json"), serde_json::to_string_pretty(&split)?.as_bytes())?;
        let found = Self { faces: Arc::new(faces), split, labels: Arc::new(labels) };
        found.check(what)?;
        Ok(found)
    }

    /// How many stand on which side, for people.
    pub(crate) fn counts(&self) -> String {
        let [learned, validated, tested] =
            [Side::Train, Side::Validation, Side::Test].map(|side| self.authentic(side).len());
        let given = match self.given(Side::Train).len() {
            0 => String::new(),
            given => format!(" and {given} given forgeries"),
        };
        format!(
            "{learned} faces{given} to learn from, {validated} to validate with, {tested} kept for the test"
        )
    }

    fn check(&self, what: &Train) -> Result<()> {
        let [learned, validated] =
            [Side::Train, Side::Validation].map(|side| self.faces.people.shown_by(&self.authentic(side)));
        let given = self.given(Side::Train).len();
        say(&self.counts());
        ensure!(
            learned >= PEOPLE_MIN && validated >= PEOPLE_MIN,
            "{learned} people to learn from and {validated} to validate with are too few, {PEOPLE_MIN} of each are needed: one in \
             ten by name is validated with, so give photos of 50 people or more"
        );
        ensure!(
            what.pairs.is_none() || given > 0,
            "no given forgery can be learned from: none has a face, or all are of people who are validated or tested with"
        );
        Ok(())
    }

    /// The authentic faces of a side.
    fn authentic(&self, side: Side) -> Vec<usize> {
        self.split.members(side).into_iter().filter(|&face| !self.is_given(face)).collect()
    }

    /// The given forgeries of a side.
    pub(crate) fn given(&self, side: Side) -> Vec<usize> {
        self.split.members(side).into_iter().filter(|&face| self.is_given(face)).collect()
    }

    fn is_given(&self, face: usize) -> bool {
        self.labels.get(&self.faces.faces[face].path).is_some_and(Labelled::is_forged)
    }

    /// What is learned from.
    pub(crate) fn learned(&self, seed: u64) -> Pairs {
        let pairs = Pairs::new(Arc::clone(&self.faces), self.authentic(Side::Train), seed);
        pairs.with_given(self.given(Side::Train))
    }

    /// The faces of the validation, of which forgeries are made.
    pub(crate) fn validated(&self, seed: u64) -> Pairs {
        Pairs::new(Arc::clone(&self.faces), self.authentic(Side::Validation), seed)
    }

    /// Given forgeries and authentic faces of the validation, if there are any, and not too many.
    pub(crate) fn labelled(&self) -> Option<Exam> {
        let authentic = spread(&self.authentic(Side::Validation), LABELLED_MAX / 2);
        let forged = spread(&self.given(Side::Validation), LABELLED_MAX / 2);
        if forged.is_empty() {
            return None;
        }
        let members = [authentic, forged].concat();
        Some(Exam::labelled(Arc::clone(&self.faces), members, Arc::clone(&self.labels)))
    }

    /// Changes with any given forgery; `None` without any.
    pub(crate) fn given_digest(&self) -> Option<String> {
        let forged = self.given(Side::Train);
        let lines = forged.iter().map(|&face| format!("{:?}\n", self.faces.faces[face].fingerprint));
        (!forged.is_empty()).then(|| hex::encode(Sha256::digest(lines.collect::<String>())))
    }
}
