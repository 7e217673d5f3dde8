//! How Kafka is reached: the table `[kafka]` of a service's file, and what becomes of it once it is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ops::config::{ConfigError, HumanDuration, Problems, Secret};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};

pub use crate::log::Delivery;

/// The table `[kafka]` with every knob explained, to be appended to a service's own defaults.
pub const DEFAULTS: &str = include_str!("../../defaults.toml");

/// How partitions are shared out in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// By the broker (KIP-848).
    Consumer,
    /// By the members, cooperatively.
    Classic,
}

/// What lies between client and broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Nothing.
    Plaintext,
    /// TLS.
    Ssl,
    /// A login in the clear.
    SaslPlaintext,
    /// A login within TLS.
    SaslSsl,
}

impl SecurityProtocol {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    pub(crate) const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// A property as it is written: text, number, or true and false.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "a property's value: text, a number, true or false (its dotted name in quotes)"
)]
pub enum Property {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => value.fmt(f),
            Self::Whole(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// `[kafka]` as it is written; `defaults.toml` says what each knob is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains them, once")]
pub struct KafkaSettings {
    pub bootstrap_servers: String,
    pub group_protocol: GroupProtocol,
    pub delivery: Delivery,
    pub security_protocol: SecurityProtocol,
    pub ssl_ca_file: String,
    pub ssl_certificate_file: String,
    pub ssl_key_file: String,
    pub sasl_mechanism: String,
    pub sasl_username: String,
    pub sasl_password: Secret,
    pub sasl_password_file: String,
    pub oauthbearer_token_file: String,
    pub session_timeout: HumanDuration,
    pub transaction_timeout: HumanDuration,
    pub request_timeout: HumanDuration,
    pub replication_factor: i32,
    pub properties: BTreeMap<String, Property>,
}

impl Default for KafkaSettings {
    /// The defaults, with no cluster named.
    fn default() -> Self {
        #[derive(Deserialize)]
        struct File {
            kafka: KafkaSettings,
        }
        let file: File = ops::config::load(DEFAULTS, None, "", std::iter::empty())
            .expect("the defaults are read by a test");
        file.kafka
    }
}

/// `[kafka]`, checked.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    pub(crate) bootstrap_servers: String,
    pub(crate) group_protocol: GroupProtocol,
    pub(crate) delivery: Delivery,
    pub(crate) security_protocol: SecurityProtocol,
    pub(crate) ssl_ca_file: Option<String>,
    /// Certificate and key.
    pub(crate) ssl_identity: Option<(String, String)>,
    pub(crate) login: Option<Login>,
    pub(crate) session_timeout: Duration,
    pub(crate) transaction_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// −1: the broker's own.
    pub(crate) replication_factor: i32,
    pub(crate) properties: BTreeMap<String, String>,
}

/// How this client says who it is.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Password { mechanism: &'static str, username: String, password: Secret },
    Token { file: PathBuf },
}

impl Login {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Password { mechanism, username, .. } => {
                format!("kafka.sasl_username {username} ({mechanism})")
            }
            Self::Token { file } => format!("the token of kafka.oauthbearer_token_file {}", file.display()),
        }
    }
}

const PASSWORD_MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Properties that are not for the file: the knob to use instead, or why not.
const REFUSED: &[(&str, &str)] = &[
    ("acks", GUARANTEES),
    ("allow.auto.create.topics", "topics are created by `touchstone-scheduler topics create`"),
    ("auto.commit.interval.ms", GUARANTEES),
    ("auto.offset.reset", GUARANTEES),
    ("bootstrap.servers", "use kafka.bootstrap_servers"),
    // Acknowledgements are counted.
    ("delivery.report.only.error", GUARANTEES),
    ("delivery.timeout.ms", GUARANTEES),
    ("enable.auto.commit", GUARANTEES),
    ("enable.auto.offset.store", GUARANTEES),
    ("enable.gapless.guarantee", GUARANTEES),
    ("enable.idempotence", GUARANTEES),
    ("enable.partition.eof", GUARANTEES),
    ("group.id", "the group is the service's own"),
    ("group.instance.id", GUARANTEES),
    ("group.protocol", "use kafka.group_protocol"),
    ("group.protocol.type", GUARANTEES),
    ("heartbeat.interval.ms", "use kafka.session_timeout: a third of it is taken"),
    ("isolation.level", GUARANTEES),
    // Without the word of a lost connection nobody knows that a transaction may be in doubt.
    ("log.connection.close", GUARANTEES),
    ("log.queue", GUARANTEES),
    ("max.in.flight", GUARANTEES),
    ("max.in.flight.requests.per.connection", GUARANTEES),
    (
        "message.max.bytes",
        "outcomes are cut to worker.publish.record_bytes_max, which is below librdkafka's default",
    ),
    ("message.send.max.retries", GUARANTEES),
    ("message.timeout.ms", GUARANTEES),
    ("metadata.broker.list", "use kafka.bootstrap_servers"),
    ("partition.assignment.strategy", GUARANTEES),
    ("partitioner", GUARANTEES),
    ("request.required.acks", GUARANTEES),
    ("retries", GUARANTEES),
    ("sasl.mechanism", "use kafka.sasl_mechanism"),
    ("sasl.mechanisms", "use kafka.sasl_mechanism"),
    ("sasl.password", "use kafka.sasl_password_file"),
    ("sasl.username", "use kafka.sasl_username"),
    ("security.protocol", "use kafka.security_protocol"),
    ("session.timeout.ms", "use kafka.session_timeout"),
    ("socket.timeout.ms", GUARANTEES),
    ("ssl.ca.location", "use kafka.ssl_ca_file"),
    ("ssl.certificate.location", "use kafka.ssl_certificate_file"),
    ("ssl.key.location", "use kafka.ssl_key_file"),
    ("ssl.key.pem", "use kafka.ssl_key_file"),
    ("transaction.timeout.ms", "use kafka.transaction_timeout"),
    ("transactional.id", "the slot of a membership is its transactional id"),
];
const GUARANTEES: &str = "the guarantees rest on it, so it is set by the program";

