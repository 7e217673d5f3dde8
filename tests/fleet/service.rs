//! One service of a fleet: a process with a configuration file, that can be killed, stopped and started again.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use ops::Fault;
use testbed::{Server, Signal, until};

use crate::admin::{self, Page};
use crate::process::DEADLINE;

/// A service, running or not. It is killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    program: PathBuf,
    folder: PathBuf,
    settings: String,
    /// Each life writes a log of its own.
    lives: usize,
    server: Option<Server>,
    admin: String,
    grpc: Option<String>,
}

/// How a service ended that was meant to.
#[derive(Debug)]
pub struct End {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything it logged in that life.
    pub log: String,
}

impl Service {
    /// A service named `name` with these settings (TOML), not yet started. Its folder lies in the folder `fleet`.
    pub fn new(name: &str, program: &Path, fleet: &Path, settings: String) -> Self {
        let folder = fleet.join(name);
        fs::create_dir_all(folder.join("failpoints")).expect("the fleet's folder is writable");
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            folder,
            settings,
            lives: 0,
            server: None,
            admin: String::new(),
            grpc: None,
        }
    }

    /// Starts it and waits until it says where it answers.
    pub fn start(&mut self) {
        self.launch(&[]);
        let wants_grpc = self.settings.contains("[grpc]");
        until(&format!("{} says where it answers", self.name), DEADLINE, || {
            self.assert_alive();
            let log = self.log();
            self.admin = format!("http://{}", field(&log, "admin")?);
            self.grpc = field(&log, "grpc").map(|address| format!("http://{address}"));
            (self.grpc.is_some() || !wants_grpc).then_some(())
        });
        if let Some(grpc) = &self.grpc {
            // Clients remember it: the next life answers where this one did.
            let address = grpc.trim_start_matches("http://");
            self.settings =
                self.settings.replace("listen = \"127.0.0.1:0\" # grpc", &format!("listen = \"{address}\""));
        }
    }

    /// Starts it with these arguments and waits until it has ended, as it should by itself.
    pub fn run(&mut self, arguments: &[&str]) -> End {
        self.launch(arguments);
        self.ended()
    }

    /// Starts it, whatever becomes of it.
    pub fn begin(&mut self) {
        self.launch(&[]);
    }

    /// `/readyz` of one that was only begun.
    pub fn readiness(&mut self) -> Option<Page> {
        self.admin = format!("http://{}", field(&self.log(), "admin")?);
        self.page("/readyz")
    }

    /// Other settings for its next life: `old` is replaced by `new`.
    pub fn change(&mut self, old: &str, new: &str) {
        assert!(self.settings.contains(old), "{old:?} stands in the settings of {}", self.name);
        self.settings = self.settings.replace(old, new);
    }

    fn launch(&mut self, arguments: &[&str]) {
        assert!(self.server.is_none(), "{} runs already", self.name);
        self.lives += 1;
        // Of a fleet that was in this folder before: its addresses are nobody's now.
        if let Err(error) = fs::remove_file(self.log_file()) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
        let file = self.folder.join("config.toml");
        fs::write(&file, &self.settings).expect("the fleet's folder is writable");
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(file).current_dir(&self.folder);
        let server = Server::spawn(&self.name, &command, &self.log_file()).expect("a service starts");
        self.server = Some(server);
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&mut self) {
        until(&format!("{} is ready", self.name), DEADLINE, || {
            self.assert_alive();
            self.page("/readyz").filter(|page| page.status == 200)
        });
    }

    /// Waits until `/readyz` says no, for a reason that contains `why`.
    pub fn wait_unready(&mut self, why: &str) {
        until(&format!("{} is not ready because of {why}", self.name), DEADLINE, || {
            self.assert_alive();
            self.page("/readyz").filter(|page| page.status == 503 && page.body.contains(why))
        });
    }

    /// Panics with its last words if it has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.server().try_wait().expect("a child can be asked") {
            panic!("{} ended, {status}:\n{}", self.name, self.tail());
        }
    }

    /// A page of the admin server; `None` while it does not answer.
    pub fn page(&self, path: &str) -> Option<Page> {
        admin::get(&self.admin, path)
    }

    /// The sum of a metric's series whose labels contain `label`; 0 where it has none.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.metrics(name, label).iter().sum()
    }

    /// The values of a metric's series whose labels contain `label`.
    pub fn metrics(&self, name: &str, label: &str) -> Vec<f64> {
        self.page("/metrics").map(|page| admin::values(&page.body, name, label)).unwrap_or_default()
    }

    /// Where its gRPC services answer, as a URL.
    pub fn grpc(&self) -> &str {
        self.grpc.as_deref().expect("a service that listens")
    }

    /// Where its gRPC services answer, if it has some.
    pub fn address(&self) -> Option<&str> {
        self.grpc.as_deref()
    }

    /// Its process id; 0 while it does not run.
    pub fn process(&self) -> u32 {
        self.server.as_ref().map_or(0, Server::id)
    }

    /// Where its admin pages are, as a URL.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was started and has not been seen to end.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.assert_alive();
        self.server().kill().expect("a child can be killed");
        self.server = None;
    }

    /// SIGKILL to itself when it comes to this failpoint.
    pub fn kill_at(&mut self, point: &str) {
        self.arm(Fault::Kill, point);
    }

    /// SIGSTOP to itself when it comes to this failpoint.
    pub fn stop_at(&mut self, point: &str) {
        self.arm(Fault::Stop, point);
    }

    fn arm(&self, fault: Fault, point: &str) {
        fault.arm(&self.folder.join("failpoints"), point).expect("a failpoint can be armed");
    }

    /// SIGSTOP.
    pub fn stop(&mut self) {
        self.server().signal(Signal::Stop).expect("it is there");
    }

    /// SIGCONT.
    pub fn cont(&mut self) {
        self.server().signal(Signal::Continue).expect("it is there");
    }

    /// Waits until it stands still after a SIGSTOP.
    pub fn wait_stopped(&mut self) {
        let stat = PathBuf::from(format!("/proc/{}/stat", self.server().id()));
        until(&format!("{} stands still", self.name), DEADLINE, || {
            let stat = fs::read_to_string(&stat).ok()?;
            // The state follows the name, which ends with the last bracket (proc(5)).
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
    }

    /// SIGTERM, and its end.
    pub fn drain(&mut self) -> End {
        self.ask_to_stop();
        self.ended()
    }

    /// SIGTERM.
    pub fn ask_to_stop(&mut self) {
        self.server().signal(Signal::Term).expect("it is there");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> End {
        let status: ExitStatus = self.server().wait(DEADLINE).expect("it ends");
        self.server = None;
        self.end(status)
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<End> {
        let status = self.server().try_wait().expect("a child can be asked")?;
        self.server = None;
        Some(self.end(status))
    }

    fn end(&self, status: ExitStatus) -> End {
        End { code: status.code(), signal: status.signal(), log: self.log() }
    }

    /// What it logged in this life.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// What it counts and said last, for whoever wonders why a test failed.
    pub(crate) fn state(&self) -> String {
        let page = self.page("/metrics").map(|page| page.body).unwrap_or_default();
        let told = page.lines().filter(|line| line.starts_with("touchstone_") && !line.ends_with(" 0"));
        let counts: Vec<&str> = told.filter(|line| !line.contains("_bucket{")).collect();
        let Self { name, lives, .. } = self;
        let running = if self.is_running() { "runs" } else { "does not run" };
        format!("== {name} {running} (life {lives})\n{}\n{}", counts.join("; "), self.tail())
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("life-{}.log", self.lives))
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }
}

/// A field of the last line that has it; the services of a fleet log as JSON.
pub(crate) fn field(log: &str, name: &str) -> Option<String> {
    log.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        match line.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    })
}
