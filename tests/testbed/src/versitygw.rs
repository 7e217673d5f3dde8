//! versitygw: an S3 server of others over a folder.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::port::free_port;
use crate::server::{Server, Signal, deps};

const START_DEADLINE: Duration = Duration::from_secs(30);
/// So often another port is tried when somebody else took ours.
const ATTEMPTS: usize = 3;

/// A running S3 server; each of its buckets is a folder.
#[derive(Debug)]
pub struct VersityGateway {
    port: u16,
    // Before the folder, so that it ends before its data goes.
    server: Option<Server>,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl VersityGateway {
    /// The access key it knows.
    pub const ACCESS_KEY: &'static str = "touchstone";
    /// The secret that goes with it.
    pub const SECRET_KEY: &'static str = "touchstone-secret";

    /// Starts one with empty folders and keeps every version of an object.
    ///
    /// # Errors
    /// When the program is missing or does not come up: with the last lines of its log.
    pub fn start() -> anyhow::Result<Self> {
        let temporary =
            tempfile::Builder::new().prefix("versitygw").tempdir().context("a folder for versitygw")?;
        let mut gateway = Self::start_in(temporary.path())?;
        gateway._temporary = Some(temporary);
        Ok(gateway)
    }

    /// As [`VersityGateway::start`], over a folder that stays.
    ///
    /// # Errors
    /// As [`VersityGateway::start`].
    pub fn start_in(folder: &Path) -> anyhow::Result<Self> {
        for name in ["buckets", "versions"] {
            fs::create_dir_all(folder.join(name)).with_context(|| folder.display().to_string())?;
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let mut gateway = Self { port, server: None, folder: folder.to_owned(), _temporary: None };
            match gateway.restart() {
                Ok(()) => return Ok(gateway),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("it was tried")?)
    }

    /// Where its buckets lie, a folder each.
    pub fn buckets(&self) -> PathBuf {
        self.folder.join("buckets")
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it where it stands, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.server.as_ref().context("versitygw does not run")?.signal(signal)
    }

    /// SIGKILL; its data stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Starts it again on the same data and port, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not come up: with the last lines of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let mut command = Command::new(deps("bin/versitygw")?);
        command.env("ROOT_ACCESS_KEY", Self::ACCESS_KEY).env("ROOT_SECRET_KEY", Self::SECRET_KEY);
        command.args(["--port", &format!("127.0.0.1:{}", self.port), "posix", "--versioning-dir"]);
        command.arg(self.folder.join("versions")).arg(self.folder.join("buckets"));
        let mut server = Server::spawn("versitygw", &command, &self.folder.join("versitygw.log"))?;
        let address = (Ipv4Addr::LOCALHOST, self.port);
        server.wait_ready(START_DEADLINE, || TcpStream::connect(address).is_ok())?;
        self.server = Some(server);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_on_its_port() {
        let mut gateway = VersityGateway::start().expect("it starts");
        gateway.kill().expect("it can be killed");
        gateway.restart().expect("it starts again");
    }
}
