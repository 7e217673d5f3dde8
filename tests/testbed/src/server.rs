//! A process of somebody else's: started, watched, and ended with us.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// `.deps/NAME` of the checkout, which the set-up fills.
///
/// # Errors
/// When it is not there, with the command that makes it.
pub fn deps(name: &str) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.canonicalize().context("the checkout is where this was built")?.join(".deps").join(name);
    if !path.exists() {
        bail!("{} is missing: run `.ci/setup --tests`", path.display());
    }
    Ok(path)
}

/// What can be sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// What a Ctrl-C at the terminal sends.
    Interrupt,
    /// Stop where you are.
    Stop,
    /// Go on.
    Continue,
}

/// A running process. It is killed when dropped, and when this process ends, in whatever way.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with these arguments, in a process group of its own, its output appended to `log`.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(name, &command, log)
    }

    /// As [`Server::start`]; of `command` the program, arguments, environment and folder count.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn spawn(name: &str, command: &Command, log: &Path) -> anyhow::Result<Self> {
        Self::spawn_as(name, None, command, log)
    }

    /// As [`Server::spawn`], as another user of this machine: for what refuses to be root.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn spawn_as(name: &str, user: Option<&str>, command: &Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("log of {name}: {}", log.display()))?;
        // setpriv, of every Debian's base: it sets the signal after the change of user, which would clear it.
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            wrapped.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        wrapped.arg("--").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        // A Ctrl-C at the terminal is for us alone: we end the servers in order.
        wrapped.process_group(0).stdin(Stdio::null());
        wrapped.stdout(output.try_clone().context("a file can be shared")?).stderr(output);
        let child = spawn(wrapped).with_context(|| format!("{name} could not be started: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// When the process ends first, or the deadline passes: with the last lines of its log.
    pub fn wait_ready(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.try_wait()? {
                bail!("{} ended at once, {status}:\n{}", self.name, self.tail());
            }
            if start.elapsed() > deadline {
                bail!("{} was not ready within {deadline:?}:\n{}", self.name, self.tail());
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("state of {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it is still there after the deadline.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!("{} still runs after {deadline:?}:\n{}", self.name, self.tail());
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let signal = match signal {
            Signal::Term => "-TERM",
            Signal::Interrupt => "-INT",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status().context("kill")?;
        if !status.success() {
            bail!("{}: {signal} did not reach process {}", self.name, self.id());
        }
        Ok(())
    }

    /// SIGKILL; returns when it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `kill` and `wait`.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

type Order = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a process from the thread that starts them all: what dies with its parent dies with the parent's thread,
/// and a test's thread ends with the test.
fn spawn(command: Command) -> anyhow::Result<Child> {
    static STARTER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, queue) = sync_channel::<Order>(1);
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _asker_gone = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = sync_channel(1);
    starter.send((command, answer)).context("the starting thread lives as long as the process")?;
    Ok(answered.recv().context("the starting thread answers")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_once_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let mut server =
            Server::start("it", "sh", ["-c", "echo no such flag; exit 3"], &log).expect("sh starts");
        let error = server.wait_ready(Duration::from_secs(20), || false).expect_err("it ends").to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such flag"), "{error}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start("it", "sleep", ["600"], &folder.path().join("log")).expect("sleep starts");
        let process = PathBuf::from(format!("/proc/{}", server.id()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
    }

    #[test]
    fn a_server_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let asked = std::thread::spawn(move || Server::start("it", "sleep", ["600"], &log));
        let mut server = asked.join().expect("no panic").expect("sleep starts");
        assert_eq!(server.try_wait().expect("it can be asked"), None);
        server.signal(Signal::Term).expect("it is there");
        assert!(!server.wait(Duration::from_secs(20)).expect("it ends").success());
    }
}
