//! Pictures of a training run and of an evaluation, as SVG documents.
//!
//! Each is a function of plain data. Blue is authentic, orange is forged, wherever classes are shown.

use forensics::{Calibration, Thresholds};

use crate::measure::metrics::{Estimate, Reliability, RocPoint, Scored};
use canvas::{AUTHENTIC, Anchor, Area, Axis, Canvas, FAINT, FORGED, Panel, SERIES, Stroke, Words, width_of};

pub(crate) mod canvas;

/// A named line.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve<'a> {
    /// What the legend says.
    pub name: &'a str,
    /// Step and value, in the order of steps.
    pub points: &'a [(u64, f64)],
}

/// A receiver operating characteristic with its area.
#[derive(Clone, Debug, PartialEq)]
pub struct RocCurve<'a> {
    /// What the legend says.
    pub name: &'a str,
    /// From (0, 0) to (1, 1): [`crate::measure::metrics::Ranking::roc`].
    pub points: &'a [RocPoint],
    /// The area under it.
    pub auc: Estimate,
}

/// AUC of one part of the pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    /// Such as `JPEG 75`.
    pub name: &'a str,
    /// Pictures in it.
    pub count: usize,
    /// AUC; `None` where the part does not define it, which the chart says.
    pub auc: Option<Estimate>,
}

/// Parts by one property.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// The property, such as `JPEG quality`.
    pub name: &'a str,
    /// Its values, in their order.
    pub parts: &'a [Part<'a>],
}

/// Colour number `index`; they repeat.
fn series(index: usize) -> &'static str {
    SERIES[index % SERIES.len()]
}

/// Training: the loss of each step, raw and smoothed (a running mean of a fiftieth of the run), and below it the
/// validation AUC of each manipulation. Values that are not finite are left out.
pub fn training(title: &str, loss: &[(u64, f64)], auc: &[Curve<'_>]) -> String {
    let mut canvas = Canvas::new(900.0, 640.0, title);
    let finite = |points: &[(u64, f64)]| -> Vec<(f64, f64)> {
        points
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|&(step, value)| (step as f64, value))
            .collect()
    };
    let loss = finite(loss);
    let curves: Vec<_> = auc.iter().map(|curve| (curve.name, finite(curve.points))).collect();
    let steps = loss.iter().chain(curves.iter().flat_map(|(_, points)| points)).map(|(step, _)| *step);
    let last = steps.fold(1.0, f64::max);

    // The first steps may be far above the rest: the axis ends where 99 % of the losses do.
    let mut sorted: Vec<f64> = loss.iter().map(|(_, value)| *value).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let most = sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(1.0) * 1.08;
    let low = sorted.first().copied().unwrap_or(0.0).min(0.0);
    let panel = Panel {
        area: Area { left: 78.0, top: 84.0, right: 870.0, bottom: 310.0 },
        x: Axis::new("step", 0.0, last),
        y: Axis::new("loss", low, most),
    };
    canvas.legend((78.0, 66.0), &[("#c3d9e8", "loss of a step".into()), (AUTHENTIC, "running mean".into())]);
    panel.draw(&mut canvas);
    panel.curve(&mut canvas, &envelope(&loss), Stroke::new("#9fc4dc", 1.0).opacity(0.7));
    panel.curve(&mut canvas, &smoothed(&loss), Stroke::new(AUTHENTIC, 2.2));

    let values = curves.iter().flat_map(|(_, points)| points).map(|(_, value)| *value);
    let lowest = values.fold(0.9, f64::min);
    let panel = Panel {
        area: Area { left: 78.0, top: 384.0, right: 870.0, bottom: 586.0 },
        x: Axis::new("step", 0.0, last),
        y: Axis::new("validation AUC", ((lowest * 20.0 - 0.2).floor() / 20.0).max(0.0), 1.0),
    };
    let mut keys = Vec::new();
    for (index, (name, points)) in curves.iter().enumerate() {
        let value = points.last().map_or_else(String::new, |(_, value)| format!(" {value:.3}"));
        keys.push((series(index), format!("{name}{value}")));
    }
    canvas.legend((78.0, 366.0), &keys);
    panel.draw(&mut canvas);
    for (index, (_, points)) in curves.iter().enumerate() {
        panel.curve(&mut canvas, points, Stroke::new(series(index), 2.0));
        for &(x, y) in points.iter().filter(|_| points.len() <= 60) {
            canvas.dot(panel.at(x, y), 3.0, series(index));
        }
    }
    canvas.finish()
}

/// Lowest and highest of each of at most 400 stretches: what a line through all points would cover.
fn envelope(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(400).max(1);
    if stretch < 3 {
        return points.to_vec();
    }
    let ends = |part: &[(f64, f64)]| {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (part.iter().min_by(by_value).copied(), part.iter().max_by(by_value).copied());
        low.into_iter().chain(high)
    };
    points.chunks(stretch).flat_map(ends).collect()
}

