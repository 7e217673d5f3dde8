//! SVG by hand: shapes, words, axes. Lengths are pixels, y grows downwards.

use std::fmt::Write;

/// Words and rules.
pub(crate) const INK: &str = "#1f2933";
/// Words of lesser weight.
pub(crate) const FAINT: &str = "#66727f";
const GRID: &str = "#e6eaee";
const FRAME: &str = "#aab4be";
/// The authentic, everywhere (Okabe & Ito, 2008: told apart by the colour-blind).
pub(crate) const AUTHENTIC: &str = "#0072b2";
/// The forged, everywhere.
pub(crate) const FORGED: &str = "#d55e00";
/// Series without a meaning of their own, in order.
pub(crate) const SERIES: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"];

/// A picture under construction.
pub(crate) struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

/// How words look.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub(crate) anchor: Anchor,
    pub(crate) size: f64,
    pub(crate) colour: &'static str,
    pub(crate) bold: bool,
}

/// Which part of the words lies at the point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
    /// Middle, turned to read upwards.
    Upright,
}

/// How a line looks.
#[derive(Clone, Copy)]
pub(crate) struct Stroke {
    pub(crate) colour: &'static str,
    pub(crate) width: f64,
    pub(crate) opacity: f64,
    pub(crate) dashed: bool,
}

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Words {
    pub(crate) const fn new(anchor: Anchor) -> Self {
        Self { anchor, size: 12.0, colour: INK, bold: false }
    }

    pub(crate) const fn faint(self) -> Self {
        Self { colour: FAINT, size: 11.0, ..self }
    }
}

impl Stroke {
    pub(crate) const fn new(colour: &'static str, width: f64) -> Self {
        Self { colour, width, opacity: 1.0, dashed: false }
    }

    pub(crate) const fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    pub(crate) const fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

impl Canvas {
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut canvas = Self { width, height, body: String::new() };
        canvas.words((24.0, 32.0), Words { size: 17.0, bold: true, ..Words::new(Anchor::Start) }, title);
        canvas
    }

    /// The whole document.
    pub(crate) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    /// An element that is well formed already.
    pub(crate) fn raw(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        writeln!(self.body, "{element}").unwrap_or_default();
    }

    pub(crate) fn words(&mut self, (x, y): (f64, f64), style: Words, words: &str) {
        let (anchor, turn) = match style.anchor {
            Anchor::Start => ("start", String::new()),
            Anchor::Middle => ("middle", String::new()),
            Anchor::End => ("end", String::new()),
            Anchor::Upright => ("middle", format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"")),
        };
        let weight = if style.bold { " font-weight=\"600\"" } else { "" };
        let (size, colour, words) = (style.size, style.colour, escape(words));
        self.raw(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
             fill=\"{colour}\"{weight}{turn}>{words}</text>"
        ));
    }

    pub(crate) fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        let path = path(points);
        let Stroke { colour, width, opacity, dashed } = stroke;
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        self.raw(format_args!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-opacity=\"{opacity}\" stroke-linejoin=\"round\"{dash}/>"
        ));
    }

    /// The area that points enclose.
    pub(crate) fn polygon(&mut self, points: &[(f64, f64)], colour: &str, opacity: f64) {
        let path = path(points);
        self.raw(format_args!("<polygon points=\"{path}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"));
    }

    pub(crate) fn fill(&mut self, area: Area, colour: &str, opacity: f64) {
        let Area { left, top, right, bottom } = area;
        let (width, height) = ((right - left).max(0.0), (bottom - top).max(0.0));
        self.raw(format_args!(
            "<rect x=\"{left:.2}\" y=\"{top:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{colour}\" \
             fill-opacity=\"{opacity}\"/>"
        ));
    }

    pub(crate) fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str) {
        self.raw(format_args!(
            "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" fill=\"{colour}\" stroke=\"#ffffff\" stroke-width=\"1.2\"/>"
        ));
    }

    /// Keys side by side, a colour and words each, from `(x, y)` on.
    pub(crate) fn legend(&mut self, (mut x, y): (f64, f64), keys: &[(&'static str, String)]) {
        for (colour, words) in keys {
            self.fill(Area { left: x, top: y - 9.0, right: x + 14.0, bottom: y }, colour, 1.0);
            self.words((x + 20.0, y), Words::new(Anchor::Start), words);
            x += 44.0 + width_of(words, 12.0);
        }
    }
}

fn path(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect::<Vec<_>>().join(" ")
}

/// About how wide words are: sans-serif letters are a little over half as wide as high.
pub(crate) fn width_of(words: &str, size: f64) -> f64 {
    words.chars().count() as f64 * size * 0.58
}

/// Words as XML text or attribute; what XML cannot hold becomes U+FFFD.
pub(crate) fn escape(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// One direction of a panel: values onto pixels.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) label: String,
    /// Value and words.
    pub(crate) ticks: Vec<(f64, String)>,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Whether places go by the logarithm.
    pub(crate) log: bool,
}

impl Axis {
    /// From `low` to `high` as they are, ticks at round values between.
    pub(crate) fn new(label: &str, low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { label: label.to_owned(), ticks: ticks(low, high), low, high, log: false }
    }

    /// Powers of ten; `low` above 0.
    pub(crate) fn log(label: &str, low: f64, high: f64) -> Self {
        let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
        let tick = |power: i32| (10f64.powi(power), format!("{}", 10f64.powi(power)));
        Self { label: label.to_owned(), ticks: (first..=last).map(tick).collect(), low, high, log: true }
    }

    /// Where a value lies, in [0, 1] within the axis.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let place = |v: f64| if self.log { v.max(self.low).log10() } else { v };
        (place(value) - place(self.low)) / (place(self.high) - place(self.low))
    }
}

