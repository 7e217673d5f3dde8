//! `MODEL_CARD.md`, generated from the numbers: what the model is, what it was measured to do, and what it is not for.

use forensics::Calibration;
use models::bundle::Manifest;

use crate::report::Report;

/// What only the person who trains can say.
pub(crate) struct Statement<'a> {
    pub(crate) data: &'a str,
    pub(crate) split: &'a str,
    /// The command that made it.
    pub(crate) command: &'a str,
}

/// A report and what it was measured on.
pub(crate) struct Measured<'a> {
    pub(crate) report: &'a Report,
    pub(crate) on: &'a str,
}

/// The card. `measured`: validation first, then the test, if it was made.
pub(crate) fn card(manifest: &Manifest, statement: &Statement<'_>, measured: &[Measured<'_>]) -> String {
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
    let mut text = format!(
        "# {name} {version}\n\nA model of Touchstone: the two-stream network of Luo et al. (CVPR 2021), {architecture}, on faces cut as \
         `{crop}`.\n\n\
         - **Licence**: {licence}\n- **Data**: {}\n- **Split**: {}\n- **Training**: {training}\n- **Made with**: `{}`\n\
         - **Calibration**: {calibration}\n- **Thresholds**: {thresholds}\n",
        statement.data, statement.split, statement.command
    );
    text += LIMITS;
    for Measured { report, on } in measured {
        text += &format!(
            "\n## Measured on {on}\n\n{} people, {} pictures. Intervals are 95 %, by bootstrap over people. *As drawn*: after \
             gamma, resizing, blur, noise and JPEG 40 to 100, drawn alike for both classes; *JPEG 75*: the same with JPEG 75 at its \
             end; *untouched*: as cut out of the photo.\n\n{}\n{}",
            report.identities,
            report.pictures,
            report.table(),
            report.property_table()
        );
    }
    text
}

const LIMITS: &str = "\n## What it is not\n\n\
    It was taught on forgeries made on the fly (self-blended, swapped, regional: blending artefacts) of the photos named above. It \
    finds a face that was pasted or blended into a picture. It was not validated on fully synthetic faces, on reenactment, on \
    video codecs, on groups of people that those photos do not show, or on anyone's public benchmark. It is good for \
    demonstrations, for tests, and as a start for fine-tuning on data of your own; a moderation decision needs more than it.\n";
