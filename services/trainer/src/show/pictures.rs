//! Pictures of an evaluation: what was measured, and what was judged worst.

use std::path::Path;

use anyhow::{Context, Result};
use forensics::{CROP_SIDE, Calibration};

use crate::files::write_whole;
use crate::measure::exam::Exam;
use crate::measure::metrics::{Ranking, Scored};
use crate::measure::report::{Judgement, Share};
use crate::measure::samples::{Sample, scores};
use crate::show::plots::{self, Group, Part, RocCurve};
use crate::show::sheet::{Mark, Sheet, Tile};

/// A picture's file and what it shows.
pub(crate) type Drawn = (&'static str, &'static str);

/// Worst samples of each class that are shown: two lines of the sheet.
const WORST: usize = 16;

/// ROC, reliability, scores and properties, as far as they are defined, in `folder`.
pub(crate) fn draw(folder: &Path, judgement: &Judgement) -> Result<Vec<Drawn>> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let Judgement { samples, calibration, thresholds, report } = judgement;
    let condition = judgement.main_condition();
    let mut drawn = Vec::new();
    let mut picture = |(file, shows): Drawn, draw: &dyn Fn(&str) -> String| -> Result<()> {
        drawn.push((file, shows));
        write_whole(&folder.join(file), draw(&format!("{shows}, {}", condition.as_str())).as_bytes())
    };
    let rows = report.rows.iter().filter(|row| row.condition == condition);
    let curves: Vec<_> = rows
        .filter_map(|row| {
            let scored = scores(samples.iter().filter(|sample| row.counts(sample)));
            Some((&*row.kind, Ranking::new(&scored).roc()?, row.auc?))
        })
        .collect();
    let curves: Vec<RocCurve<'_>> =
        curves.iter().map(|(name, points, auc)| RocCurve { name, points, auc: *auc }).collect();
    picture(("roc.svg", "Receiver operating characteristic"), &|title| plots::roc(title, &curves))?;
    let scored = scores(samples.iter().filter(|sample| sample.condition == condition));
    if *calibration != Calibration::None {
        if let Some(found) = Ranking::new(&scored).reliability(calibration) {
            picture(("reliability.svg", "Reliability"), &|title| plots::reliability(title, &found))?;
        }
        let draw = |title: &str| plots::scores(title, &scored, calibration, *thresholds);
        picture(("scores.svg", "Scores"), &draw)?;
    }
    let parts: Vec<Vec<Part<'_>>> =
        report.groups.iter().map(|group| group.parts.iter().map(part).collect()).collect();
    let groups: Vec<Group<'_>> =
        report.groups.iter().zip(&parts).map(|(group, parts)| Group { name: group.name, parts }).collect();
    if !groups.is_empty() {
        picture(("properties.svg", "AUC by property"), &|title| plots::groups(title, &groups))?;
    }
    Ok(drawn)
}

fn part(of: &Share) -> Part<'_> {
    Part { name: &of.name, count: of.pictures, auc: of.auc }
}

/// A contact sheet of the authentic samples with the highest scores and the forged with the lowest. It shows people: never
/// a part of a bundle.
pub(crate) fn worst(exam: &Exam, judgement: &Judgement) -> Result<Sheet> {
    let condition = judgement.main_condition();
    let mut samples: Vec<&Sample> =
        judgement.samples.iter().filter(|sample| sample.condition == condition).collect();
    samples.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    let tile = |sample: &Sample| -> Result<Tile> {
        let mark = if sample.is_forged() { Mark::Forged } else { Mark::Authentic };
        let [first, second] = captions(sample, &judgement.calibration);
        Ok(Tile::new(CROP_SIDE, &exam.crop(sample)?, mark)?.caption(first, second))
    };
    let authentic =
        samples.iter().filter(|sample| !sample.is_forged()).take(WORST).map(|sample| tile(sample));
    let forged =
        samples.iter().rev().filter(|sample| sample.is_forged()).take(WORST).map(|sample| tile(sample));
    Ok(Sheet::new(format!("Judged worst, {}", condition.as_str()))
        .row("Authentic with the highest scores", authentic.collect::<Result<_>>()?)
        .row("Forged with the lowest scores", forged.collect::<Result<_>>()?))
}

/// Kind and strength; score and JPEG quality.
fn captions(sample: &Sample, calibration: &Calibration) -> [String; 2] {
    let kind = match sample.twin_of {
        Some(kind) => format!("twin of {kind}"),
        None if sample.strength > 0.0 => format!("{} {}", sample.kind, sample.strength),
        None => sample.kind.clone(),
    };
    let score = match calibration {
        Calibration::None => format!("logit {:.2}", sample.logit),
        Calibration::Platt { .. } => {
            let scored = Scored { logit: sample.logit, forged: false, identity: 0 };
            format!("P {:.4}", scored.probability(calibration))
        }
    };
    let jpeg = sample.jpeg.map_or_else(|| "no JPEG".to_owned(), |quality| format!("JPEG {quality}"));
    [kind, format!("{score}, {jpeg}")]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use forensics::{CropBatch, DetectorError, Logit};

    use super::*;
    use crate::data::faces::tests::painted;
    use crate::forge::pairs::Pairs;
    use crate::measure::samples::Condition;
    use crate::telling::Progress;

    #[test]
    fn the_sheet_shows_the_worst_of_each_class_and_pictures_stay_small() {
        let exam = Exam::forged(Pairs::new(Arc::new(painted(6)), (0..6).collect(), 3), 4);
        // Scores that go up and down, by no rule that the classes follow.
        let mut count = 0u32;
        let mut judge = |crops: &CropBatch| -> Result<Vec<Logit>, DetectorError> {
            let next = |_| {
                count += 1;
                Logit::new((count * 37 % 101) as f32 / 10.0 - 5.0).unwrap()
            };
            Ok((0..crops.count()).map(next).collect())
        };
        let going = AtomicBool::new(false);
        let progress = Progress::new("judged", &going);
        let samples = exam.judged(&[Condition::AsDrawn], &mut judge, 1, &progress).unwrap();
        let calibration = Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.0; 3] };
        let judgement = Judgement::of(samples, calibration, None);
        let svg = worst(&exam, &judgement).unwrap().to_svg();
        assert_eq!(svg.matches("data:image/jpeg").count(), 2 * WORST);
        let logits = |forged: bool| {
            let class = judgement.samples.iter().filter(move |sample| sample.is_forged() == forged);
            class.map(|sample| sample.logit)
        };
        for logit in [logits(false).fold(f32::MIN, f32::max), logits(true).fold(f32::MAX, f32::min)] {
            let words =
                format!("P {:.4}, ", Scored { logit, forged: false, identity: 0 }.probability(&calibration));
            assert!(svg.contains(&words), "{words} is not on the sheet");
        }
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<&str> =
            draw(folder.path(), &judgement).unwrap().into_iter().map(|(file, _)| file).collect();
        assert_eq!(names, ["roc.svg", "reliability.svg", "scores.svg", "properties.svg"]);
    }
}
