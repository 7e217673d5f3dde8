//! Who may come in, and what those hear who may not.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ops::config::Secret;
use stream::kafka::{KafkaLog, KafkaSettings, SecurityProtocol};
use stream::{Disposition, Log, Metrics, NewRecord, StreamError};
use testbed::Kafka;

use super::support::{append, connect, membership, name, settings, topic};

async fn refused(settings: KafkaSettings) -> StreamError {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let connected = KafkaLog::connect(settings.check().unwrap(), metrics, ops::Failpoints::default()).await;
    connected.err().expect("it must not connect")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_is_named() {
    // Bound and not listening to anybody's frames would hang; a port that was just free refuses.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let quick = |servers: String| KafkaSettings {
        request_timeout: Duration::from_secs(2).into(),
        ..settings(&servers)
    };
    let error = refused(quick(format!("127.0.0.1:{port}"))).await;
    assert_eq!(error.disposition(), Disposition::Retry);
    let message = error.to_string();
    assert!(message.contains("kafka.bootstrap_servers") && message.contains(&port.to_string()), "{message}");
    assert!(message.contains("refused"), "{message}");
    let message = refused(quick("nobody.invalid:9092".to_owned())).await.to_string();
    assert!(message.contains("nobody.invalid") && message.contains("resolve"), "{message}");
}

const LOGIN: &str = "org.apache.kafka.common.security";

/// A broker with logins and rights. `admin` may do everything, `alice` nothing.
fn guarded() -> Kafka {
    let plain = format!(
        "{LOGIN}.plain.PlainLoginModule required username=\"admin\" password=\"root\" \
         user_admin=\"root\" user_alice=\"open sesame\";"
    );
    let token = format!(
        "{LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"admin\";"
    );
    Kafka::builder()
        .setting("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT")
        .setting("sasl.enabled.mechanisms", "PLAIN,OAUTHBEARER")
        .setting("sasl.mechanism.inter.broker.protocol", "PLAIN")
        .setting("inter.broker.listener.name", "PLAINTEXT")
        .setting("listener.name.plaintext.plain.sasl.jaas.config", &plain)
        .setting("listener.name.plaintext.oauthbearer.sasl.jaas.config", &token)
        .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .setting("super.users", "User:admin;User:ANONYMOUS")
        .start()
        .unwrap()
}

fn login(kafka: &Kafka, user: &str, password: &str) -> KafkaSettings {
    KafkaSettings {
        security_protocol: SecurityProtocol::SaslPlaintext,
        sasl_mechanism: "PLAIN".to_owned(),
        sasl_username: user.to_owned(),
        sasl_password: Secret::new(password),
        ..settings(&kafka.bootstrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_rights_are_told_apart() {
    let kafka = guarded();
    let error = refused(login(&kafka, "alice", "guess")).await;
    assert_eq!(error.disposition(), Disposition::Fatal);
    let message = error.to_string();
    assert!(
        message.contains("kafka.sasl_username alice") && message.contains("kafka.bootstrap_servers"),
        "{message}"
    );
    assert!(
        message.to_lowercase().contains("authentication failed") && !message.contains("guess"),
        "{message}"
    );

    let (admin, _) = connect(login(&kafka, "admin", "root")).await;
    let topic = topic(&admin, "guarded", 1).await;
    append(&admin, &topic, 1).await;

    let (alice, _) = connect(login(&kafka, "alice", "open sesame")).await;
    let error = alice.append(vec![NewRecord::keyed(topic.clone(), "k", "v")]).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Fatal);
    assert!(error.to_string().contains(&*topic) && error.to_string().contains("ACL"), "{error}");
    let joined = alice.join(membership(&name("group"), &name("slot"), std::slice::from_ref(&topic))).await;
    let error = joined.err().expect("no right to read");
    assert!(error.to_string().contains(&*topic) && error.to_string().contains("ACL"), "{error}");

    // The broker's unsecured variant, which exists for tests: what counts here is that a token from a file arrives.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"admin","iat":{now},"exp":{}}}"#, now + 3600);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    write!(file, "{}.{}.", coded(r#"{"alg":"none"}"#), coded(&claims)).unwrap();
    let settings = KafkaSettings {
        security_protocol: SecurityProtocol::SaslPlaintext,
        sasl_mechanism: "OAUTHBEARER".to_owned(),
        oauthbearer_token_file: file.path().display().to_string(),
        ..settings(&kafka.bootstrap())
    };
    let (bearer, _) = connect(settings).await;
    append(&bearer, &topic, 1).await;
}
