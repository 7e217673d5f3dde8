//! The life of a process.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::config::HumanDuration;
use crate::telemetry::{self, TelemetryConfig};
use crate::{Exit, ExitReason, Failpoints, Ops, admin};

/// Beyond the drain deadline, so that a room which sees the deadline itself can still say what it left. Chosen.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The `[ops]` section as it is when nobody sets it, and what each knob is for.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// What [`run()`] needs; the `[ops]` section of a service's configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct OpsConfig {
    /// Where `/livez`, `/readyz` and `/metrics` are served; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// How long work under way may take to finish after the first signal.
    pub drain_deadline: HumanDuration,
    /// For tests: where failpoints are armed; an empty path for none.
    #[serde(default)]
    pub failpoints: PathBuf,
    /// How this process logs.
    pub telemetry: TelemetryConfig,
}

/// Runs a service from its first line to its exit code.
///
/// Starts logging, the runtime, the signals and the admin server, then `service`. It is over when the
/// service returns. SIGTERM or SIGINT asks for shutdown; a second one leaves at once with
/// [`ExitReason::Temporary`]. Then tasks and threads are joined within the drain deadline, and the admin
/// server stops last.
pub fn run<F, R>(name: &str, config: &OpsConfig, service: F) -> ExitCode
where
    F: FnOnce(Ops) -> R,
    R: Future<Output = Result<(), Exit>>,
{
    telemetry::init(&config.telemetry);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return leave(name, Err(ExitReason::Unavailable.because(error))),
    };
    let (ended, stuck) = runtime.block_on(async {
        let mut ops = match Ops::new(name, config.drain_deadline.get()) {
            Ok(ops) => ops,
            Err(exit) => return (Err(exit), false),
        };
        ops.failpoints = Failpoints::in_folder(&config.failpoints);
        let ended = live(name, config, &ops, service).await;
        (ended, !ops.tasks.running().is_empty())
    });
    // A blocking call that never returns must not hold the process.
    runtime.shutdown_background();
    let code = leave(name, ended.clone());
    if stuck {
        // Threads still run. Leaving through `main` would run libraries' exit handlers under them, and a
        // crash there would hide our exit code.
        let reason = ended.err().map_or(ExitReason::Temporary, |exit| exit.reason);
        signal_hook::low_level::exit(reason.code().into());
    }
    code
}

async fn live<F, R>(name: &str, config: &OpsConfig, ops: &Ops, service: F) -> Result<(), Exit>
where
    F: FnOnce(Ops) -> R,
    R: Future<Output = Result<(), Exit>>,
{
    listen_to_signals(ops)?;
    let listener = TcpListener::bind(config.admin_listen).await.map_err(|error| {
        ExitReason::Unavailable.because(format_args!("admin listener {}: {error}", config.admin_listen))
    })?;
    let admin = admin::serve(listener, ops.clone())?;
    tracing::info!(admin = %admin.address, pid = std::process::id(), "{name} starts");

    let ended = until_drained(ops, service).await;
    admin.stop().await;
    ended
}

/// The service, then its tasks; the first failure of either is the reason.
async fn until_drained<F, R>(ops: &Ops, service: F) -> Result<(), Exit>
where
    F: FnOnce(Ops) -> R,
    R: Future<Output = Result<(), Exit>>,
{
    let hard_deadline = async {
        ops.shutdown.drain_expired().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let served = tokio::select! {
        biased;
        served = service(ops.clone()) => served,
        () = hard_deadline => Err(ExitReason::Temporary.because("the drain deadline passed")),
    };
    if let Err(exit) = &served {
        ops.tasks.fail(exit.clone());
    }
    ops.shutdown.request();
    let deadline = ops.shutdown.deadline().unwrap_or_else(Instant::now) + LAST_WORDS;
    let joined = ops.tasks.join(deadline).await;
    match ops.tasks.failure() {
        Some(first) => Err(first),
        None => joined,
    }
}

/// The first signal asks for shutdown; the second one leaves from within the signal handler, so that it
/// works even if no thread of the runtime can run.
fn listen_to_signals(ops: &Ops) -> Result<(), Exit> {
    let refused =
        |error: std::io::Error| ExitReason::Unavailable.because(format_args!("signal handlers: {error}"));
    let signalled = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // In this order: the handler that leaves runs before the one that arms it.
        let status = ExitReason::Temporary.code().into();
        signal_hook::flag::register_conditional_shutdown(number, status, Arc::clone(&signalled))
            .map_err(refused)?;
        signal_hook::flag::register(number, Arc::clone(&signalled)).map_err(refused)?;
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let shutdown = ops.shutdown.clone();
    ops.tasks.spawn_finite("signals", async move {
        let which = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = shutdown.requested() => return,
        };
        tracing::info!(signal = which, "shutting down; a second signal leaves at once");
        shutdown.request();
    });
    Ok(())
}

fn leave(name: &str, ended: Result<(), Exit>) -> ExitCode {
    let reason = match ended {
        Ok(()) => {
            tracing::info!("{name} drained");
            ExitReason::Drained
        }
        Err(exit) => {
            tracing::error!(reason = ?exit.reason, code = exit.reason.code(), "{name} ends: {}", exit.why);
            exit.reason
        }
    };
    reason.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops() -> Ops {
        Ops::new("test", Duration::from_secs(30)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_ignores_the_deadline_is_left() {
        let ops = ops();
        let begin = Instant::now();
        ops.shutdown.request();
        let ended = until_drained(&ops, |_| std::future::pending()).await;
        assert_eq!(ended, Err(ExitReason::Temporary.because("the drain deadline passed")));
        assert_eq!(begin.elapsed().as_secs(), 31);
    }

    #[tokio::test]
    async fn the_task_that_failed_first_is_the_reason() {
        let ended = until_drained(&ops(), async |ops: Ops| {
            ops.tasks.spawn("device", async { Err(ExitReason::Bug.because("sticky error")) });
            ops.shutdown.requested().await;
            Err(ExitReason::Unavailable.because("a consequence"))
        })
        .await;
        assert_eq!(ended, Err(ExitReason::Bug.because("task `device`: sticky error")));
    }

    #[tokio::test]
    async fn a_service_that_returns_is_drained() {
        let ended = until_drained(&ops(), async |ops: Ops| {
            let shutdown = ops.shutdown.clone();
            ops.tasks.spawn("intake", async move { shutdown.requested().await });
            Ok(())
        })
        .await;
        assert_eq!(ended, Ok(()));
    }
}
