//! What a bundle is asked, and about whom: for `evaluate` and for `calibrate`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use forensics::{DeviceClass, ForgeryDetector};
use models::TwoStream;

use crate::arguments::Shared;
use crate::data::faces::{Face, Faces, harvest};
use crate::data::labels;
use crate::data::photos::photos;
use crate::data::split::Split;
use crate::engine;
use crate::forge::pairs::Pairs;
use crate::measure::exam::Exam;
use crate::measure::samples::{Condition, Sample};
use crate::telling::{Progress, say};

/// Of evaluation draws: fixed, so that a bundle is judged on the same forgeries each time.
const SEED: u64 = 20_261_127;

/// What a bundle is asked, and about whom.
pub(super) struct Asked {
    pub(super) exam: Exam,
    pub(super) faces: Vec<Face>,
    /// The pictures came with labels: nothing is forged, and they are judged as they are.
    pub(super) labelled: bool,
    /// Whom the bundle knows.
    pub(super) split: Option<Split>,
    /// The same for people.
    pub(super) words: String,
}

impl Asked {
    /// A folder of photos, of which forgeries are made; or one with `real` and `forged` in it, or a manifest. Identities and
    /// photos that the bundle knows are left out.
    pub(super) fn of(
        (bundle, data): (&Path, &Path),
        draws: u64,
        folder: Option<&Path>,
        with: &Shared,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let split = Split::read(bundle)?;
        let naming = with.naming(split.as_ref());
        let labels = match data.is_file() {
            true => Some(labels::read(data, naming)?),
            false => labels::of_folders(data, naming)?,
        };
        let photos = match &labels {
            Some(labels) => labels::photos(labels),
            None => photos(&[data.to_owned()], naming)?,
        };
        let (faces, harvest) = harvest(&photos, folder, &mut engine::detector(with)?, stop)?;
        let (members, words) = unknown(split.as_ref(), &faces);
        say(&words);
        ensure!(
            !members.is_empty(),
            "no picture is left to judge, of {}: name pictures of people whom the bundle does not know",
            harvest.report().join("; ")
        );
        let left = members.iter().map(|&member| faces.faces[member].clone()).collect();
        let faces = Arc::new(faces);
        let labelled = labels.is_some();
        let exam = match labels {
            None => Exam::forged(Pairs::new(faces, members, SEED), draws),
            Some(labels) => Exam::labelled(faces, members, Arc::new(labels)),
        };
        Ok(Self { exam, faces: left, labelled, split, words })
    }
}

/// Faces of people whom the bundle was neither trained nor validated nor calibrated with, as far as it says, and how far that
/// is.
fn unknown(split: Option<&Split>, faces: &Faces) -> (Vec<usize>, String) {
    let all = 0..faces.faces.len();
    let Some(split) = split else {
        let words = "the bundle does not say whom it was trained with, so nobody is left out";
        return (all.collect(), words.to_owned());
    };
    let (known, numbers) = (split.known(), faces.people.numbers());
    let known = faces.people_with(|face| known.has(face));
    let members: Vec<usize> = all.filter(|&face| !known.contains(&numbers[face])).collect();
    let left_out = faces.faces.len() - members.len();
    let words = format!(
        "{left_out} faces are left out, since the bundle was trained, validated or calibrated with them or their people"
    );
    (members, words)
}

/// Asks everything under each of `conditions`.
pub(super) fn judged(
    asked: &Asked,
    conditions: &[Condition],
    model: &mut TwoStream,
    with: &Shared,
    stop: &AtomicBool,
) -> Result<Vec<Sample>> {
    let threads = engine::forge_threads(with, model.identity().device == DeviceClass::Cpu);
    asked.exam.judged(conditions, &mut |crops| model.score(crops), threads, &Progress::new("judged", stop))
}

/// The last part of a path, wherever it lies: what a card may say of it.
pub(super) fn name_of(data: &Path) -> String {
    let whole = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}
