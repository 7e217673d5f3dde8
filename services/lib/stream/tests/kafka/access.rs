//! Who may come in, and what those hear who may not.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ops::config::Secret;
use stream::kafka::{KafkaLog, KafkaSettings, SecurityProtocol};
use stream::{Commit, Disposition, Log, Metrics, NewRecord, StreamError, TopicPartition};
use testbed::Kafka;

use super::support::{all, append, commit, connect, membership, name, records, settings, topic};

pub async fn refused(settings: KafkaSettings) -> StreamError {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let connected = KafkaLog::connect(settings.check().unwrap(), metrics, ops::Failpoints::default()).await;
    connected.err().expect("it must not connect")
}

/// Everything that a service does, by every kind of client, on this way to the broker.
pub async fn all_is_well(settings: KafkaSettings) {
    let (log, _) = connect(settings).await;
    let input = topic(&log, "input", 1).await;
    let output = topic(&log, "output", 1).await;
    assert!(log.topics().await.unwrap().iter().any(|topic| topic.name == input));
    append(&log, &input, 3).await;
    let (group, slot) = (name("group"), name("slot"));
    let mut member = log.join(membership(&group, &slot, std::slice::from_ref(&input))).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 3).await;
    let answer = commit(&*member.committer(), &output, &inputs, &offsets).await;
    assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");
    let place = TopicPartition::new(Arc::clone(&input), 0);
    // The second question goes to a client that was kept.
    for _ in 0..2 {
        let committed = log.committed(&group, std::slice::from_ref(&place)).await.unwrap();
        assert_eq!(committed, [Some(offsets[0].next_offset)]);
    }
    assert_eq!(all(&log, &input, 1).await.len(), 3);
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

/// A broker with logins and rights. `admin` may do everything, the others nothing by themselves.
pub fn guarded() -> Kafka {
    let plain = format!(
        "{LOGIN}.plain.PlainLoginModule required username=\"admin\" password=\"root\" \
         user_admin=\"root\" user_alice=\"open sesame\" \
         user_operator=\"o\" user_scheduler=\"s\" user_worker=\"w\" user_query=\"q\";"
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

pub fn login(kafka: &Kafka, user: &str, password: &str) -> KafkaSettings {
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
}

/// A token of the broker's unsecured variant, which exists for tests: what counts is that it comes from a file.
fn token_file(user: &str, lifetime: Duration) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (issued, ends) = (now.as_secs(), (now + lifetime).as_secs());
    let claims = format!(r#"{{"sub":"{user}","iat":{issued},"exp":{ends}}}"#);
    let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    write!(file, "{}.{}.", coded(r#"{"alg":"none"}"#), coded(&claims)).unwrap();
    file
}

fn bearer(kafka: &Kafka, file: &Path) -> KafkaSettings {
    KafkaSettings {
        security_protocol: SecurityProtocol::SaslPlaintext,
        sasl_mechanism: "OAUTHBEARER".to_owned(),
        oauthbearer_token_file: file.display().to_string(),
        // A client that gets no token waits in vain: not for long.
        request_timeout: Duration::from_secs(10).into(),
        ..settings(&kafka.bootstrap())
    }
}

/// Each kind of client asks the broker something before anybody polls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_reaches_every_kind_of_client() {
    let kafka = guarded();
    let file = token_file("admin", Duration::from_hours(1));
    all_is_well(bearer(&kafka, file.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_is_named() {
    let kafka = Kafka::shared();
    let file = token_file("admin", Duration::ZERO);
    let error = refused(bearer(kafka, file.path())).await;
    // Somebody keeps the file filled: it may be only late.
    assert_eq!(error.disposition(), Disposition::Retry);
    let message = error.to_string();
    assert!(message.contains("kafka.oauthbearer_token_file") && message.contains("expired"), "{message}");
    assert!(message.contains(&file.path().display().to_string()), "{message}");
}
