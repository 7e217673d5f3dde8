//! `make fleet`: a whole fleet on this machine, to try things out; Ctrl-C stops it.
#![allow(clippy::print_stdout, reason = "addresses are what it is for")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use e2e::fleet::{Fleet, Programs, Service, StoreKind};
use forensics::scripted;
use testbed::{KafkaVersion, Prometheus};

/// Begins the names of untrained weights.
const SEEDED: &str = "seeded:";

/// A whole fleet on this machine: Kafka, an S3 server, PostgreSQL, Prometheus, and every service as a process.
#[derive(Debug, Parser)]
#[command(name = "fleet")]
struct Arguments {
    /// Where everything lies: the services' files and logs, what Kafka and the S3 server keep, connection.toml
    #[arg(long, value_name = "DIR", default_value = ".deps/fleet")]
    data: PathBuf,
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 2)]
    workers: usize,
    /// Partitions of each topic, when it is made
    #[arg(long, value_name = "N", default_value_t = 8)]
    partitions: usize,
    /// Who judges: a bundle's folder, seeded:full or seeded:mini (untrained weights), or scripted
    #[arg(long, value_name = "MODEL", default_value = "models/default")]
    model: String,
    /// Who finds faces: the file that `touchstone model import-faces` wrote, or scripted
    #[arg(long, value_name = "FILE", default_value = ".deps/models/mtcnn.safetensors")]
    face_detector: String,
    /// Keep verdicts in a SQLite file instead of PostgreSQL
    #[arg(long)]
    sqlite: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let began = Instant::now();
    let here = std::env::current_exe()?;
    let programs = Programs::in_folder(here.parent().unwrap_or(Path::new(".")));
    for program in [&programs.worker, &programs.scheduler, &programs.query, &programs.touchstone] {
        anyhow::ensure!(program.exists(), "{} is not built: run `make fleet`", program.display());
    }
    std::fs::create_dir_all(&arguments.data)?;
    let data = arguments.data.canonicalize()?;
    let model = from_anywhere(&arguments.model)?;
    let faces =
        if model == scripted::NAME { model.clone() } else { from_anywhere(&arguments.face_detector)? };
    println!(
        "Starting Kafka, an S3 server, a database, Prometheus and the services: about half a minute ..."
    );
    let store = if arguments.sqlite { StoreKind::Sqlite } else { StoreKind::Postgres };
    let mut fleet = Fleet::builder()
        .workers(arguments.workers)
        .partitions(arguments.partitions)
        // A lone broker of 4.3 or 4.4 that is killed may forget what it decided of a transaction (README, known limit).
        .kafka(KafkaVersion::Kafka40)
        .stores(&[store])
        .engines(&model, &faces)
        .programs(programs.clone())
        .folder(&data)
        .start()
        .await;
    let target = |service: &Service| {
        (service.name().to_owned(), service.admin().trim_start_matches("http://").to_owned())
    };
    let targets: Vec<_> = fleet.services().map(target).collect();
    let prometheus = Prometheus::start_in(&data.join("prometheus"), &targets)?;
    fleet.write_connection(&data)?;
    println!("{}", announcement(&mut fleet, &prometheus, &programs, began.elapsed().as_secs_f64(), &model));
    tokio::signal::ctrl_c().await?;
    println!("\nStopping: what the workers have begun is finished and committed ...");
    for end in fleet.drain() {
        println!("  {end}");
    }
    std::fs::remove_file(data.join("connection.toml"))?;
    Ok(())
}

/// What `[worker.engine]` shall say: each service runs in a folder of its own, where a relative path leads elsewhere.
fn from_anywhere(engine: &str) -> anyhow::Result<String> {
    if engine == scripted::NAME || engine.starts_with(SEEDED) {
        return Ok(engine.to_owned());
    }
    let path = Path::new(engine).canonicalize();
    Ok(path
        .with_context(|| {
            format!("{engine}: --model takes a bundle's folder, --face-detector the file of its weights")
        })?
        .display()
        .to_string())
}

fn announcement(
    fleet: &mut Fleet,
    prometheus: &Prometheus,
    programs: &Programs,
    took: f64,
    model: &str,
) -> String {
    let (folder, touchstone) = (short(fleet.folder()), short(&programs.touchstone));
    let (folder, touchstone) = (folder.display(), touchstone.display());
    let meaning = match model {
        scripted::NAME => ": a function of colours, for tests",
        _ if model.starts_with(SEEDED) => ", untrained: every face is INCONCLUSIVE (MODEL_NOT_CALIBRATED)",
        _ => "",
    };
    let model = short(Path::new(model)).display().to_string() + meaning;
    let mut text = format!("\na fleet is ready after {took:.0} s\n");
    for service in fleet.services() {
        let grpc = service.address().map(|grpc| format!("gRPC {grpc}   ")).unwrap_or_default();
        let (name, admin, process) = (service.name(), service.admin(), service.process());
        text += &format!("  {name:<12}{grpc}{admin}/metrics   process {process}\n");
    }
    text += &format!(
        "  Kafka       {}\n  S3          {}   bucket media, keys in {folder}/connection.toml\n  Prometheus  {}\n  \
         model       {model}\n  data        {folder}, a folder for each service, life-N.log in it\n\n",
        fleet.kafka().bootstrap(),
        fleet.store().endpoint(),
        prometheus.url(),
    );
    let worker = fleet.worker(0).process();
    text += &format!(
        "  {touchstone} --data {folder} submit .deps/samples/astronaut.png\n  {touchstone} --data {folder} list\n  \
         {touchstone} --data {folder} verify\n  kill -9 {worker}     a worker dies; the others do its work, once\n\n\
         Ctrl-C drains and stops all of it."
    );
    text
}

/// The path from here, where it lies below.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}
