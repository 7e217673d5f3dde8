//! What all clients share: their settings by role, and an ear for what librdkafka says of itself.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use super::config::{Delivery, GroupProtocol, KafkaConfig, Login};
use crate::error::StreamError;
use crate::member::Membership;

/// Prefetched records of one consumer, at most (4 to 16 MiB serve; more only makes a pause dearer).
const PREFETCH_KBYTES: &str = "8192";
/// The same in records: each costs librdkafka some 500 bytes beside its own, and references are smaller than that.
const PREFETCH_RECORDS: &str = "5000";
/// A consumer whose prefetch was full looks again after so long; librdkafka's own second would starve it.
const PREFETCH_BACKOFF_MS: &str = "20";
/// Records of a transaction are all there when the first is: waiting for more would only delay its commit.
const LINGER_MS: &str = "1";
/// A broker that comes back is found within this; librdkafka's own ten seconds would be most of an outage.
const RECONNECT_MAX_MS: &str = "1000";

/// What the clients of one log have in common.
#[derive(Clone)]
pub(crate) struct Clients {
    config: Arc<KafkaConfig>,
}

impl Clients {
    pub(crate) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config }
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// An ear for one client.
    pub(crate) fn ear(&self, client: impl Into<Arc<str>>, troubles: Arc<Troubles>) -> Ear {
        let token_file = match &self.config.login {
            Some(Login::Token { file }) => Some(file.clone()),
            _ => None,
        };
        Ear { client: client.into(), troubles, token_file }
    }

    /// To be called for each client before its first request: where it logs in by a token, it gets it here.
    pub(crate) fn admit<C: ClientContext>(&self, client: &Client<C>) -> Result<(), StreamError> {
        let Some(Login::Token { file }) = &self.config.login else { return Ok(()) };
        // Not refused: whoever keeps the file filled may only be late.
        super::token::give(client, file)
            .map_err(|why| StreamError::Unavailable { why: format!("kafka.oauthbearer_token_file: {why}") })
    }

    /// Metadata, watermarks, times; no group, no records.
    pub(crate) fn enquirer(&self) -> ClientConfig {
        let mut client = self.any();
        client.set("isolation.level", "read_committed");
        client.set("allow.auto.create.topics", "false");
        client
    }

    /// Topics: making them and asking for their policies.
    pub(crate) fn administrator(&self) -> ClientConfig {
        self.any()
    }

    /// Reads what a group has committed, without being a member.
    pub(crate) fn onlooker(&self, group: &str) -> ClientConfig {
        let mut client = self.consumer(group);
        client.set("group.protocol", "classic");
        client
    }

    /// Reads partitions without a group. librdkafka wants a group's name all the same; nothing joins or commits it.
    pub(crate) fn reader(&self, patience_ms: u64) -> ClientConfig {
        let mut client = self.consumer("touchstone-readers");
        client.set("group.protocol", "classic");
        client.set("enable.partition.eof", "true");
        client.set("fetch.wait.max.ms", patience_ms.to_string());
        client
    }

    /// A member of a group.
    pub(crate) fn member(&self, membership: &Membership) -> ClientConfig {
        let mut client = self.consumer(&membership.group);
        // A member that asks for a session of its own can only have it by the classic protocol: with the other one
        // the broker decides for the whole group, and the settings must be absent.
        let session = match (self.config.group_protocol, membership.session_timeout) {
            (_, Some(session)) => Some(session),
            (GroupProtocol::Classic, None) => Some(self.config.session_timeout),
            (GroupProtocol::Consumer, None) => None,
        };
        match session {
            None => drop(client.set("group.protocol", "consumer")),
            Some(session) => {
                client.set("group.protocol", "classic");
                client.set("partition.assignment.strategy", "cooperative-sticky");
                client.set("session.timeout.ms", session.as_millis().to_string());
                client.set("heartbeat.interval.ms", (session.as_millis() / 3).clamp(1, 3000).to_string());
            }
        }
        client
    }

    /// Writes outside transactions.
    pub(crate) fn appender(&self) -> ClientConfig {
        let mut client = self.producer();
        match self.config.delivery {
            Delivery::ExactlyOnce => drop(client.set("enable.idempotence", "true")),
            // Idempotence is of the same make as transactions: it asks the broker for a producer id (InitProducerId),
            // which those may not know, or not grant, that this mode is for. Without it one request at a time keeps
            // the order through retries, and a retry may write twice what was written and not acknowledged.
            Delivery::AtLeastOnce => {
                client.set("enable.idempotence", "false");
                client.set("max.in.flight.requests.per.connection", "1");
            }
        }
        client.set("message.timeout.ms", self.config.request_timeout.as_millis().to_string());
        client
    }

    /// Writes a member's outcomes where there are no transactions. Several requests are under way at a time: each outcome
    /// names its input, and nothing is promised of their order.
    pub(crate) fn outcomes(&self) -> ClientConfig {
        let mut client = self.appender();
        client.remove("max.in.flight.requests.per.connection");
        client
    }

    /// Writes transactions.
    pub(crate) fn transactor(&self, slot: &str) -> ClientConfig {
        let mut client = self.producer();
        let timeout_ms = self.config.transaction_timeout.as_millis();
        client.set("enable.idempotence", "true");
        client.set("transactional.id", slot);
        client.set("transaction.timeout.ms", timeout_ms.to_string());
        client.set("message.timeout.ms", timeout_ms.to_string());
        // Longer than any call of ours waits: librdkafka must not give up on an EndTxn and repeat it by itself.
        client.set("socket.timeout.ms", (timeout_ms + 100).to_string());
        client
    }

    fn producer(&self) -> ClientConfig {
        let mut client = self.any();
        client.set("acks", "all");
        // Where the caller names no partition we do: see `partitioner.rs`.
        client.set("partitioner", "murmur2_random");
        // A topic that is gone is told at once; we look before we write.
        client.set("topic.metadata.propagation.max.ms", "2000");
        if !self.config.properties.contains_key("linger.ms") {
            client.set("linger.ms", LINGER_MS);
        }
        client
    }

    fn consumer(&self, group: &str) -> ClientConfig {
        let mut client = self.any();
        client.set("group.id", group);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("isolation.level", "read_committed");
        client.set("auto.offset.reset", "earliest");
        client.set("allow.auto.create.topics", "false");
        for (name, value) in [
            ("queued.max.messages.kbytes", PREFETCH_KBYTES),
            ("queued.min.messages", PREFETCH_RECORDS),
            ("fetch.queue.backoff.ms", PREFETCH_BACKOFF_MS),
        ] {
            if !self.config.properties.contains_key(name) {
                client.set(name, value);
            }
        }
        client
    }

    fn any(&self) -> ClientConfig {
        let config = &self.config;
        let mut client = ClientConfig::new();
        // Closed connections are told at this level, and a transaction has to know of them.
        client.set_log_level(RDKafkaLogLevel::Info);
        client.set("client.id", "touchstone");
        client.set("reconnect.backoff.max.ms", RECONNECT_MAX_MS);
        client.set("socket.keepalive.enable", "true");
        client.extend(config.properties.clone());
        client.set("bootstrap.servers", &config.bootstrap_servers);
        client.set("security.protocol", config.security_protocol.name());
        if let Some(file) = &config.ssl_ca_file {
            client.set("ssl.ca.location", file);
        }
        if let Some((certificate, key)) = &config.ssl_identity {
            client.set("ssl.certificate.location", certificate);
            client.set("ssl.key.location", key);
        }
        match &config.login {
            None => {}
            Some(Login::Token { .. }) => drop(client.set("sasl.mechanism", "OAUTHBEARER")),
            Some(Login::Password { mechanism, username, password }) => {
                client.set("sasl.mechanism", *mechanism);
                client.set("sasl.username", username);
                client.set("sasl.password", password.expose());
            }
        }
        client
    }
}

