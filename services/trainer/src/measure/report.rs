//! What an evaluation found: numbers with intervals.

use std::collections::{BTreeMap, BTreeSet};

use forensics::{Calibration, Thresholds};
use serde::Serialize;

use crate::data::labels::AUTHENTIC;
use crate::measure::metrics::{Confusion, Estimate, Ranking, Resampling, Scored, bootstrap, confusion};
use crate::measure::samples::{Condition, Sample, scores};

/// Judged samples, what their scores mean, and what all that amounts to.
pub(crate) struct Judgement {
    pub(crate) samples: Vec<Sample>,
    pub(crate) calibration: Calibration,
    pub(crate) thresholds: Option<Thresholds>,
    pub(crate) report: Report,
}

impl Judgement {
    pub(crate) fn of(samples: Vec<Sample>, calibration: Calibration, thresholds: Option<Thresholds>) -> Self {
        let report = Report::of(&samples, &calibration, thresholds);
        Self { samples, calibration, thresholds, report }
    }

    /// The condition that pictures show and properties are measured under: as drawn, or whatever there is.
    pub(crate) fn main_condition(&self) -> Condition {
        main_condition(&self.samples)
    }
}

/// Everything that was measured. Intervals are 95 %, by bootstrap over identities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) identities: usize,
    pub(crate) pictures: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) alarms: Vec<Alarms>,
    pub(crate) groups: Vec<Property>,
}

/// How well one kind of forgery is told from the authentic, under one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) condition: Condition,
    /// Which forgeries; all of them together in the last row of a condition.
    pub(crate) kind: String,
    pub(crate) authentic: usize,
    pub(crate) forged: usize,
    pub(crate) auc: Option<Estimate>,
    /// Of media, each the mean of its pictures; where media have more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media_auc: Option<Estimate>,
    pub(crate) equal_error_rate: Option<Estimate>,
    pub(crate) average_precision: Option<Estimate>,
    pub(crate) tpr_at_1_percent_fpr: Option<Estimate>,
}

/// What verdicts would say, under one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Alarms {
    pub(crate) condition: Condition,
    /// Share of the pristine that are LIKELY_FORGED.
    pub(crate) false_alarms: Option<Estimate>,
    /// Ten bins of equal mass, under a 50/50 prior.
    pub(crate) calibration_error: Option<Estimate>,
    pub(crate) confusion: Option<Confusion>,
}

/// AUC by one property of the samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<Share>,
}

/// The samples with one value of a property.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    pub(crate) name: String,
    pub(crate) pictures: usize,
    pub(crate) auc: Option<Estimate>,
}

/// Rows of all forgeries together.
pub(crate) const ALL: &str = "all";

impl Report {
    fn of(samples: &[Sample], calibration: &Calibration, thresholds: Option<Thresholds>) -> Self {
        let people: BTreeSet<u32> = samples.iter().map(|sample| sample.person).collect();
        let kinds: BTreeSet<&str> = samples.iter().map(|sample| &*sample.kind).collect();
        let kinds: Vec<&str> = kinds.into_iter().filter(|kind| *kind != AUTHENTIC).collect();
        let (mut rows, mut alarms) = (Vec::new(), Vec::new());
        for condition in Condition::ALL {
            let here: Vec<&Sample> = samples.iter().filter(|sample| sample.condition == condition).collect();
            if here.is_empty() {
                continue;
            }
            for kind in kinds.iter().copied().chain((kinds.len() != 1).then_some(ALL)) {
                rows.push(Row::of(&here, condition, kind));
            }
            alarms.push(Alarms::of(&here, condition, calibration, thresholds));
        }
        Self { identities: people.len(), pictures: samples.len(), rows, alarms, groups: properties(samples) }
    }

    /// For the terminal and the card: Markdown.
    pub(crate) fn table(&self) -> String {
        let of_media = self.rows.iter().any(|row| row.media_auc.is_some());
        let [head, line] = if of_media { [" AUC of media |", "---|"] } else { [""; 2] };
        let mut text = format!(
            "| condition | forgeries | AUC |{head} EER | average precision | TPR at 1 % FPR |\n|---|---|---|{line}---|---|---|\n",
        );
        for row in &self.rows {
            let mut cells = vec![shown(row.auc)];
            cells.extend(of_media.then(|| shown(row.media_auc)));
            cells.extend([row.equal_error_rate, row.average_precision, row.tpr_at_1_percent_fpr].map(shown));
            text += &format!(
                "| {} | {} ({}) | {} |\n",
                row.condition.as_str(),
                row.kind,
                row.forged,
                cells.join(" | ")
            );
        }
        text += "\n| condition | pristine called LIKELY_FORGED | calibration error | authentic → forged / inconclusive / \
                 authentic | forged → forged / inconclusive / authentic |\n|---|---|---|---|---|\n";
        for alarms in &self.alarms {
            let outcomes = alarms.confusion.map(|found| [found.of_authentic, found.of_forged]);
            let [authentic, forged] = match outcomes {
                Some(both) => {
                    both.map(|of| format!("{} / {} / {}", of.forged, of.inconclusive, of.authentic))
                }
                None => std::array::from_fn(|_| "no thresholds".to_owned()),
            };
            text += &format!(
                "| {} | {} | {} | {authentic} | {forged} |\n",
                alarms.condition.as_str(),
                shown(alarms.false_alarms),
                shown(alarms.calibration_error)
            );
        }
        text
    }

    /// AUC by property, as Markdown.
    pub(crate) fn property_table(&self) -> String {
        let mut text = String::from("| property | value | pictures | AUC |\n|---|---|---|---|\n");
        for property in &self.groups {
            for part in &property.parts {
                text += &format!(
                    "| {} | {} | {} | {} |\n",
                    property.name,
                    part.name,
                    part.pictures,
                    shown(part.auc)
                );
            }
        }
        text
    }
}

