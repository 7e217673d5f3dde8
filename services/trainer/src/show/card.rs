//! `MODEL_CARD.md`: what the model is, what it was measured to do, and what it is not for.

use forensics::Calibration;
use models::bundle::Manifest;

use crate::measure::report::Report;

/// What only the person who trains can say.
pub(crate) struct Statement<'a> {
    pub(crate) data: &'a str,
    pub(crate) split: &'a str,
    /// The command that made it.
    pub(crate) command: &'a str,
    /// A picture of the training, beside the card.
    pub(crate) training: &'a str,
    /// How fast it went on the machine that it was made on.
    pub(crate) speed: &'a str,
    /// Forgeries that were given.
    pub(crate) given: usize,
    /// It began with weights that knew something.
    pub(crate) begun: bool,
}

/// A report, for the card.
pub(crate) struct Section<'a> {
    /// What it was measured on. A card has one section for each.
    pub(crate) on: &'a str,
    /// What is to be known of those pictures.
    pub(crate) words: &'a str,
    /// The command that measured.
    pub(crate) command: &'a str,
    pub(crate) report: &'a Report,
    /// Pictures beside the card: path and what it shows.
    pub(crate) pictures: &'a [(String, &'a str)],
}

/// A card on which nothing is measured yet.
pub(crate) fn card(manifest: &Manifest, statement: &Statement<'_>) -> String {
    let Manifest { name, version, architecture, licence, training, .. } = manifest;
    let crop = manifest.preprocessing.name();
    let [calibration, thresholds] = meaning(manifest);
    let Statement { data, split, command, training: picture, speed, given, begun } = statement;
    let given = match given {
        0 => String::new(),
        given => format!(" and on {given} forgeries that were given"),
    };
    let begun = if *begun { "; what it began with had been taught before" } else { "" };
    format!(
        "# {name} {version}\n\nA model of Touchstone: the two-stream network of Luo et al. (CVPR 2021), {architecture}, on faces cut as \
         `{crop}`.\n\n\
         - **Licence**: {licence}\n- **Data**: {data}\n- **Split**: {split}\n- **Training**: {training}; {speed}\n\
         - **Made with**: `{command}`\n{CALIBRATION}{calibration}\n{THRESHOLDS}{thresholds}\n\n![Training]({picture})\n\
         \n## What it is not\n\nIt was taught on forgeries made on the fly (self-blended, swapped, regional: blending artefacts) \
         of the photos named above{given}{begun}. {LIMITS}"
    )
}

const CALIBRATION: &str = "- **Calibration**: ";
const THRESHOLDS: &str = "- **Thresholds**: ";

/// The card of a bundle that was calibrated anew by `command`: what was measured of it is not true any more.
pub(crate) fn recalibrated(card: &str, manifest: &Manifest, command: &str) -> String {
    let [calibration, thresholds] = meaning(manifest);
    let measured = card.find("\n## Measured on ").map_or(card, |at| &card[..at]);
    let lines = measured.lines().map(|line| match line {
        line if line.starts_with(CALIBRATION) => format!("{CALIBRATION}{calibration} By `{command}`.\n"),
        line if line.starts_with(THRESHOLDS) => format!("{THRESHOLDS}{thresholds}\n"),
        line => format!("{line}\n"),
    });
    lines.collect()
}

/// What scores mean, and where verdicts begin.
fn meaning(manifest: &Manifest) -> [String; 2] {
    let calibration = match manifest.calibration {
        Calibration::None => "None: every verdict abstains.".to_owned(),
        Calibration::Platt { slope, intercept, .. } => format!(
            "P(forged) = σ({slope:.4} · logit {} {:.4}), under a prior of 50/50, fitted on {}.",
            if intercept < 0.0 { '−' } else { '+' },
            intercept.abs(),
            manifest.calibrated_on
        ),
    };
    let thresholds = manifest.thresholds.map_or_else(
        || "None: every verdict abstains.".to_owned(),
        |found| {
            let (forged, authentic) = (found.forged, found.authentic);
            format!(
                "LIKELY_FORGED from {forged:.4}, LIKELY_AUTHENTIC below {authentic:.4}, INCONCLUSIVE between."
            )
        },
    );
    [calibration, thresholds]
}

/// The card with that section in place of an earlier one on the same, or at its end; the rest stays as it is.
pub(crate) fn with_section(card: &str, section: &Section<'_>) -> String {
    let heading = format!("## Measured on {}\n", section.on);
    let text = section.text(&heading);
    let start = card.match_indices(&heading).map(|(at, _)| at);
    let start = start.into_iter().find(|&at| at == 0 || card[..at].ends_with('\n'));
    let Some(start) = start else {
        return format!("{}\n\n{text}", card.trim_end());
    };
    let body = start + heading.len();
    match card[body..].find("\n## ") {
        Some(next) => format!("{}{text}{}", &card[..start], &card[body + next..]),
        None => format!("{}{text}", &card[..start]),
    }
}

