//! The worker as a process. Arguments and environment are read here and nowhere below.

mod process;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ops::command_line::ServiceArguments;
use ops::{Exit, ExitReason, Ops};
use process::Process;
use stream::kafka::KafkaLog;
use worker::LogHandle;

/// Media references in, one verdict each out, exactly once.
#[derive(Debug, Parser)]
#[command(name = "touchstone-worker", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

fn main() -> ExitCode {
    worker::engine::prepare_process();
    let service = match ops::command_line::parse::<Arguments>() {
        Ok(arguments) => arguments.service,
        Err(code) => return code,
    };
    match Process::load(service.config.as_deref(), std::env::vars()) {
        Ok(process) if service.check_config => process.show(),
        Ok(process) => ops::run("worker", &process.ops.clone(), |ops| work(process, ops)),
        Err(error) => ops::refuse(error),
    }
}

async fn work(process: Process, ops: Ops) -> Result<(), Exit> {
    // Not ready before the log answers; the worker goes on with this gate.
    ops.readiness.gate("log");
    let engines = worker::engine::choose(&process.engines)?;
    let metrics = stream::Metrics::register(&ops.registry)?;
    let log = KafkaLog::connect(process.kafka, metrics.clone(), ops.failpoints.clone()).await?;
    let handle = LogHandle { log: Arc::new(log.clone()), metrics };
    let worked = Box::pin(worker::run(process.worker, handle, engines, ops)).await;
    let closed = tokio::task::spawn_blocking(move || log.close()).await;
    worked
        .and(closed.map_err(|error| ExitReason::Bug.because(format_args!("the log did not close: {error}"))))
}
