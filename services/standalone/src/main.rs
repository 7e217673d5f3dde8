//! Opens the building: arguments and environment are read here and nowhere below.
#![recursion_limit = "256"] // the future of everything in one process is deep

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use standalone::{Config, DemoOptions, Overrides};

/// Touchstone in one process: tells which media show a forged face.
#[derive(Debug, Parser)]
#[command(name = "touchstone-standalone", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder that holds everything; made if missing, and a restart goes on with it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the gRPC services listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Let listeners be beyond loopback: nothing asks a caller who it is
    #[arg(long)]
    allow_remote: bool,
    /// Check the configuration, print it with secrets hidden, and exit
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge the sample media, or your own, in a temporary folder
    Demo {
        /// The folder with astronaut.png, chelsea.png, coffee.png, and forgeries in forged/
        #[arg(long, value_name = "DIR", default_value = ".deps/samples")]
        samples: PathBuf,
        /// A folder with pictures of your own instead
        #[arg(long, value_name = "DIR")]
        media: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
}

#[derive(Debug, Args)]
struct Shared {
    /// Workers in this process
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Who judges: a bundle's folder, seeded:full, seeded:mini, or scripted
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Who finds faces: the file that `touchstone model import-faces` wrote, or scripted
    #[arg(long, value_name = "FILE")]
    face_detector: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    models::prepare_process();
    let arguments = match ops::command_line::parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let Arguments { command, data, listen, allow_remote, check_config, shared } = arguments;
    match command {
        Some(Command::Demo { samples, media, shared }) => {
            standalone::demo(DemoOptions { samples, media }, overrides(shared), std::env::vars().collect())
        }
        None => {
            let overrides = Overrides { data, listen, allow_remote, ..overrides(shared) };
            match Config::load(overrides, std::env::vars()) {
                Ok(config) if check_config => config.show(),
                Ok(config) => {
                    let settings = config.ops.clone();
                    ops::run("standalone", &settings, |ops| standalone::run(config, ops))
                }
                Err(error) => ops::refuse(error),
            }
        }
    }
}

fn overrides(shared: Shared) -> Overrides {
    let Shared { workers, model, face_detector, config } = shared;
    Overrides { workers, model, face_detector, file: config, ..Overrides::default() }
}
