//! TLS, both ways, and the logins by challenge: on real brokers, with keys and secrets from files.

use std::path::{Path, PathBuf};
use std::process::Command;

use stream::Disposition;
use stream::kafka::{KafkaSettings, SecurityProtocol};
use tempfile::TempDir;
use testbed::{Kafka, KafkaBuilder};

use super::access::{all_is_well, refused};
use super::support::settings;

/// An authority, and certificates from it.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        authority
            .openssl(&format!("req -x509 {NEW_KEY} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A key and a certificate for this address: their files.
    fn certify(&self, who: &str, address: &str) -> (PathBuf, PathBuf) {
        self.openssl(&format!(
            "req -new {NEW_KEY} -subj /CN={who} -addext subjectAltName=IP:{address} -keyout {who}.key -out {who}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy \
             -out {who}.pem"
        ));
        (self.file(&format!("{who}.key")), self.file(&format!("{who}.pem")))
    }

    /// A broker with a certificate for this address.
    fn broker(&self, address: &str, protocol: &str) -> KafkaBuilder {
        let (key, certificate) = self.certify("broker", address);
        let both = [key, certificate].map(|file| std::fs::read_to_string(file).unwrap()).concat();
        let store = self.file("broker.store");
        std::fs::write(&store, both).unwrap();
        let map = format!("PLAINTEXT:{protocol},CONTROLLER:PLAINTEXT");
        Kafka::builder()
            .setting("listener.security.protocol.map", &map)
            .setting("inter.broker.listener.name", "PLAINTEXT")
            .setting("ssl.keystore.type", "PEM")
            .setting("ssl.keystore.location", &shown(&store))
            .setting("ssl.truststore.type", "PEM")
            .setting("ssl.truststore.location", &shown(&self.file("ca.pem")))
    }

    fn openssl(&self, arguments: &str) {
        let made =
            Command::new("openssl").args(arguments.split(' ')).current_dir(self.folder.path()).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn shown(path: &Path) -> String {
    path.display().to_string()
}

async fn is_refused(settings: KafkaSettings, words: &[&str]) {
    let error = refused(settings).await;
    assert_eq!(error.disposition(), Disposition::Fatal, "{error}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word} in {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_knows_the_broker_and_is_known_to_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let kafka = authority.broker("127.0.0.1", "SSL").setting("ssl.client.auth", "required").start().unwrap();
    let (key, certificate) = authority.certify("client", "127.0.0.1");
    let with = |ca: &Path, (key, certificate): (&Path, &Path)| KafkaSettings {
        security_protocol: SecurityProtocol::Ssl,
        ssl_ca_file: shown(ca),
        ssl_key_file: shown(key),
        ssl_certificate_file: shown(certificate),
        ..settings(&kafka.bootstrap())
    };
    let ca = authority.file("ca.pem");
    all_is_well(with(&ca, (&key, &certificate))).await;

    let bootstrap = kafka.bootstrap();
    is_refused(
        with(&other.file("ca.pem"), (&key, &certificate)),
        &["kafka.ssl_ca_file", "verif", &bootstrap],
    )
    .await;
    let nobody = Path::new("");
    is_refused(with(&ca, (nobody, nobody)), &["kafka.ssl_certificate_file", &bootstrap]).await;
    let (key, certificate) = other.certify("client", "127.0.0.1");
    is_refused(with(&ca, (&key, &certificate)), &["kafka.ssl_certificate_file", &bootstrap]).await;
    // What is no certificate at all.
    let error = refused(with(&authority.file("ca.key"), (&key, &certificate))).await;
    assert!(error.to_string().contains("kafka.ssl_ca_file"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new();
    // Brokers that talk to each other by this listener would notice, too; this one is alone.
    let kafka =
        authority.broker("127.9.9.9", "SSL").setting("ssl.endpoint.identification.algorithm", "").start();
    let kafka = kafka.unwrap();
    let settings = KafkaSettings {
        security_protocol: SecurityProtocol::Ssl,
        ssl_ca_file: shown(&authority.file("ca.pem")),
        ..settings(&kafka.bootstrap())
    };
    is_refused(settings, &["verif", &kafka.bootstrap()]).await;
}

const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_by_challenge_within_tls() {
    let authority = Authority::new();
    let own = format!("{SCRAM} required username=\"broker\" password=\"root\";");
    let kafka = authority
        .broker("127.0.0.1", "SASL_SSL")
        .setting("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .setting("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512")
        .setting("listener.name.plaintext.scram-sha-512.sasl.jaas.config", &own)
        .scram_user("broker", "root")
        .scram_user("alice", "open sesame")
        .start()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let with = |password: &str| {
        let file = folder.path().join("password");
        std::fs::write(&file, password).unwrap();
        KafkaSettings {
            security_protocol: SecurityProtocol::SaslSsl,
            ssl_ca_file: shown(&authority.file("ca.pem")),
            sasl_mechanism: "SCRAM-SHA-512".to_owned(),
            sasl_username: "alice".to_owned(),
            sasl_password_file: shown(&file),
            ..settings(&kafka.bootstrap())
        }
    };
    all_is_well(with("open sesame\n")).await;
    is_refused(with("guess"), &["kafka.sasl_username alice", "SCRAM-SHA-512", &kafka.bootstrap()]).await;
}
