//! Every picture of the trainer from made-up numbers, to look at: `cargo run -p trainer --example gallery -- FOLDER`.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::f64::consts::TAU;
use std::path::PathBuf;
use std::time::Instant;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use trainer::metrics::{Resampling, bootstrap};
use trainer::plots::{self, Curve, Group, Part, RocCurve};
use trainer::{Budgets, Mark, Ranking, Scored, Sheet, Targets, Tile, platt, thresholds};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("which folder?")?);
    std::fs::create_dir_all(&folder)?;
    let write = |name: &str, svg: String| std::fs::write(folder.join(name), svg);

    let mut noise = Noise(ChaCha8Rng::seed_from_u64(1));
    let loss: Vec<_> = (0..6000u64)
        .map(|step| (step, (1.2 + 11.0 * (-(step as f64) / 700.0).exp()) * (0.3 * noise.normal()).exp()))
        .collect();
    let mut rising = |end: f64| -> Vec<(u64, f64)> {
        let value =
            |step: u64, noise: f64| end - (end - 0.52) * (-(step as f64) / 900.0).exp() + 0.004 * noise;
        (1..=24).map(|k| (k * 250, value(k * 250, noise.normal()))).collect()
    };
    let (blended, swapped, regional) = (rising(0.978), rising(0.965), rising(0.938));
    let curves = [("self-blended", &blended), ("swapped", &swapped), ("regional", &regional)]
        .map(|(name, points)| Curve { name, points });
    write("training.svg", plots::training("Training: mini, seed 1", &loss, &curves))?;

    let sets = [3.0, 2.6, 2.2].map(|distance| people(&mut noise, distance));
    let estimate = |scored: &[Scored]| bootstrap(scored, Ranking::auc, Resampling::default());
    let mut rocs = Vec::new();
    for (name, scored) in ["self-blended", "swapped", "regional"].into_iter().zip(&sets) {
        rocs.push((
            name,
            Ranking::new(scored).roc().ok_or("one class")?,
            estimate(scored).ok_or("one class")?,
        ));
    }
    let drawn: Vec<_> = rocs.iter().map(|(name, points, auc)| RocCurve { name, points, auc: *auc }).collect();
    write("roc.svg", plots::roc("Receiver operating characteristic: test identities", &drawn))?;

    let calibration = platt(&sets[1], Targets::Smoothed)?;
    let reliability = Ranking::new(&sets[1]).reliability(&calibration).ok_or("one class")?;
    write("reliability.svg", plots::reliability("Reliability", &reliability))?;
    let found = thresholds(&sets[1], &calibration, Budgets::default())?;
    write("scores.svg", plots::scores("Scores: swapped", &sets[1], &calibration, Some(found)))?;

    let names = ["blended at 0.25", "blended at 0.5", "blended at 1"];
    let part = |(name, scored): (&'static str, &Vec<Scored>)| Part {
        name,
        count: scored.len(),
        auc: estimate(scored),
    };
    let strength: Vec<Part<'_>> = names.into_iter().zip(sets.iter().rev()).map(part).collect();
    let quality: Vec<Part<'_>> = ["JPEG 40–60", "JPEG 60–80"].into_iter().zip(&sets[1..]).map(part).collect();
    let size = [Part { name: "below 64 px", count: 3, auc: None }, part(("64 px and more", &sets[0]))];
    let groups = [("Blending strength", &strength[..]), ("JPEG quality", &quality), ("Face size", &size)]
        .map(|(name, parts)| Group { name, parts });
    write("groups.svg", plots::groups("AUC by group", &groups))?;

    let mut tiles = |count: u32, mark: Mark| -> Result<Vec<Tile>, trainer::TileError> {
        (0..count).map(|index| picture(&mut noise, index, mark)).collect()
    };
    let sheet = Sheet::new("Worst of the test identities")
        .row("Authentic with the highest P(forged)", tiles(10, Mark::Authentic)?)
        .row("Forged with the lowest P(forged)", tiles(6, Mark::Forged)?)
        .row("Sources", tiles(3, Mark::None)?);
    write("sheet.svg", sheet.to_svg())?;

    let many = (0..56u32).flat_map(|crowd| {
        people(&mut noise, 2.5)
            .into_iter()
            .map(move |scored| Scored { identity: scored.identity + 90 * crowd, ..scored })
    });
    let many: Vec<Scored> = many.collect();
    let start = Instant::now();
    let auc = estimate(&many).ok_or("one class")?;
    println!("{auc:?}: {} scores, 1000 resamples, {:.2?}", many.len(), start.elapsed());
    Ok(())
}

struct Noise(ChaCha8Rng);

impl Noise {
    fn uniform(&mut self) -> f64 {
        (f64::from(self.0.next_u32()) + 0.5) / 4_294_967_296.0
    }

    /// Box–Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

/// 90 identities with ten pairs each.
fn people(noise: &mut Noise, distance: f64) -> Vec<Scored> {
    let mut scored = Vec::new();
    for identity in 0..90 {
        let person = 0.5 * noise.normal();
        for index in 0..20 {
            let forged = index % 2 == 1;
            let centre = if forged { distance } else { -distance };
            scored.push(Scored { logit: (centre + person + 1.9 * noise.normal()) as f32, forged, identity });
        }
    }
    scored
}

/// A round face on a wall.
fn picture(noise: &mut Noise, index: u32, mark: Mark) -> Result<Tile, trainer::TileError> {
    const SIDE: usize = 96;
    let (tone, wall) = (120.0 + 100.0 * noise.uniform(), 60.0 + 120.0 * noise.uniform());
    let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
    for place in 0..SIDE * SIDE {
        let (x, y) = ((place % SIDE) as f64 / 48.0 - 1.0, (place / SIDE) as f64 / 48.0 - 1.0);
        let eye = ((x.abs() - 0.28) / 0.1).hypot((y + 0.2) / 0.07) < 1.0;
        let value = if eye {
            30.0
        } else if (x / 0.62).hypot(y / 0.82) < 1.0 {
            tone * (1.0 - 0.3 * x)
        } else {
            wall
        };
        rgb.extend([value, value * 0.82, value * 0.7].map(|v| (v + 6.0 * noise.normal()) as u8));
    }
    let tile = Tile::new(SIDE, &rgb, mark)?;
    Ok(tile.caption(format!("person-{index:04}"), format!("P {:.3} · JPEG 75", noise.uniform())))
}