/// Round values from `low` to `high`: steps of 1, 2 or 5 times a power of ten, at most nine. Thousands are written as k
/// where ten of them are reached.
fn ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let raw = (high - low) / 8.0;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let words = |value: f64| match high {
        10_000.0.. if value != 0.0 => format!("{}k", value / 1000.0),
        _ => format!("{value:.digits$}"),
    };
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|k| k as f64 * step).map(|value| (value, words(value))).collect()
}

/// An area with two axes.
pub(crate) struct Panel {
    pub(crate) area: Area,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Panel {
    /// Where a pair of values lies; values beyond an axis lie on its end.
    pub(crate) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let Area { left, top, right, bottom } = self.area;
        let (x, y) = (self.x.share(x).clamp(0.0, 1.0), self.y.share(y).clamp(0.0, 1.0));
        (left + x * (right - left), bottom - y * (bottom - top))
    }

    /// Grid, ticks and labels.
    pub(crate) fn draw(&self, canvas: &mut Canvas) {
        let Area { left, top, right, bottom } = self.area;
        let grid = Stroke::new(GRID, 1.0);
        for (value, words) in &self.x.ticks {
            let x = self.at(*value, self.y.low).0;
            canvas.line(&[(x, top), (x, bottom)], grid);
            canvas.words((x, bottom + 17.0), Words::new(Anchor::Middle).faint(), words);
        }
        for (value, words) in &self.y.ticks {
            let y = self.at(self.x.low, *value).1;
            canvas.line(&[(left, y), (right, y)], grid);
            canvas.words((left - 8.0, y + 4.0), Words::new(Anchor::End).faint(), words);
        }
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], Stroke::new(FRAME, 1.0));
        canvas.words(((left + right) / 2.0, bottom + 38.0), Words::new(Anchor::Middle), &self.x.label);
        canvas.words((left - 44.0, (top + bottom) / 2.0), Words::new(Anchor::Upright), &self.y.label);
    }

    /// A line through values.
    pub(crate) fn curve(&self, canvas: &mut Canvas, values: &[(f64, f64)], stroke: Stroke) {
        canvas.line(&thin(values.iter().map(|&(x, y)| self.at(x, y))), stroke);
    }
}

/// Without the points that nobody could see apart: the first, the last, and those 0.4 px from the one before.
fn thin(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut dropped = None;
    for point in points {
        let near = |last: &(f64, f64)| (last.0 - point.0).hypot(last.1 - point.1) < 0.4;
        if kept.last().is_some_and(near) {
            dropped = Some(point);
        } else {
            kept.push(point);
            dropped = None;
        }
    }
    kept.extend(dropped);
    kept
}