/// What librdkafka complained of last.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) text: String,
}

/// The complaints of a client, or of several.
#[derive(Default)]
pub(crate) struct Troubles {
    /// Guards the last words; held to take or leave them.
    last: Mutex<Option<Trouble>>,
    shaken: AtomicBool,
}

impl Troubles {
    fn note(&self, code: RDKafkaErrorCode, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" comes after the reason and must not hide it.
        let hides = code == RDKafkaErrorCode::AllBrokersDown && last.is_some();
        if !hides {
            *last = Some(Trouble { code, text: text.to_owned() });
        }
    }

    pub(crate) fn last(&self) -> Option<Trouble> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a connection was lost since this was asked last.
    pub(crate) fn take_shaken(&self) -> bool {
        self.shaken.swap(false, Ordering::AcqRel)
    }
}

/// Hears what one client has to say. Called from whichever thread polls it.
pub(crate) struct Ear {
    client: Arc<str>,
    troubles: Arc<Troubles>,
    token_file: Option<PathBuf>,
}

impl Ear {
    pub(crate) fn hear_log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel as Level;
        if facility == "FAIL" {
            self.troubles.shaken.store(true, Ordering::Release);
        }
        let client = &*self.client;
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning => {
                tracing::warn!(client, facility, "{text}");
            }
            Level::Notice | Level::Info | Level::Debug => tracing::debug!(client, facility, "{text}"),
        }
    }

    pub(crate) fn hear_error(&self, error: &KafkaError, reason: &str) {
        // Told as a failing connection already.
        tracing::debug!(client = &*self.client, %error, "{reason}");
        let Some(code) = error.rdkafka_error_code() else { return };
        // The end of an instance is no loss of a connection.
        if !matches!(
            code,
            RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced
        ) {
            self.troubles.shaken.store(true, Ordering::Release);
            self.troubles.note(code, reason);
        }
    }

    pub(crate) fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let file = self.token_file.as_ref().ok_or("kafka.oauthbearer_token_file is not set")?;
        Ok(super::token::read(file)?)
    }
}

/// The context of clients that do nothing else.
impl ClientContext for Ear {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.hear_log(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear_error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.token()
    }
}

impl ConsumerContext for Ear {}