impl KafkaSettings {
    /// Checks everything that can be checked without a broker; files of secrets are read here.
    ///
    /// # Errors
    /// Every knob that is wrong, and what to do about it.
    pub fn check(self) -> Result<KafkaConfig, ConfigError> {
        let mut problems = Problems::default();
        let names = self.bootstrap_servers.split(',').map(str::trim);
        let is_address = |name: &str| {
            name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        problems.require(
            names.clone().all(is_address),
            "kafka.bootstrap_servers",
            format_args!("{:?} is not host:port, or several with commas", self.bootstrap_servers),
        );
        let login = self.login(&mut problems);
        let tls = self.security_protocol.has_tls();
        for (key, file) in [
            ("kafka.ssl_ca_file", &self.ssl_ca_file),
            ("kafka.ssl_certificate_file", &self.ssl_certificate_file),
            ("kafka.ssl_key_file", &self.ssl_key_file),
        ] {
            if file.is_empty() {
                continue;
            }
            problems.require(tls, key, "has no effect without kafka.security_protocol ssl or sasl_ssl");
            if let Err(error) = std::fs::metadata(file) {
                problems.add(key, format_args!("{file}: {error}"));
            }
        }
        problems.require(
            self.ssl_certificate_file.is_empty() == self.ssl_key_file.is_empty(),
            "kafka.ssl_key_file",
            "a certificate and its key go together",
        );
        let within = |time: HumanDuration, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&time.get())
        };
        problems.require(
            within(self.transaction_timeout, 1000, 900_000),
            "kafka.transaction_timeout",
            "1s to 15m (the broker's transaction.max.timeout.ms)",
        );
        problems.require(within(self.session_timeout, 1000, 3_600_000), "kafka.session_timeout", "1s to 1h");
        problems.require(within(self.request_timeout, 1000, 300_000), "kafka.request_timeout", "1s to 5m");
        problems.require(
            (0..=i32::from(i16::MAX)).contains(&self.replication_factor),
            "kafka.replication_factor",
            "0 (the broker's own) or a number of brokers",
        );
        let properties = self.checked_properties(&mut problems);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let replication_factor = if self.replication_factor == 0 { -1 } else { self.replication_factor };
        problems.finish(KafkaConfig {
            bootstrap_servers: names.collect::<Vec<_>>().join(","),
            group_protocol: self.group_protocol,
            delivery: self.delivery,
            security_protocol: self.security_protocol,
            ssl_ca_file: some(&self.ssl_ca_file),
            ssl_identity: some(&self.ssl_certificate_file).zip(some(&self.ssl_key_file)),
            login,
            session_timeout: self.session_timeout.get(),
            transaction_timeout: self.transaction_timeout.get(),
            request_timeout: self.request_timeout.get(),
            replication_factor,
            properties,
        })
    }

    fn login(&self, problems: &mut Problems) -> Option<Login> {
        let Self { sasl_mechanism, sasl_username, sasl_password, sasl_password_file, .. } = self;
        if !self.security_protocol.has_login() {
            for (key, is_set) in [
                ("kafka.sasl_mechanism", !sasl_mechanism.is_empty()),
                ("kafka.sasl_username", !sasl_username.is_empty()),
                ("kafka.sasl_password", !sasl_password.is_empty()),
                ("kafka.sasl_password_file", !sasl_password_file.is_empty()),
                ("kafka.oauthbearer_token_file", !self.oauthbearer_token_file.is_empty()),
            ] {
                let why = "has no effect without kafka.security_protocol sasl_plaintext or sasl_ssl";
                problems.require(!is_set, key, why);
            }
            return None;
        }
        if sasl_mechanism == "OAUTHBEARER" {
            let file = PathBuf::from(&self.oauthbearer_token_file);
            let key = "kafka.oauthbearer_token_file";
            problems.require(!self.oauthbearer_token_file.is_empty(), key, "OAUTHBEARER needs it");
            problems.take(key, super::token::read(&file));
            return Some(Login::Token { file });
        }
        let Some(mechanism) = PASSWORD_MECHANISMS.into_iter().find(|name| name == sasl_mechanism) else {
            let why =
                format_args!("{sasl_mechanism:?} is none of {}, OAUTHBEARER", PASSWORD_MECHANISMS.join(", "))
                    .to_string();
            problems.add("kafka.sasl_mechanism", why);
            return None;
        };
        problems.require(!sasl_username.is_empty(), "kafka.sasl_username", "a login needs a name");
        let password = match (sasl_password.is_empty(), sasl_password_file.is_empty()) {
            (true, true) => {
                problems.add("kafka.sasl_password_file", "a login needs a password");
                return None;
            }
            (false, false) => {
                problems.add("kafka.sasl_password_file", "kafka.sasl_password is set too: one of the two");
                return None;
            }
            (false, true) => sasl_password.clone(),
            (true, false) => {
                let read = Secret::parse(&format!("file:{sasl_password_file}"));
                problems.take("kafka.sasl_password_file", read)?
            }
        };
        Some(Login::Password { mechanism, username: sasl_username.clone(), password })
    }

    fn checked_properties(&self, problems: &mut Problems) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (name, value) in &self.properties {
            let key = format!("kafka.properties.\"{name}\"");
            let value = value.to_string();
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| refused == name) {
                problems.add(&key, why);
                continue;
            }
            match ClientConfig::new().set(name, &value).create_native_config() {
                Ok(_) => drop(properties.insert(name.clone(), value)),
                Err(KafkaError::ClientConfig(_, why, ..)) => problems.add(&key, why),
                Err(error) => problems.add(&key, error),
            }
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings { bootstrap_servers: "one:9092, two:9092".to_owned(), ..KafkaSettings::default() }
    }

    #[test]
    fn the_defaults_lack_nothing_but_the_cluster() {
        let error = KafkaSettings::default().check().expect_err("no cluster").to_string();
        assert!(error.contains("kafka.bootstrap_servers"), "{error}");
        let config = settings().check().expect("that is all");
        assert_eq!(config.bootstrap_servers, "one:9092,two:9092");
        assert_eq!(config.replication_factor, -1);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let mut wrong = settings();
        wrong.bootstrap_servers = "no port".to_owned();
        wrong.ssl_ca_file = "/nowhere".to_owned();
        wrong.sasl_username = "somebody".to_owned();
        wrong.transaction_timeout = "10ms".parse().expect("a duration");
        wrong.properties.insert("enable.auto.commit".to_owned(), Property::Flag(true));
        wrong.properties.insert("no.such.thing".to_owned(), Property::Whole(1));
        let error = wrong.check().expect_err("all of it").to_string();
        for named in [
            "kafka.bootstrap_servers",
            "kafka.ssl_ca_file",
            "kafka.sasl_username",
            "kafka.transaction_timeout",
            "kafka.properties.\"enable.auto.commit\": the guarantees",
            "kafka.properties.\"no.such.thing\"",
        ] {
            assert!(error.contains(named), "{named} in {error}");
        }
    }

    #[test]
    fn a_login_is_whole_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "open sesame\n").expect("it can be written");
        let login = |mechanism: &str, password: &str, file: &str| {
            let settings = KafkaSettings {
                security_protocol: SecurityProtocol::SaslPlaintext,
                sasl_mechanism: mechanism.to_owned(),
                sasl_username: "alice".to_owned(),
                sasl_password: Secret::new(password),
                sasl_password_file: file.to_owned(),
                ..settings()
            };
            settings.check()
        };
        let config = login("PLAIN", "", &file.display().to_string()).expect("a password in a file");
        assert!(
            matches!(&config.login, Some(Login::Password { password, .. }) if password.expose() == "open sesame")
        );
        assert!(!format!("{config:?}").contains("sesame"));
        login("SCRAM-SHA-512", "literal", "").expect("a literal password");
        for (mechanism, password, file) in
            [("GSSAPI", "x", ""), ("PLAIN", "", ""), ("PLAIN", "x", "/y"), ("PLAIN", "", "/nowhere")]
        {
            login(mechanism, password, file).expect_err(mechanism);
        }
    }

    #[test]
    fn refused_properties_are_real_ones() {
        for (name, _) in REFUSED {
            let unknown = ClientConfig::new().create_native_config().expect("empty").get(name).is_err();
            // Aliases and write-only ones cannot be read; a misspelt one cannot be set either.
            let unset = ["1", "true", "all", "consumer", "latest", "ssl", "random", "x"]
                .iter()
                .all(|value| ClientConfig::new().set(*name, *value).create_native_config().is_err());
            assert!(!(unknown && unset), "{name}");
        }
    }
}
