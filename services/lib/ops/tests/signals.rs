//! What a supervisor sees: signals in, exit codes out, on a real process (this test's own binary, started
//! again with a variable that says which service to be).

#![allow(clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use ops::config::HumanDuration;
use ops::telemetry::{Format, Level, TelemetryConfig};
use ops::{ExitReason, Fault, Ops, OpsConfig};

const ROLE: &str = "OPS_TEST_ROLE";
const FAILPOINTS: &str = "OPS_TEST_FAILPOINTS";

fn config(drain: Duration) -> OpsConfig {
    OpsConfig {
        admin_listen: ([127, 0, 0, 1], 0).into(),
        drain_deadline: HumanDuration::from(drain),
        failpoints: std::env::var_os(FAILPOINTS).unwrap_or_default().into(),
        telemetry: TelemetryConfig {
            format: Format::Json,
            level: Level::try_from("info".to_string()).expect("a level"),
        },
    }
}

/// Says on standard error, among the logs, that the signal handlers stand.
async fn serve_until_asked(ops: Ops) {
    tracing::info!("SERVING");
    ops.shutdown.requested().await;
    tracing::info!("ASKED");
}

async fn boom() {
    panic!("boom")
}

fn child_main(role: &str) -> ExitCode {
    match role {
        "orderly" => ops::run("orderly", &config(Duration::from_secs(30)), async |ops: Ops| {
            let shutdown = ops.shutdown.clone();
            ops.tasks.spawn("intake", async move { shutdown.requested().await });
            serve_until_asked(ops).await;
            Ok(())
        }),
        "stubborn" => ops::run("stubborn", &config(Duration::from_secs(300)), async |ops: Ops| {
            serve_until_asked(ops).await;
            loop {
                // Blocks the runtime on purpose: the second signal must not need it.
                std::thread::park();
            }
        }),
        "stuck-thread" => ops::run("stuck", &config(Duration::from_millis(50)), async |ops: Ops| {
            ops.tasks.spawn_blocking_thread("device", || -> () {
                loop {
                    std::thread::park();
                }
            });
            serve_until_asked(ops).await;
            Ok(())
        }),
        "panics" => ops::run("panics", &config(Duration::from_secs(30)), async |ops: Ops| {
            ops.tasks.spawn("publish", boom());
            serve_until_asked(ops).await;
            Ok(())
        }),
        "reaches" => ops::run("reaches", &config(Duration::from_secs(30)), async |ops: Ops| {
            ops.failpoints.reach("here");
            Ok(())
        }),
        "refuses" => ops::run("refuses", &config(Duration::from_secs(30)), async |_| {
            Err(ExitReason::Refused.because("model digest differs"))
        }),
        other => panic!("no role {other}"),
    }
}

/// Not a test of its own: what the children run.
#[test]
#[allow(clippy::disallowed_methods)] // a test harness cannot return the exit code from `main`
fn child() {
    if let Ok(role) = std::env::var(ROLE) {
        let code = child_main(&role);
        let code = if code == ExitCode::SUCCESS { 0 } else { code_of(code) };
        std::process::exit(code);
    }
}

/// `ExitCode` hides its number; compare with those we know.
fn code_of(code: ExitCode) -> i32 {
    let known = [
        ExitReason::Config,
        ExitReason::Unavailable,
        ExitReason::Bug,
        ExitReason::Temporary,
        ExitReason::Refused,
    ];
    known.into_iter().find(|reason| ExitCode::from(*reason) == code).map_or(1, |reason| reason.code().into())
}

struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Running {
    fn start(role: &str) -> Self {
        Self::start_with(role, Path::new(""))
    }

    fn start_with(role: &str, failpoints: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env(FAILPOINTS, failpoints)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("own binary starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, log, seen: String::new() }
    }

    fn wait_for(&mut self, what: &str) {
        let mut line = String::new();
        while self.log.read_line(&mut line).expect("readable") > 0 {
            self.seen.push_str(&line);
            if line.contains(what) {
                return;
            }
            line.clear();
        }
        panic!("the log ended before {what}:\n{}", self.seen);
    }

    fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    fn exit_code(mut self) -> (Option<i32>, String) {
        std::io::Read::read_to_string(&mut self.log, &mut self.seen).expect("readable");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), None);
        (status.code(), self.seen)
    }
}

#[test]
fn a_signal_drains_and_exits_0() {
    let mut process = Running::start("orderly");
    process.wait_for("SERVING");
    process.terminate();
    let (code, log) = process.exit_code();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("orderly drained"), "{log}");
}

#[test]
fn a_second_signal_leaves_at_once_even_if_the_runtime_is_blocked() {
    let mut process = Running::start("stubborn");
    process.wait_for("SERVING");
    process.terminate();
    process.wait_for("ASKED");
    process.terminate();
    assert_eq!(process.exit_code().0, Some(75));
}

#[test]
fn a_thread_that_outlives_the_deadline_is_named_and_left() {
    let mut process = Running::start("stuck-thread");
    process.wait_for("SERVING");
    process.terminate();
    let (code, log) = process.exit_code();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("still running at the drain deadline: device"), "{log}");
}

#[test]
fn a_panic_in_a_task_exits_70_and_names_it() {
    let (code, log) = Running::start("panics").exit_code();
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains("task `publish` panicked: boom"), "{log}");
}

#[test]
fn an_armed_failpoint_kills_the_first_that_comes_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    Fault::Kill.arm(folder.path(), "here").expect("a writable folder");
    let mut first = Running::start_with("reaches", folder.path());
    assert_eq!(first.child.wait().expect("it ends").signal(), Some(9));
    assert_eq!(Running::start_with("reaches", folder.path()).exit_code().0, Some(0));
}

#[test]
fn a_service_that_refuses_exits_with_its_reason() {
    let (code, log) = Running::start("refuses").exit_code();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("model digest differs"), "{log}");
}
