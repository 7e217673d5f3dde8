//! Apache Kafka: one broker that is its own controller, or several that replicate each other.

mod back;
mod rights;

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::port::free_port;
use crate::server::{Server, deps};
pub use rights::{May, On};

/// Cold, with both cores busy, a start takes 6 to 10 s (measured, 2026-11-24).
const START_DEADLINE: Duration = Duration::from_secs(90);
/// So often another pair of ports is tried when somebody else took one of ours.
const ATTEMPTS: usize = 3;

/// What the set-up fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaVersion {
    /// The newest release.
    Newest,
    /// The first line with KIP-848: its check of the group's epoch is stricter than the newest one's.
    Kafka40,
}

impl KafkaVersion {
    const fn number(self) -> &'static str {
        match self {
            Self::Newest => "4.4.0",
            Self::Kafka40 => "4.0.2",
        }
    }
}

/// How a broker is to be.
#[derive(Clone, Debug)]
pub struct KafkaBuilder {
    version: KafkaVersion,
    brokers: usize,
    settings: Vec<(String, String)>,
    scram_users: Vec<(String, String)>,
    folder: Option<PathBuf>,
}

impl KafkaBuilder {
    /// Another version than the newest.
    #[must_use]
    pub fn version(mut self, version: KafkaVersion) -> Self {
        self.version = version;
        self
    }

    /// So many brokers, each a controller as well. Topics have a replica on each, and records are acknowledged when
    /// all but one have them.
    #[must_use]
    pub fn brokers(mut self, count: usize) -> Self {
        self.brokers = count;
        self
    }