impl Section<'_> {
    fn text(&self, heading: &str) -> String {
        let Self { words, command, report, .. } = self;
        let pictures: String =
            self.pictures.iter().map(|(path, shows)| format!("\n![{shows}]({path})\n")).collect();
        format!(
            "{heading}\n{} people, {} pictures: {words}. Intervals are 95 %, by bootstrap over people. *As drawn*: after \
             what an upload may go through (gamma, resizing, blur, noise, JPEG 40 to 100; each by chance, alike for both classes); \
             *JPEG 75*: the same with JPEG 75 instead of the drawn one; *untouched*: as cut out of the photo. Measured with the weights and the arithmetic that are served, by `{command}`.\n\n\
             {}\n{}{pictures}",
            report.identities,
            report.pictures,
            report.table(),
            report.property_table()
        )
    }
}

const LIMITS: &str = "It finds a face that was pasted or blended into a picture. It was not validated on fully synthetic faces, on \
    reenactment, on video codecs, on groups of people that those photos do not show, or on anyone's public benchmark. What a \
    picture goes through on its way (resizing, blur, noise, JPEG) is done to the crop of 256 × 256 pixels, after the face was \
    found and cut, in training and in what was measured: a real upload goes through it as a whole photo, before, where a block \
    of JPEG is larger or smaller than in the crop and the face may be found a little elsewhere. It is good for demonstrations, \
    for tests, and as a start for fine-tuning on data of your own; a moderation decision needs more than it.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::Judgement;

    #[test]
    fn a_card_that_is_calibrated_anew_keeps_its_facts_and_loses_its_numbers() {
        let old = "# a 1\n\n- **Data**: mine\n- **Calibration**: old\n- **Thresholds**: old\n\n![Training](x)\n\n## What it is not\n\n\
                   Much.\n\n## Measured on photos\n\nOld numbers.\n";
        let manifest = Manifest {
            calibration: Calibration::Platt { slope: 2.0, intercept: 0.5, covariance: [0.0; 3] },
            calibrated_on: "mine.csv".to_owned(),
            thresholds: None,
            ..manifest()
        };
        let new = recalibrated(old, &manifest, "touchstone-train calibrate a b");
        for expected in [
            "# a 1\n\n- **Data**: mine\n- **Calibration**: P(forged) = σ(2.0000 · logit + 0.5000)",
            "fitted on mine.csv. By `touchstone-train calibrate a b`.\n- **Thresholds**: None",
            "\n\n![Training](x)\n\n## What it is not\n\nMuch.\n",
        ] {
            assert!(new.contains(expected), "{expected} is not in:\n{new}");
        }
        assert!(!new.contains(": old") && !new.contains("Old numbers"), "{new}");
    }

    fn manifest() -> Manifest {
        Manifest {
            name: "a".to_owned(),
            version: "1".to_owned(),
            architecture: models::Architecture::MINI,
            fusion: models::Fusion::Official,
            preprocessing: forensics::Preprocessing {
                crop: forensics::CropMode::Aligned,
                face_detector: "x".to_owned(),
            },
            calibration: Calibration::None,
            calibrated_on: String::new(),
            thresholds: None,
            licence: "CC0-1.0".to_owned(),
            training: "none".to_owned(),
            measured: Vec::new(),
        }
    }

    #[test]
    fn a_section_takes_the_place_of_its_own_kind_and_nothing_else_moves() {
        let judgement = Judgement::of(Vec::new(), Calibration::None, None);
        let section = |on: &'static str, words: &'static str| Section {
            on,
            words,
            command: "touchstone-train evaluate a b",
            report: &judgement.report,
            pictures: &[],
        };
        let bare = "# a 1\n\nMade by hand.\n\n## Mine\n\nMine.\n";
        let one = with_section(bare, &section("photos", "old words"));
        assert!(one.starts_with(bare) && one.contains("\n\n## Measured on photos\n\n"), "{one}");
        let two = with_section(&one, &section("photos of others", "other words"));
        assert!(two.starts_with(&one), "{two}");
        let again = with_section(&two, &section("photos", "new words"));
        assert_eq!(again, two.replace("old words", "new words"));
        assert_eq!(with_section(&again, &section("photos of others", "other words")), again);
        let notes = format!("{again}\n## Notes\n\nMine, too.\n");
        let last = with_section(&notes, &section("photos of others", "last words"));
        assert_eq!(last, notes.replace("other words", "last words"));
    }
}