/// `0.953 (0.941–0.964)`.
pub(crate) fn shown(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(
        || "undefined".to_owned(),
        |Estimate { value, low, high }| format!("{value:.3} ({low:.3}–{high:.3})"),
    )
}

fn estimate(scored: &[Scored], statistic: impl Fn(&Ranking) -> Option<f64> + Sync) -> Option<Estimate> {
    bootstrap(scored, statistic, Resampling::default())
}

impl Row {
    /// Whether it is about that sample.
    pub(crate) fn counts(&self, sample: &Sample) -> bool {
        sample.condition == self.condition && (self.kind == ALL || sample.measures(&self.kind))
    }

    fn of(here: &[&Sample], condition: Condition, kind: &str) -> Self {
        let wanted = || here.iter().copied().filter(|sample| kind == ALL || sample.measures(kind));
        let scored = scores(wanted());
        let forged = scored.iter().filter(|scored| scored.forged).count();
        Self {
            condition,
            kind: kind.to_owned(),
            authentic: scored.len() - forged,
            forged,
            auc: estimate(&scored, Ranking::auc),
            media_auc: media(wanted()).and_then(|media| estimate(&media, Ranking::auc)),
            equal_error_rate: estimate(&scored, Ranking::equal_error_rate),
            average_precision: estimate(&scored, Ranking::average_precision),
            tpr_at_1_percent_fpr: estimate(&scored, |ranking| ranking.tpr_at_fpr(0.01)),
        }
    }
}

/// One score for each medium, the mean of its pictures' logits; `None` where each has one picture, or nobody knows.
fn media<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Vec<Scored>> {
    let mut sums: BTreeMap<(u32, &str, bool), (Scored, f32)> = BTreeMap::new();
    let mut pictures = 0;
    for sample in samples {
        let new = Scored { logit: 0.0, forged: sample.is_forged(), identity: sample.person };
        let (sum, count) =
            sums.entry((sample.person, sample.group.as_deref()?, sample.is_forged())).or_insert((new, 0.0));
        sum.logit += sample.logit;
        *count += 1.0;
        pictures += 1;
    }
    let mean = |(sum, count): (Scored, f32)| Scored { logit: sum.logit / count, ..sum };
    (sums.len() < pictures).then(|| sums.into_values().map(mean).collect())
}

impl Alarms {
    fn of(
        here: &[&Sample],
        condition: Condition,
        calibration: &Calibration,
        thresholds: Option<Thresholds>,
    ) -> Self {
        let scored = &scores(here.iter().copied());
        let pristine = scores(here.iter().copied().filter(|sample| sample.is_pristine()));
        let calibrated = *calibration != Calibration::None;
        Self {
            condition,
            false_alarms: thresholds.and_then(|found| {
                estimate(&pristine, |ranking| ranking.false_alarms(calibration, found.forged))
            }),
            calibration_error: calibrated
                .then(|| estimate(scored, |ranking| ranking.calibration_error(calibration)))
                .flatten(),
            confusion: thresholds.map(|thresholds| confusion(scored, calibration, thresholds)),
        }
    }
}

/// See [`Judgement::main_condition`].
fn main_condition(samples: &[Sample]) -> Condition {
    let drawn = samples.iter().any(|sample| sample.condition == Condition::AsDrawn);
    if drawn { Condition::AsDrawn } else { Condition::Untouched }
}

/// Blending strength, JPEG quality and face size, over the samples as drawn (or whatever there is).
fn properties(samples: &[Sample]) -> Vec<Property> {
    let condition = main_condition(samples);
    let here: Vec<&Sample> = samples.iter().filter(|sample| sample.condition == condition).collect();
    let part = |name: String, wanted: &dyn Fn(&Sample) -> bool| {
        let scored = scores(here.iter().copied().filter(|sample| wanted(sample)));
        Share { name, pictures: scored.len(), auc: estimate(&scored, Ranking::auc) }
    };
    let strengths = [0.25, 0.5, 0.75, 1.0].map(|strength: f32| {
        let of_it = move |sample: &Sample| sample.strength == strength;
        // All the authentic are what each strength is told from: they say nothing about how often it came.
        let pictures = here.iter().filter(|sample| of_it(sample)).count();
        let share = part(format!("{strength}"), &move |sample| !sample.is_forged() || of_it(sample));
        Share { pictures, ..share }
    });
    let band = |low: u8, high: u8| {
        part(format!("{low} to {high}"), &move |sample| {
            sample.jpeg.is_some_and(|quality| (low..=high).contains(&quality))
        })
    };
    let qualities =
        [part("none".to_owned(), &|sample| sample.jpeg.is_none()), band(90, 100), band(70, 89), band(40, 69)];
    let sizes = [(0.0, 96.0), (96.0, 160.0), (160.0, 240.0), (240.0, f32::INFINITY)].map(|(low, high)| {
        let name = if high.is_finite() { format!("{low} to {high} px") } else { format!("{low} px or more") };
        part(name, &move |sample| (low..high).contains(&sample.face_size))
    });
    let filled = |parts: Vec<Share>| parts.into_iter().filter(|part| part.pictures > 0).collect::<Vec<_>>();
    // Of labelled pictures nobody knows how strong they are.
    let strong = here.iter().any(|sample| sample.strength > 0.0);
    let all = [
        ("blending strength", filled(if strong { strengths.into() } else { Vec::new() })),
        ("JPEG quality", filled(qualities.into())),
        ("face size", filled(sizes.into())),
    ];
    all.into_iter()
        .filter(|(_, parts)| parts.len() > 1)
        .map(|(name, parts)| Property { name, parts })
        .collect()
}