/// Centred running mean over a fiftieth of the points, at least five; shorter at the ends.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 100).max(2);
    let mut sums = vec![0.0];
    sums.extend(points.iter().scan(0.0, |sum, (_, value)| {
        *sum += value;
        Some(*sum)
    }));
    let mean = |(index, (step, _)): (usize, &(f64, f64))| {
        let (from, to) = (index.saturating_sub(reach), (index + reach + 1).min(points.len()));
        (*step, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Receiver operating characteristics: the whole on the left; on the right the false positive rates that matter, on a
/// logarithmic axis, with 1 % marked.
pub fn roc(title: &str, curves: &[RocCurve<'_>]) -> String {
    let height = 570.0 + 20.0 * curves.len().saturating_sub(1) as f64;
    let mut canvas = Canvas::new(1000.0, height, title);
    let area = |left: f64| Area { left, top: 60.0, right: left + 410.0, bottom: 470.0 };
    let rates = curves.iter().flat_map(|curve| curve.points).map(|point| point.false_positive_rate);
    let least = rates.filter(|rate| *rate > 0.0).fold(0.01, f64::min).max(1e-4);
    let whole = Panel {
        area: area(78.0),
        x: Axis::new("false positive rate (authentic called forged)", 0.0, 1.0),
        y: Axis::new("true positive rate (forged called forged)", 0.0, 1.0),
    };
    let low = Panel {
        area: area(564.0),
        x: Axis::log("false positive rate, logarithmic", 10f64.powf(least.log10().floor()), 1.0),
        y: Axis::new("true positive rate", 0.0, 1.0),
    };
    for panel in [&whole, &low] {
        panel.draw(&mut canvas);
    }
    let chance = Stroke::new(FAINT, 1.0).dashed();
    whole.curve(&mut canvas, &[(0.0, 0.0), (1.0, 1.0)], chance);
    low.curve(&mut canvas, &[(0.01, 0.0), (0.01, 1.0)], chance);
    let mark = low.at(0.01, 0.0);
    canvas.words((mark.0 + 5.0, mark.1 - 7.0), Words::new(Anchor::Start).faint(), "1 %");
    for (index, curve) in curves.iter().enumerate() {
        let points: Vec<_> =
            curve.points.iter().map(|point| (point.false_positive_rate, point.true_positive_rate)).collect();
        whole.curve(&mut canvas, &points, Stroke::new(series(index), 2.0));
        low.curve(&mut canvas, &from(&points, low.x.low), Stroke::new(series(index), 2.0));
        let Estimate { value, low, high } = curve.auc;
        let words = format!("{}: AUC {value:.3} [{low:.3}, {high:.3}]", curve.name);
        canvas.legend((78.0, 545.0 + 20.0 * index as f64), &[(series(index), words)]);
    }
    canvas.words((974.0, 545.0), Words::new(Anchor::End).faint(), "[95 % interval, identities resampled]");
    canvas.finish()
}

/// The part of a characteristic from `start` on, which a logarithmic axis can show.
fn from(points: &[(f64, f64)], start: f64) -> Vec<(f64, f64)> {
    let first = points.iter().rposition(|(x, _)| *x <= start).unwrap_or(0);
    let (x, y) = points.get(first).copied().unwrap_or_default();
    let next = points.get(first + 1).copied().unwrap_or((x, y));
    let share = if next.0 > x { (start - x).max(0.0) / (next.0 - x) } else { 0.0 };
    let entry = (start, y + share * (next.1 - y));
    std::iter::once(entry).chain(points.iter().skip(first + 1).copied()).collect()
}

/// Predicted against observed P(forged), the gap of each bin drawn, and below it what the bins hold.
pub fn reliability(title: &str, reliability: &Reliability) -> String {
    let error = format!("{title} (expected calibration error {:.3})", reliability.calibration_error);
    let mut canvas = Canvas::new(560.0, 720.0, &error);
    let panel = Panel {
        area: Area { left: 78.0, top: 84.0, right: 530.0, bottom: 480.0 },
        x: Axis::new("predicted P(forged), mean of the bin", 0.0, 1.0),
        y: Axis::new("observed share of forged", 0.0, 1.0),
    };
    let keys = [(AUTHENTIC, "bin of equal mass".into()), (FORGED, "gap".into()), (FAINT, "perfect".into())];
    canvas.legend((78.0, 66.0), &keys);
    panel.draw(&mut canvas);
    panel.curve(&mut canvas, &[(0.0, 0.0), (1.0, 1.0)], Stroke::new(FAINT, 1.0).dashed());
    for bin in &reliability.bins {
        let gap = [(bin.predicted, bin.predicted), (bin.predicted, bin.observed)];
        panel.curve(&mut canvas, &gap, Stroke::new(FORGED, 3.0).opacity(0.6));
    }
    let points: Vec<_> = reliability.bins.iter().map(|bin| (bin.predicted, bin.observed)).collect();
    panel.curve(&mut canvas, &points, Stroke::new(AUTHENTIC, 1.5).opacity(0.6));
    for &(x, y) in &points {
        canvas.dot(panel.at(x, y), 5.0, AUTHENTIC);
    }
    bin_counts(&mut canvas, reliability);
    canvas.finish()
}

/// Bars of authentic and forged, one on the other, with their sum above.
fn bin_counts(canvas: &mut Canvas, reliability: &Reliability) {
    let most = reliability.bins.iter().map(|bin| bin.authentic + bin.forged).max().unwrap_or(1);
    let count = reliability.bins.len();
    let mut panel = Panel {
        area: Area { left: 78.0, top: 570.0, right: 530.0, bottom: 670.0 },
        x: Axis::new("bin, from the lowest P(forged) to the highest", 0.5, count.max(1) as f64 + 0.5),
        y: Axis::new("pictures", 0.0, most as f64 * 1.2),
    };
    panel.x.ticks = (1..=count).map(|bin| (bin as f64, bin.to_string())).collect();
    panel.y.ticks.retain(|(value, _)| value.fract() == 0.0);
    canvas.legend((78.0, 552.0), &[(AUTHENTIC, "authentic".into()), (FORGED, "forged".into())]);
    panel.draw(canvas);
    for (index, bin) in reliability.bins.iter().enumerate() {
        let (authentic, both) = (bin.authentic as f64, (bin.authentic + bin.forged) as f64);
        for (low, high, colour) in [(0.0, authentic, AUTHENTIC), (authentic, both, FORGED)] {
            let (left, bottom) = panel.at(index as f64 + 0.65, low);
            let (right, top) = panel.at(index as f64 + 1.35, high);
            canvas.fill(Area { left, top, right, bottom }, colour, 0.8);
        }
        let (x, y) = panel.at(index as f64 + 1.0, both);
        canvas.words((x, y - 4.0), Words::new(Anchor::Middle).faint(), &both.to_string());
    }
}

/// P(forged) of both classes, each as shares of itself, on a logistic axis, where the ends are not squeezed; the
/// thresholds and what verdicts say between them.
///
/// # Panics
/// If a logit is not finite.
pub fn scores(
    title: &str,
    scored: &[Scored],
    calibration: &Calibration,
    thresholds: Option<Thresholds>,
) -> String {
    const BINS: usize = 60;
    let mut canvas = Canvas::new(900.0, 470.0, title);
    let places: Vec<(f64, bool)> = scored
        .iter()
        .map(|scored| (log_odds(f64::from(scored.probability(calibration))), scored.forged))
        .collect();
    let furthest = places.iter().fold(3.0f64, |most, (z, _)| most.max(z.abs()));
    let reach = (furthest * 1.02).min(FURTHEST);
    let mut counts = [[0usize; 2]; BINS];
    for (z, forged) in &places {
        let place = (z + reach) / (2.0 * reach) * BINS as f64;
        counts[(place.max(0.0) as usize).min(BINS - 1)][usize::from(*forged)] += 1;
    }
    let total = |class: usize| counts.iter().map(|count| count[class]).sum::<usize>();
    let totals = [total(0), total(1)];
    let share = |bin: usize, class: usize| 100.0 * counts[bin][class] as f64 / totals[class].max(1) as f64;
    let most = (0..BINS).flat_map(|bin| [share(bin, 0), share(bin, 1)]).fold(1.0, f64::max);
    let mut panel = Panel {
        area: Area { left: 78.0, top: 116.0, right: 870.0, bottom: 412.0 },
        x: Axis::new("P(forged), on a logistic axis", -reach, reach),
        y: Axis::new("% of the class in a bar", 0.0, most * 1.08),
    };
    let marks = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
    panel.x.ticks = marks.into_iter().map(|p| (log_odds(p), format!("{p}"))).collect();
    panel.x.ticks.retain(|(z, _)| z.abs() <= reach);
    let keys =
        [(AUTHENTIC, format!("authentic ({})", totals[0])), (FORGED, format!("forged ({})", totals[1]))];
    canvas.legend((78.0, 66.0), &keys);
    panel.draw(&mut canvas);
    for (class, colour) in [AUTHENTIC, FORGED].into_iter().enumerate() {
        let edge = |bin: usize| -reach + 2.0 * reach * bin as f64 / BINS as f64;
        let mut outline = vec![(-reach, 0.0)];
        for bin in 0..BINS {
            outline.extend([(edge(bin), share(bin, class)), (edge(bin + 1), share(bin, class))]);
        }
        outline.push((reach, 0.0));
        let corners: Vec<_> = outline.iter().map(|&(x, y)| panel.at(x, y)).collect();
        canvas.polygon(&corners, colour, 0.3);
        panel.curve(&mut canvas, &outline, Stroke::new(colour, 1.4));
    }
    if let Some(thresholds) = thresholds {
        mark_thresholds(&mut canvas, &panel, thresholds);
    }
    canvas.finish()
}

/// Log-odds that a probability may have on the axis; f32's nearest to 1 is 16.6.
const FURTHEST: f64 = 16.0;

fn log_odds(p: f64) -> f64 {
    (p / (1.0 - p)).ln().clamp(-FURTHEST, FURTHEST)
}

/// The two lines, and above the panel what lies on each side.
fn mark_thresholds(canvas: &mut Canvas, panel: &Panel, thresholds: Thresholds) {
    let Area { left, top, right, .. } = panel.area;
    let place = |p: f32| panel.at(log_odds(f64::from(p)), 0.0).0;
    let (authentic, forged) = (place(thresholds.authentic), place(thresholds.forged));
    let regions = [
        (left, authentic, AUTHENTIC, "LIKELY_AUTHENTIC"),
        (authentic, forged, FAINT, "INCONCLUSIVE"),
        (forged, right, FORGED, "LIKELY_FORGED"),
    ];
    for (from, to, colour, words) in regions {
        canvas.fill(Area { left: from, top: top - 8.0, right: to, bottom: top - 3.0 }, colour, 0.9);
        if to - from > width_of(words, 11.0) + 8.0 {
            let style = Words { size: 11.0, colour, ..Words::new(Anchor::Middle) };
            canvas.words(((from + to) / 2.0, top - 14.0), style, words);
        }
    }
    let ink = Stroke::new(canvas::INK, 1.3).dashed();
    let both = thresholds.authentic < thresholds.forged;
    for (x, p, anchor, beside, shown) in [
        (authentic, thresholds.authentic, Anchor::End, -5.0, both),
        (forged, thresholds.forged, Anchor::Start, 5.0, true),
    ] {
        if shown {
            canvas.line(&[(x, top), (x, panel.area.bottom)], ink);
            canvas.words((x + beside, top + 14.0), Words::new(anchor), &format!("{p:.3}"));
        }
    }
}

/// AUC of each part of each group: a dot, its 95 % interval, and both in figures.
pub fn groups(title: &str, groups: &[Group<'_>]) -> String {
    const ROW: f64 = 24.0;
    let rows = groups.iter().map(|group| group.parts.len() as f64 + 1.4).sum::<f64>();
    let bottom = 66.0 + ROW * rows.max(1.0);
    let mut canvas = Canvas::new(900.0, bottom + 62.0, title);
    let parts = || groups.iter().flat_map(|group| group.parts);
    let lowest = parts().filter_map(|part| part.auc).fold(0.9, |low: f64, auc| low.min(auc.low));
    let names = parts().map(|part| width_of(part.name, 12.0)).fold(90.0, f64::max).min(300.0);
    let mut panel = Panel {
        area: Area { left: names + 108.0, top: 56.0, right: 700.0, bottom },
        x: Axis::new(
            "AUC (dot) with its 95 % interval, identities resampled",
            (lowest * 20.0).floor() / 20.0,
            1.0,
        ),
        y: Axis::new("", 0.0, 1.0),
    };
    panel.y.ticks.clear();
    panel.draw(&mut canvas);
    let Area { left, right, .. } = panel.area;
    let mut y = 56.0;
    for (index, group) in groups.iter().enumerate() {
        y += ROW;
        canvas.words((24.0, y), Words { bold: true, ..Words::new(Anchor::Start) }, group.name);
        for part in group.parts {
            y += ROW;
            canvas.words((36.0, y + 4.0), Words::new(Anchor::Start), part.name);
            let count = format!("n = {}", part.count);
            canvas.words((left - 10.0, y + 4.0), Words::new(Anchor::End).faint(), &count);
            let Some(Estimate { value, low, high }) = part.auc else {
                canvas.words((right + 14.0, y + 4.0), Words::new(Anchor::Start).faint(), "not defined");
                continue;
            };
            let x = |value: f64| panel.at(value, 0.0).0;
            canvas.line(&[(x(low), y), (x(high), y)], Stroke::new(series(index), 3.0).opacity(0.45));
            canvas.dot((x(value), y), 5.0, series(index));
            let words = format!("{value:.3} [{low:.3}, {high:.3}]");
            canvas.words((right + 14.0, y + 4.0), Words::new(Anchor::Start), &words);
        }
        y += ROW * 0.4;
    }
    canvas.finish()
}
