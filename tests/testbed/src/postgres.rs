//! PostgreSQL, of the distribution, over a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::port::free_port;
use crate::server::{Server, Signal};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Cold, with both cores busy, its folder takes 3 s to make and a start 1 s (measured, 2026-11-27).
const START_DEADLINE: Duration = Duration::from_secs(60);
/// So often another port is tried when somebody else took ours.
const ATTEMPTS: usize = 3;

/// How a server is to be.
#[derive(Clone, Debug, Default)]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
    folder: Option<PathBuf>,
    secured: bool,
}

/// A running server. Its superuser is [`Postgres::USER`].
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    builder: PostgresBuilder,
    // Before the folder, so that it ends before its data goes.
    server: Option<Server>,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl PostgresBuilder {
    /// A line of `postgresql.conf`; the last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Encrypted connections alone, with [`Postgres::PASSWORD`]; [`Postgres::authority`] vouches for the server's
    /// name, which is `localhost`.
    #[must_use]
    pub fn secured(mut self) -> Self {
        self.secured = true;
        self
    }

    /// Keeps its data here instead of in a folder that goes with it; what lies there already stays. Others than root
    /// must be able to reach it: see [`Postgres::reaches`].
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When its programs are missing, or it does not come up: with the last lines of its log.
    pub fn start(mut self) -> anyhow::Result<Postgres> {
        let mut temporary = None;
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => {
                let made = tempfile::Builder::new().prefix("postgres").tempdir();
                temporary.insert(made.context("a folder for PostgreSQL")?).path().to_owned()
            }
        };
        self.make(&folder)?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (port, builder) = (free_port()?, self.clone());
            let mut postgres =
                Postgres { port, builder, server: None, folder: folder.clone(), _temporary: None };
            match postgres.restart() {
                Ok(()) => {
                    postgres._temporary = temporary;
                    return Ok(postgres);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("it was tried")?)
    }

    fn make(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        if folder.join("data/PG_VERSION").exists() {
            return own(folder);
        }
        if self.secured {
            certify(folder)?;
            let password = folder.join("password");
            fs::write(&password, Postgres::PASSWORD).with_context(|| password.display().to_string())?;
        }
        own(folder)?;
        let mut initdb = program("initdb")?;
        initdb.args(["--no-sync", "--encoding", "UTF8", "--username", Postgres::USER, "--pgdata"]);
        initdb.arg(folder.join("data"));
        if self.secured {
            initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(folder.join("password"));
        } else {
            initdb.arg("--auth=trust");
        }
        let log = folder.join("initdb.log");
        let mut made = Server::spawn_as("initdb", unprivileged(), &initdb, &log)?;
        if !made.wait(START_DEADLINE)?.success() {
            bail!("PostgreSQL's folder could not be made:\n{}", made.log());
        }
        Ok(())
    }
}

impl Postgres {
    /// Who owns everything in it.
    pub const USER: &'static str = "postgres";
    /// The password of a secured one.
    pub const PASSWORD: &'static str = "touchstone-secret";

    /// One with settings for tests.
    pub fn builder() -> PostgresBuilder {
        // Tests end processes, not machines.
        PostgresBuilder::default().setting("fsync", "off")
    }

    /// Starts one with settings for tests.
    ///
    /// # Errors
    /// As [`PostgresBuilder::start`].
    pub fn start() -> anyhow::Result<Self> {
        Self::builder().start()
    }

