//! Query as a process. Arguments and environment are read here and nowhere below.

mod process;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ops::command_line::ServiceArguments;
use ops::{Exit, ExitReason, Ops};
use process::Process;
use stream::Log;
use stream::kafka::KafkaLog;

/// The answer: verdicts projected into a store, read and watched over gRPC, and audited.
#[derive(Debug, Parser)]
#[command(name = "touchstone-query", version)]
struct Arguments {
    #[command(flatten)]
    service: ServiceArguments,
}

fn main() -> ExitCode {
    let service = match ops::command_line::parse::<Arguments>() {
        Ok(arguments) => arguments.service,
        Err(code) => return code,
    };
    match Process::load(service.config.as_deref(), std::env::vars()) {
        Ok(process) if service.check_config => process.show(),
        Ok(process) => ops::run("query", &process.ops.clone(), |ops| serve(process, ops)),
        Err(error) => ops::refuse(error),
    }
}

async fn serve(process: Process, ops: Ops) -> Result<(), Exit> {
    // Not ready before the log answers; the projector goes on with this gate.
    ops.readiness.gate("projector");
    let listener = process.query.grpc.bind().await?;
    let metrics = stream::Metrics::register(&ops.registry)?;
    let log = KafkaLog::connect(process.kafka, metrics, ops.failpoints.clone()).await?;
    let names = process.query.topics.all();
    let look = || stream::missing_topics(&log, names);
    let missing = stream::at_start(&log.health(), &ops.shutdown, "the topics", look).await?;
    if !missing.is_empty() {
        return Err(ExitReason::Refused.because(proto::topics::missing(&missing)));
    }
    let served = Box::pin(query::run(process.query, Arc::new(log.clone()), listener, ops)).await;
    let closed = tokio::task::spawn_blocking(move || log.close()).await;
    served
        .and(closed.map_err(|error| ExitReason::Bug.because(format_args!("the log did not close: {error}"))))
}
