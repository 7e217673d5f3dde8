//! A standalone as its users run it: a process of its own, that can be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use testbed::until;

use crate::admin::{self, Page};
use crate::binaries;

/// Longer than anything takes on a busy machine; only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What a standalone tells its clients, and a fleet its own.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub struct Connection {
    /// gRPC, as a URL.
    pub endpoint: String,
    /// Where verdicts are asked for, if not there.
    #[serde(default)]
    pub query: String,
    /// Admin HTTP, as a URL.
    pub admin: String,
    /// The bucket for uploads.
    pub bucket: String,
    /// The object store.
    pub s3: Store,
}

/// The object store.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub struct Store {
    /// As a URL.
    pub endpoint: String,
    /// The region to sign for.
    pub region: String,
    /// The access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

/// A running standalone; killed when dropped.
pub struct Standalone {
    child: Child,
    data: PathBuf,
    /// Where it answers.
    pub connection: Connection,
}

impl Standalone {
    /// Starts one with the scripted engines over `data` and waits until it is ready.
    pub fn scripted(data: &Path) -> Self {
        Self::start(data, &["--model", "scripted"])
    }

    /// Starts one over `data` and waits until it is ready.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let started = Self::start_unready(data, arguments);
        started.wait_ready();
        started
    }

    /// Starts one over `data` and waits until it answers at all.
    pub fn start_unready(data: &Path, arguments: &[&str]) -> Self {
        let file = data.join("connection.toml");
        // The one of an earlier process would name ports that nobody listens on.
        let _absent_at_first = std::fs::remove_file(&file);
        let log = std::fs::File::options().create(true).append(true).open(data.join("stderr.log"));
        let mut child = Command::new(binaries::standalone())
            .arg("--data")
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the data folder is writable"))
            .spawn()
            .expect("standalone starts");
        let connection = until("standalone says where it answers", DEADLINE, || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("standalone ended at once, {status}: {}", tail(data));
            }
            toml::from_str::<Connection>(&std::fs::read_to_string(&file).ok()?).ok()
        });
        Self { child, data: data.to_owned(), connection }
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&self) {
        until("standalone is ready", DEADLINE, || self.admin("/readyz").filter(|page| page.status == 200));
    }

    /// A page of the admin server; `None` while it does not answer.
    pub fn admin(&self, path: &str) -> Option<Page> {
        admin::get(&self.connection.admin, path)
    }

    /// The sum of a metric's series whose labels contain `label`; 0 where it has none yet.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.admin("/metrics").expect("the admin server answers");
        admin::sum(&page.body, name, label)
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(status.success(), "SIGTERM reached {pid}");
    }

    /// Waits for the end.
    pub fn wait(mut self, deadline: Duration) -> ExitStatus {
        until("standalone ends", deadline, || self.child.try_wait().expect("a child can be asked"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("stderr.log")).unwrap_or_default()
    }

    /// Runs `touchstone --data … ARGUMENTS`.
    pub fn touchstone(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::touchstone());
        command.arg("--data").arg(&self.data).args(arguments).stdin(Stdio::null());
        command.output().expect("touchstone runs")
    }

    /// Runs the auditor; panics with its report unless it finds nothing.
    pub fn verify(&self) -> String {
        let output = self.touchstone(&["verify"]);
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the auditor found something:\n{report}\n{words}");
        report
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // Already gone after `kill` and `wait`.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn tail(data: &Path) -> String {
    let log = std::fs::read_to_string(data.join("stderr.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