    /// A server for all tests of this process, each in a database of its own; none of them may stop it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let folder = crate::folder::of_this_process("postgres").expect("a folder for the shared server");
            Self::builder()
                .folder(&folder)
                .setting("max_connections", "400")
                .start()
                .expect("PostgreSQL starts")
        })
    }

    /// Whether the server could keep its data in this folder: as root's it runs as somebody else, who must be able to
    /// enter every folder above.
    pub fn reaches(folder: &Path) -> bool {
        let may_enter = |above: &Path| {
            fs::metadata(above)
                .is_ok_and(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 1 == 1)
        };
        unprivileged().is_none() || folder.ancestors().skip(1).all(may_enter)
    }

    /// The URL of a database; it has no password.
    pub fn url(&self, database: &str) -> String {
        let guard = if self.builder.secured {
            format!("?sslmode=verify-full&sslrootcert={}", self.authority().display())
        } else {
            String::new()
        };
        format!("postgresql://{}@{}:{}/{database}{guard}", Self::USER, self.host(), self.port)
    }

    /// The certificate that a secured one's clients trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority.crt")
    }

    /// Makes an empty database and gives its name.
    ///
    /// # Errors
    /// In the server's words.
    pub fn create_database(&self) -> anyhow::Result<String> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    /// Makes a database of this name, unless there is one.
    ///
    /// # Errors
    /// In the server's words.
    pub fn database(&self, name: &str) -> anyhow::Result<()> {
        let found = self.query("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))?;
        if found.is_empty() {
            self.query("postgres", &format!("CREATE DATABASE {name}"))?;
        }
        Ok(())
    }

    /// What a statement answers: a line for each row, its columns with `|` between them.
    ///
    /// # Errors
    /// In the server's words.
    pub fn query(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = program("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--command", sql, &self.url(database)]).env("PGPASSWORD", Self::PASSWORD);
        let output = run(&mut psql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// SIGKILL; its data stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Stops or continues the process that takes connections; those that there are go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.server.as_ref().context("PostgreSQL does not run")?.signal(signal)
    }

    /// Starts it again on the same data and port, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up: with the last lines of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let (began, data) = (Instant::now(), self.folder.join("data"));
        loop {
            let mut postgres = program("postgres")?;
            postgres.arg("-D").arg(&data).args(["-p", &self.port.to_string()]);
            for (name, value) in self.settings() {
                postgres.args(["-c", &format!("{name}={value}")]);
            }
            let log = self.folder.join("postgres.log");
            let mut server = Server::spawn_as("PostgreSQL", unprivileged(), &postgres, &log)?;
            match server.wait_ready(START_DEADLINE, || self.answers()) {
                Ok(()) => {
                    self.server = Some(server);
                    return Ok(());
                }
                // After a kill, the sessions of the one before take a moment to notice, and hold its memory.
                Err(_) if server.log().contains("is still in use") && began.elapsed() < START_DEADLINE => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn settings(&self) -> Vec<(&str, String)> {
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            // Nobody asks for one, and its path may be too long.
            ("unix_socket_directories", String::new()),
        ];
        if self.builder.secured {
            settings.push(("ssl", "on".to_owned()));
            for (name, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key")] {
                settings.push((name, self.folder.join(file).display().to_string()));
            }
        }
        settings.extend(self.builder.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        settings
    }

    fn host(&self) -> &'static str {
        // The certificate is for the name.
        if self.builder.secured { "localhost" } else { "127.0.0.1" }
    }

    /// Whether it takes connections, and is not just coming up.
    fn answers(&self) -> bool {
        let Ok(mut ready) = program("pg_isready") else { return false };
        ready.args(["--quiet", "--host", "127.0.0.1", "--port", &self.port.to_string()]);
        ready.status().is_ok_and(|status| status.success())
    }
}

/// A certificate authority, and the server's certificate from it.
fn certify(folder: &Path) -> anyhow::Result<()> {
    let openssl = |arguments: &str| {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(folder)).map(drop)
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 2 -subj /CN=touchstone-test -keyout authority.key -out authority.crt"
    ))?;
    openssl(&format!(
        "req -new {key} -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout server.key -out server.csr"
    ))?;
    openssl(
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 \
         -copy_extensions copy -out server.crt",
    )
}

/// It refuses to be root: then it is the user that the distribution made for it.
fn unprivileged() -> Option<&'static str> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    is_root.then_some("postgres")
}

fn own(folder: &Path) -> anyhow::Result<()> {
    match unprivileged() {
        Some(user) => run(Command::new("chown").args(["-R", user]).arg(folder)).map(drop),
        None => Ok(()),
    }
}

fn program(name: &str) -> anyhow::Result<Command> {
    let program = Path::new(PROGRAMS).join(name);
    if !program.exists() {
        bail!("{} is missing: run `.ci/setup --tests`", program.display());
    }
    Ok(Command::new(program))
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_with_its_data_on_its_port() {
        let mut postgres = Postgres::start().expect("it starts");
        let database = postgres.create_database().expect("a database");
        postgres.query(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("a table");
        postgres.kill().expect("it can be killed");
        assert!(postgres.query(&database, "SELECT n FROM t").is_err());
        postgres.restart().expect("it starts again");
        assert_eq!(postgres.query(&database, "SELECT n FROM t").expect("an answer"), "7");
    }

    #[test]
    fn a_folder_of_ones_own_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("kept");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .expect("it is ours");
        assert!(!Postgres::reaches(&own) || unprivileged().is_none());
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        assert!(Postgres::reaches(&own));
        for life in 0..2 {
            let postgres = Postgres::builder().folder(&own).start().expect("it starts");
            postgres.database("kept").expect("a database");
            if life == 0 {
                postgres.query("kept", "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("a table");
            }
            assert_eq!(postgres.query("kept", "SELECT n FROM t").expect("an answer"), "7");
        }
    }

    #[test]
    fn a_secured_one_asks_for_a_password_and_shows_its_certificate() {
        let postgres = Postgres::builder().secured().start().expect("it starts");
        assert_eq!(postgres.query("postgres", "SHOW ssl").expect("an answer"), "on");
    }
}
