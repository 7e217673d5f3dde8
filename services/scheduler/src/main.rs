//! The scheduler as a process. Arguments and environment are read here and nowhere below.

mod process;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use ops::command_line::ServiceArguments;
use ops::{Exit, ExitReason, Ops, OpsConfig};
use process::Process;
use stream::kafka::KafkaLog;

/// The front door: media are submitted here, checked, and acknowledged once the log has them.
#[derive(Debug, Parser)]
#[command(name = "touchstone-scheduler", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The fleet's topics
    #[command(subcommand)]
    Topics(Topics),
}

#[derive(Debug, Subcommand)]
enum Topics {
    /// Create those that are missing, as [scheduler.topics] says, and check the others
    Create,
}

fn main() -> ExitCode {
    let Arguments { service, command } = match ops::command_line::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match (Process::load(service.config.as_deref(), std::env::vars()), command) {
        (Ok(process), _) if service.check_config => process.show(),
        (Ok(process), None) => ops::run("scheduler", &process.ops.clone(), |ops| serve(process, ops)),
        (Ok(process), Some(Command::Topics(Topics::Create))) => {
            // Beside a running scheduler of the same file, whose admin port this would be.
            let admin_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let ops = OpsConfig { admin_listen, ..process.ops.clone() };
            ops::run("topics", &ops, |ops| create_topics(process, ops))
        }
        (Err(error), _) => ops::refuse(error),
    }
}

async fn serve(process: Process, ops: Ops) -> Result<(), Exit> {
    // Not ready before the log answers; the scheduler goes on with this gate.
    ops.readiness.gate("front-door");
    let listener = process.scheduler.grpc.bind().await?;
    let metrics = stream::Metrics::register(&ops.registry)?;
    let log = KafkaLog::connect(process.kafka, metrics, ops.failpoints.clone()).await?;
    scheduler::require(&log, &process.scheduler.topic_specs, &ops.shutdown).await?;
    let served = scheduler::run(process.scheduler, Arc::new(log.clone()), listener, ops).await;
    served.and(close(log).await)
}

async fn create_topics(process: Process, ops: Ops) -> Result<(), Exit> {
    let metrics = stream::Metrics::register(&ops.registry)?;
    let log = KafkaLog::connect(process.kafka, metrics, ops.failpoints.clone()).await?;
    let created = scheduler::create(&log, &process.scheduler.topic_specs, &ops.shutdown).await;
    let said = created.and_then(|report| {
        std::io::stdout().write_all(report.as_bytes()).map_err(|error| ExitReason::Unavailable.because(error))
    });
    said.and(close(log).await)
}

async fn close(log: KafkaLog) -> Result<(), Exit> {
    let closed = tokio::task::spawn_blocking(move || log.close()).await;
    closed.map_err(|error| ExitReason::Bug.because(format_args!("the log did not close: {error}")))
}
