//! The network on this CPU: the inference path against the published one (eager, f32, NCHW), in one run.
//!
//! `cargo bench --profile dev -p models --bench network -- [--json FILE]`. Machines are noisy: the ratios count. Each candidate
//! runs in processes of its own, in turns: the published network as libtorch comes, ours as a service prepares itself.
//! CPU-seconds are those of the whole process, so that memory faults and idle threads that spin are paid for.

#![allow(clippy::print_stdout, reason = "a bench prints its lines")]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use models::two_stream::{Network, Phase};
use models::{Architecture, DeviceConfig, Fusion, InferenceMode, TwoStreamWeights, device};
use serde_json::json;
use tch::{Device, Kind, Tensor};

const BATCH: i64 = 8;
/// Rounds of all candidates, one after another, so that a slow minute of the machine meets each of them.
const ROUNDS: usize = 3;
/// Multiplications and additions of the full network for one image, in billions.
const GFLOP: f64 = 28.03;
/// Says to the same program that it is a candidate's process.
const CANDIDATE: &str = "--candidate";

/// What one turn of a candidate took.
#[derive(Clone, Copy)]
struct Took {
    cpu_s: f64,
    wall_s: f64,
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip_while(|argument| argument != CANDIDATE);
    if arguments.next().is_some() {
        return run(&arguments.next().context("which candidate?")?);
    }
    let mut names = vec!["plain_f32", "inference_f32"];
    if device::cpu_has_bf16() {
        names.push("inference_bf16");
    }
    names.push("sgemm");
    let mut took = vec![Vec::new(); names.len()];
    for turn in 0..ROUNDS * names.len() {
        let candidate = turn % names.len();
        took[candidate].push(in_own_process(names[candidate])?);
    }
    let took: Vec<Took> = took.iter().map(|turns| median(turns)).collect();
    report(&names, &took)
}

fn report(names: &[&str], took: &[Took]) -> Result<()> {
    let (plain, sgemm) = (took[0], took[took.len() - 1]);
    let mut lines = Vec::new();
    let mut line = |name: String, value: f64, unit: &str, ratio: f64, against: &str| {
        println!("BENCH {name} {value:.3} {unit} ratio {ratio:.2} against {against}");
        lines.push(json!({ "name": name, "value": value, "unit": unit, "ratio": ratio, "against": against }));
    };
    let images = BATCH as f64;
    for (name, took) in names.iter().zip(took).take(names.len() - 1) {
        let name = format!("network_{name}");
        line(name.clone(), images / took.cpu_s, "images/cpu-s", plain.cpu_s / took.cpu_s, "plain_f32");
        line(name, images / took.wall_s, "images/s", plain.wall_s / took.wall_s, "plain_f32");
    }
    // How much is left to gain in f32: the network's arithmetic at the speed of one large matrix product.
    let peak = 1.0 / sgemm.cpu_s;
    let reached = GFLOP * images / took[1].cpu_s;
    line("network_inference_f32_arithmetic".into(), reached, "GFLOP/cpu-s", reached / peak, "sgemm");
    if !device::cpu_has_bf16() {
        println!("network_inference_bf16 skipped: this CPU has neither AVX512-BF16 nor AMX");
    }
    let mut arguments = env::args_os().skip_while(|argument| argument != "--json");
    if arguments.next().is_some() {
        let file = PathBuf::from(arguments.next().context("--json needs a file")?);
        fs::write(&file, serde_json::to_vec_pretty(&lines)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn in_own_process(candidate: &str) -> Result<Took> {
    let output = Command::new(env::current_exe()?).args([CANDIDATE, candidate]).output()?;
    if !output.status.success() {
        bail!("{candidate}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [cpu_s, wall_s] = numbers[..] else { bail!("{candidate} printed {text:?}") };
    Ok(Took { cpu_s, wall_s })
}

/// One candidate in its process: prints the CPU-seconds and seconds of its second forward pass.
fn run(candidate: &str) -> Result<()> {
    if candidate != "plain_f32" {
        models::prepare_process();
        DeviceConfig { device: "cpu".parse()?, ..DeviceConfig::default() }.open()?;
    }
    let _inference = InferenceMode::enter();
    if candidate == "sgemm" {
        return sgemm();
    }
    let weights = TwoStreamWeights::seeded(Architecture::FULL, "bench")?;
    let plain = Network::new(&weights, Fusion::Official)?;
    let pixels = Tensor::f_randint(256, [BATCH, 256, 256, 3], (Kind::Uint8, Device::Cpu))?;
    match candidate {
        "plain_f32" => {
            let images = pixels.f_permute([0, 3, 1, 2])?.f_contiguous()?.f_to_kind(Kind::Float)?;
            let images = images.f_div_scalar(127.5)?.f_sub_scalar(1.0)?;
            measure(|| Ok(plain.forward(&images, Phase::Evaluate).map(drop)?))
        }
        _ => {
            let kind = if candidate == "inference_bf16" { Kind::BFloat16 } else { Kind::Float };
            let prepared = plain.prepare(Device::Cpu, kind)?;
            let pieces = pixels.f_split(models::two_stream::cpu_piece() as i64, 0)?;
            measure(|| {
                for piece in &pieces {
                    prepared.forward_pixels(piece)?;
                }
                Ok(())
            })
        }
    }
}

/// 10⁹ operations of the largest matrix product's kind: what libtorch's f32 arithmetic can do here.
fn sgemm() -> Result<()> {
    let side = 2048i64;
    let square = Tensor::f_rand([side, side], (Kind::Float, Device::Cpu))?;
    let gflop = 2.0 * (side as f64).powi(3) / 1e9;
    let turns = 8;
    let took = second_of(|| {
        for _ in 0..turns {
            let _product = square.f_mm(&square)?;
        }
        Ok(())
    })?;
    let work = gflop * f64::from(turns);
    println!("{} {}", took.cpu_s / work, took.wall_s / work);
    Ok(())
}

fn measure(forward: impl Fn() -> Result<()>) -> Result<()> {
    let took = second_of(forward)?;
    println!("{} {}", took.cpu_s, took.wall_s);
    Ok(())
}

/// The second of two passes: the first one fills memory and compiles kernels.
fn second_of(pass: impl Fn() -> Result<()>) -> Result<Took> {
    pass()?;
    let (cpu, wall) = (cpu_seconds()?, Instant::now());
    pass()?;
    Ok(Took { cpu_s: cpu_seconds()? - cpu, wall_s: wall.elapsed().as_secs_f64() })
}

fn median(turns: &[Took]) -> Took {
    let middle = |value: fn(&Took) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Took { cpu_s: middle(|took| took.cpu_s), wall_s: middle(|took| took.wall_s) }
}

/// CPU time of all threads of this process. Linux counts it in hundredths of a second.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().context("no name in /proc/self/stat")?;
    // Fields 14 and 15 of proc(5), user and system time; the first two fields end before the name does.
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let sum: u64 = ticks.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(sum as f64 / 100.0)
}