    /// A line of `server.properties`; the last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A user who logs in by SCRAM-SHA-512.
    #[must_use]
    pub fn scram_user(mut self, name: &str, password: &str) -> Self {
        self.scram_users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Keeps its data here instead of in a folder that goes with it.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When its jars are missing, or it does not come up: with the last lines of its log.
    pub fn start(self) -> anyhow::Result<Kafka> {
        let temporary = tempfile::Builder::new().prefix("kafka").tempdir().context("a folder for Kafka")?;
        let folder = self.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut kafka = Kafka { version: self.version, nodes: self.format(&folder)?, temporary: None };
            match kafka.restart() {
                Ok(()) => {
                    kafka.temporary = Some(temporary);
                    return Ok(kafka);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("it was tried")?)
    }

    /// Ports and folders; data that lies there already stays.
    fn format(&self, folder: &Path) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for number in 1..=self.brokers {
            let folder = if self.brokers == 1 { folder.to_owned() } else { folder.join(number.to_string()) };
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            nodes.push(Node { port: free_port()?, controller: free_port()?, folder, server: None });
        }
        let voters: Vec<String> = (1..)
            .zip(&nodes)
            .map(|(number, node)| format!("{number}@127.0.0.1:{}", node.controller))
            .collect();
        for (number, node) in (1..).zip(&nodes) {
            self.format_node(number, node, &voters.join(","))?;
        }
        Ok(nodes)
    }

    fn format_node(&self, number: usize, node: &Node, voters: &str) -> anyhow::Result<()> {
        let mut properties = String::new();
        let Node { port, controller, folder, .. } = node;
        let data = folder.join("data");
        let replicas = self.brokers.to_string();
        let least = self.brokers.saturating_sub(1).max(1).to_string();
        let own = [
            ("node.id", number.to_string()),
            ("controller.quorum.voters", voters.to_owned()),
            ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}")),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
            ("log.dirs", data.display().to_string()),
            ("default.replication.factor", replicas.clone()),
            ("min.insync.replicas", least.clone()),
            ("offsets.topic.replication.factor", replicas.clone()),
            ("transaction.state.log.replication.factor", replicas.clone()),
            ("transaction.state.log.min.isr", least.clone()),
            ("share.coordinator.state.topic.replication.factor", replicas),
            ("share.coordinator.state.topic.min.isr", least),
        ];
        let fixed = SETTINGS.iter().map(|&(name, value)| (name, value.to_owned()));
        let told = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in fixed.chain(own).chain(told) {
            properties.push_str(&format!("{name}={value}\n"));
        }
        let file = folder.join("server.properties");
        fs::write(&file, properties).with_context(|| file.display().to_string())?;
        if data.join("meta.properties").exists() {
            return Ok(());
        }
        let mut format = java(self.version, "kafka.tools.StorageTool")?;
        // Any 16 bytes will do, in base64 without padding.
        format.args(["format", "--ignore-formatted", "-t", "VG91Y2hzdG9uZS10ZXN0cw", "-c"]).arg(&file);
        for (name, password) in &self.scram_users {
            format.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={name},password={password}]"));
        }
        let output = format.output()?;
        if !output.status.success() {
            bail!("Kafka's folder could not be made: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Brokers whose groups members leave and join quickly, and that miss each other soon, so that tests need not wait.
const SETTINGS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("broker.session.timeout.ms", "5000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "200"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
];

/// Running brokers: one, unless it was built of more.
#[derive(Debug)]
pub struct Kafka {
    version: KafkaVersion,
    // Before the folder, so that they end before their data goes.
    nodes: Vec<Node>,
    temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    controller: u16,
    server: Option<Server>,
    folder: PathBuf,
}

impl Kafka {
    /// The newest version with settings for tests.
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder {
            version: KafkaVersion::Newest,
            brokers: 1,
            settings: Vec::new(),
            scram_users: Vec::new(),
            folder: None,
        }
    }

    /// A broker for all tests of this process; none of them may stop it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| {
            let folder = crate::folder::of_this_process("kafka").expect("a folder for the shared broker");
            Self::builder().folder(&folder).start().expect("Kafka starts")
        })
    }

    /// Where clients find it: every broker, with commas between.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        addresses.join(",")
    }

    /// How many brokers there are, running or not.
    pub fn brokers(&self) -> usize {
        self.nodes.len()
    }

    /// Gives a user rights, in this order and soon after; `super.users` has to name `User:ANONYMOUS`. Asks the first
    /// controller, so it is for one broker alone.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn allow(&self, user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<()> {
        rights::allow(self.nodes[0].controller, user, rights)
    }

    /// Takes these rights from a user, as [`Kafka::allow`] gives them.
    ///
    /// # Errors
    /// When the controller refuses, or a right was not there.
    pub fn forbid(&self, user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<()> {
        rights::forbid(self.nodes[0].controller, user, rights)
    }

    /// SIGKILL to every broker; their data stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::kill)
    }

    /// SIGKILL to one broker; its data stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_broker(&mut self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].kill()
    }

    /// Starts all again on the same data and ports, and waits until they take connections.
    ///
    /// # Errors
    /// When one does not come up: with the last lines of its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        // Together: one alone has no majority.
        let version = self.version;
        self.nodes.iter_mut().try_for_each(|node| node.spawn(version))?;
        self.nodes.iter_mut().try_for_each(Node::wait_ready)
    }

    /// Starts one again on the same data and ports, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not come up: with the last lines of its log.
    pub fn restart_broker(&mut self, number: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[number];
        node.kill()?;
        node.spawn(self.version)?;
        node.wait_ready()
    }

    /// Waits until a client that is none of ours can begin a transaction and hear of this group's offsets. Brokers take
    /// connections long before: their coordinators come back with the controller's session.
    ///
    /// # Errors
    /// When that takes too long: with what the brokers said last.
    pub fn wait_back(&self, group: &str) -> anyhow::Result<()> {
        back::wait(&self.bootstrap(), group, START_DEADLINE)
    }

    /// What they have written so far.
    pub fn log(&self) -> String {
        self.nodes.iter().filter_map(|node| node.server.as_ref()).map(Server::log).collect()
    }
}

impl Node {
    fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    fn spawn(&mut self, version: KafkaVersion) -> anyhow::Result<()> {
        let mut command = java(version, "kafka.Kafka")?;
        command.arg(self.folder.join("server.properties"));
        self.server = Some(Server::spawn("Kafka", &command, &self.folder.join("kafka.log"))?);
        Ok(())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let address = (Ipv4Addr::LOCALHOST, self.port);
        let server = self.server.as_mut().context("it was spawned")?;
        server.wait_ready(START_DEADLINE, || TcpStream::connect(address).is_ok())
    }
}

fn java(version: KafkaVersion, class: &str) -> anyhow::Result<Command> {
    let jars = deps(&format!("kafka/{}/jars", version.number()))?;
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(jars.join("*")).arg(class);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_comes_back_on_its_port() {
        let mut kafka = Kafka::builder().version(KafkaVersion::Kafka40).start().expect("it starts");
        let address = kafka.bootstrap();
        kafka.kill().expect("it can be killed");
        assert!(TcpStream::connect(&address).is_err());
        kafka.restart().expect("it starts again");
        assert!(TcpStream::connect(&address).is_ok());
    }
}
