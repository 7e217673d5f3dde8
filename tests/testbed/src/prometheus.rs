//! Prometheus: it looks at the services' metrics and keeps them.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::port::free_port;
use crate::server::Server;

/// Debian's package.
const PROGRAM: &str = "/usr/bin/prometheus";
const START_DEADLINE: Duration = Duration::from_secs(30);
/// So often another port is tried when somebody else took ours.
const ATTEMPTS: usize = 3;

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    folder: PathBuf,
    _server: Server,
}

impl Prometheus {
    /// Starts one over `folder` that looks every second at these: a name, and the address of its `/metrics`.
    ///
    /// # Errors
    /// When the program is missing or does not come up: with the last lines of its log.
    pub fn start_in(folder: &Path, targets: &[(String, String)]) -> anyhow::Result<Self> {
        if !Path::new(PROGRAM).exists() {
            bail!("{PROGRAM} is missing: run `.ci/setup --tests`");
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            match start(folder, targets, port) {
                Ok(server) => return Ok(Self { port, folder: folder.to_owned(), _server: server }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("it was tried")?)
    }

    /// Where people and clients find it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Looks at these from now on: the file of targets is read anew by itself.
    ///
    /// # Errors
    /// When its folder cannot be written.
    pub fn look_at(&self, targets: &[(String, String)]) -> anyhow::Result<()> {
        write_targets(&self.folder, targets)
    }
}

fn start(folder: &Path, targets: &[(String, String)], port: u16) -> anyhow::Result<Server> {
    write_targets(folder, targets)?;
    let file = folder.join("prometheus.yml");
    fs::write(&file, CONFIG).with_context(|| file.display().to_string())?;
    let mut command = Command::new(PROGRAM);
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg("--log.level=warn");
    let mut server = Server::spawn("Prometheus", &command, &folder.join("prometheus.log"))?;
    server.wait_ready(START_DEADLINE, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    Ok(server)
}

fn write_targets(folder: &Path, targets: &[(String, String)]) -> anyhow::Result<()> {
    let target = |(name, address): &(String, String)| {
        format!("- targets: [{address:?}]\n  labels: {{ instance: {name:?} }}\n")
    };
    let text: String = targets.iter().map(target).collect();
    // Whole at once: it is read at any moment.
    let draft = folder.join("targets.draft");
    fs::write(&draft, text).with_context(|| draft.display().to_string())?;
    fs::rename(&draft, folder.join("targets.yml")).with_context(|| folder.display().to_string())
}

const CONFIG: &str = "\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: touchstone
    file_sd_configs:
      - files: [targets.yml]
        refresh_interval: 5s
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_up_and_changes_its_targets() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = |address: &str| [("it".to_owned(), address.to_owned())];
        let prometheus = Prometheus::start_in(folder.path(), &target("127.0.0.1:1")).expect("it starts");
        prometheus.look_at(&target("127.0.0.1:2")).expect("its folder is there");
        assert!(TcpStream::connect(prometheus.url().trim_start_matches("http://")).is_ok());
    }
}
