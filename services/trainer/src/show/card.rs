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
    pub(crate) training: Option<&'a str>,
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
    let calibration = match manifest.calibration {
        Calibration::None => "None: every verdict abstains.".to_owned(),
        Calibration::Platt { slope, intercept, .. } => format!(
            "P(forged) = σ({slope:.4} · logit + {intercept:.4}), under a prior of 50/50, fitted on {}.",
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
    let picture = statement.training.map(|path| format!("\n![Training]({path})\n")).unwrap_or_default();
    format!(
        "# {name} {version}\n\nA model of Touchstone: the two-stream network of Luo et al. (CVPR 2021), {architecture}, on faces cut as \
         `{crop}`.\n\n\
         - **Licence**: {licence}\n- **Data**: {}\n- **Split**: {}\n- **Training**: {training}\n- **Made with**: `{}`\n\
         - **Calibration**: {calibration}\n- **Thresholds**: {thresholds}\n{picture}{LIMITS}",
        statement.data, statement.split, statement.command
    )
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
            "{heading}\n{} people, {} pictures: {words}. Intervals are 95 %, by bootstrap over people. *As drawn*: after gamma, \
             resizing, blur, noise and JPEG 40 to 100, drawn alike for both classes; *JPEG 75*: the same with JPEG 75 at its end; \
             *untouched*: as cut out of the photo. Measured with the weights and the arithmetic that are served, by `{command}`.\n\n\
             {}\n{}{pictures}",
            report.identities,
            report.pictures,
            report.table(),
            report.property_table()
        )
    }
}

const LIMITS: &str = "\n## What it is not\n\n\
    It was taught on forgeries made on the fly (self-blended, swapped, regional: blending artefacts) of the photos named above. It \
    finds a face that was pasted or blended into a picture. It was not validated on fully synthetic faces, on reenactment, on \
    video codecs, on groups of people that those photos do not show, or on anyone's public benchmark. What a picture goes \
    through on its way (resizing, blur, noise, JPEG) is done to the crop of 256 × 256 pixels, after the face was found and cut, in \
    training and in what was measured: a real upload goes through it as a whole photo, before, where a block of JPEG is larger or \
    smaller than in the crop and the face may be found a little elsewhere. It is good for demonstrations, for tests, and as a \
    start for fine-tuning on data of your own; a moderation decision needs more than it.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::Judgement;

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
