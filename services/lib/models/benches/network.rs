//! The network on this CPU: the inference path against the published one (eager, f32, NCHW), in one run.
//!
//! `cargo bench --profile dev -p models --bench network -- [--json FILE]`. Machines are noisy: the ratios count. CPU-seconds are those of
//! the whole process, so that idle threads that spin are paid for.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use models::two_stream::{Network, Phase};
use models::{Architecture, Fusion, InferenceMode, TwoStreamWeights, device};
use serde_json::json;
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 8;
/// Rounds of all candidates, one after another, so that a slow minute of the machine meets each of them.
const ROUNDS: usize = 3;

struct Candidate<'a> {
    name: &'static str,
    forward: Box<dyn Fn() -> Result<()> + 'a>,
    cpu_s: Vec<f64>,
    wall_s: Vec<f64>,
}

fn main() -> Result<()> {
    models::prepare_process();
    let _inference = InferenceMode::enter();
    let weights = TwoStreamWeights::seeded(Architecture::FULL, "bench")?;
    let plain = Network::new(&weights, Fusion::Official)?;
    let prepared = plain.prepare(Device::Cpu, Kind::Float)?;
    let pixels = Tensor::f_randint(256, [BATCH, 256, 256, 3], (Kind::Uint8, Device::Cpu))?;
    let images = pixels.f_permute([0, 3, 1, 2])?.f_contiguous()?.f_to_kind(Kind::Float)? / 127.5 - 1.0;

    let mut candidates = vec![
        candidate("plain_f32", || Ok(plain.forward(&images, Phase::Evaluate).map(drop)?)),
        candidate("inference_f32", || Ok(prepared.forward_pixels(&pixels).map(drop)?)),
    ];
    let half;
    if device::cpu_has_bf16() {
        half = plain.prepare(Device::Cpu, Kind::BFloat16)?;
        candidates.push(candidate("inference_bf16", || Ok(half.forward_pixels(&pixels).map(drop)?)));
    }
    for candidate in &candidates {
        (candidate.forward)()?;
    }
    for candidate in (0..ROUNDS).flat_map(|_| 0..candidates.len()) {
        let candidate = &mut candidates[candidate];
        let (cpu, wall) = (cpu_seconds()?, Instant::now());
        (candidate.forward)()?;
        candidate.wall_s.push(wall.elapsed().as_secs_f64());
        candidate.cpu_s.push(cpu_seconds()? - cpu);
    }
    report(&candidates)
}

fn candidate<'a>(name: &'static str, forward: impl Fn() -> Result<()> + 'a) -> Candidate<'a> {
    Candidate { name, forward: Box::new(forward), cpu_s: Vec::new(), wall_s: Vec::new() }
}

fn report(candidates: &[Candidate<'_>]) -> Result<()> {
    let rate = |seconds: &[f64]| BATCH as f64 / median(seconds);
    let base = &candidates[0];
    let mut lines = Vec::new();
    for Candidate { name, cpu_s, wall_s, .. } in candidates {
        for (unit, value, against) in
            [("images/cpu-s", rate(cpu_s), rate(&base.cpu_s)), ("images/s", rate(wall_s), rate(&base.wall_s))]
        {
            let ratio = value / against;
            println!("BENCH network_{name} {value:.3} {unit} ratio {ratio:.2} against {}", base.name);
            lines.push(json!({
                "name": format!("network_{name}"), "value": value, "unit": unit, "ratio": ratio, "against": base.name,
            }));
        }
    }
    if !device::cpu_has_bf16() {
        println!("network_inference_bf16 skipped: this CPU has neither AVX512-BF16 nor AMX");
    }
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--json");
    if arguments.next().is_some() {
        let file = PathBuf::from(arguments.next().context("--json needs a file")?);
        fs::write(&file, serde_json::to_vec_pretty(&lines)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// CPU time of all threads of this process. Linux counts it in hundredths of a second.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().context("no name in /proc/self/stat")?;
    // Fields 14 and 15 of proc(5): user and system time; two stand before the name's end.
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let sum: u64 = ticks.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(sum as f64 / 100.0)
}
