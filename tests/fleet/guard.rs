//! A broker that asks everybody for a login and rights: each service has those that `[kafka]`'s defaults.toml lists.

use proto::topics::{Topics, WORKER_GROUP};
use stream::kafka::{KafkaSettings, SecurityProtocol};
use testbed::{Kafka, KafkaBuilder, May, On};

/// The front door's login.
pub const SCHEDULER: &str = "scheduler";
/// The workers' login.
pub const WORKER: &str = "worker";
/// The queries' login.
pub const QUERY: &str = "query";
/// Who may do everything.
pub(crate) const OPERATOR: &str = "operator";

const MECHANISM: &str = "SCRAM-SHA-512";
const MODULE: &str = "org.apache.kafka.common.security.scram.ScramLoginModule";

/// Everybody's password.
const PASSWORD: &str = "open sesame";

/// A right that a service needs.
pub type Right = (On<'static>, May);

/// Guards the broker; the services have no rights yet.
pub(super) fn guarded(kafka: KafkaBuilder) -> KafkaBuilder {
    let own = format!("{MODULE} required username=\"{OPERATOR}\" password=\"{PASSWORD}\";");
    let kafka = kafka
        .setting("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT")
        .setting("sasl.enabled.mechanisms", MECHANISM)
        .setting("sasl.mechanism.inter.broker.protocol", MECHANISM)
        .setting("inter.broker.listener.name", "PLAINTEXT")
        .setting("listener.name.plaintext.scram-sha-512.sasl.jaas.config", &own)
        .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .setting("super.users", &format!("User:{OPERATOR};User:ANONYMOUS"));
    let users = [OPERATOR, SCHEDULER, WORKER, QUERY];
    users.into_iter().fold(kafka, |kafka, user| kafka.scram_user(user, PASSWORD))
}

/// Gives every service what it needs.
pub(super) fn give(kafka: &Kafka) {
    for user in [SCHEDULER, WORKER, QUERY] {
        kafka.allow(user, &rights(user)).expect("the controller gives rights");
    }
}

/// The rights of a service, as the defaults of `[kafka]` list them, in the topics of a fleet. Its worker is `worker-0`.
///
/// # Panics
/// With a user who is none of the services.
pub fn rights(user: &str) -> Vec<Right> {
    let topics = Topics::default();
    let media = topics.all_media().map(on);
    let [verdicts, letters] = [&*topics.verdicts, &*topics.dead_letters].map(on);
    let both = |topics: &[On<'static>], rights: &[May]| -> Vec<Right> {
        topics.iter().flat_map(|&on| rights.iter().map(move |&may| (on, may))).collect()
    };
    match user {
        SCHEDULER => [
            both(&media, &[May::Read, May::Write, May::DescribeConfigs]),
            both(&[verdicts, letters], &[May::Describe, May::DescribeConfigs]),
        ]
        .concat(),
        WORKER => [
            both(&media, &[May::Read]),
            both(&[verdicts, letters], &[May::Write]),
            vec![(On::Group(WORKER_GROUP), May::Read), (On::TransactionalId("worker-0"), May::Write)],
        ]
        .concat(),
        QUERY => [
            both(&media, &[May::Read, May::DescribeConfigs]),
            both(&[verdicts, letters], &[May::Read, May::DescribeConfigs]),
            vec![(On::Group(WORKER_GROUP), May::Describe)],
        ]
        .concat(),
        _ => panic!("{user} is no service"),
    }
}

/// The few names there are live as long as the test.
fn on(topic: &str) -> On<'static> {
    On::Topic(topic.to_owned().leak())
}

/// The lines of `[kafka]` with which a service logs in.
pub(super) fn login(user: &str) -> String {
    format!(
        "security_protocol = \"sasl_plaintext\"\nsasl_mechanism = {MECHANISM:?}\nsasl_username = {user:?}\n\
         sasl_password = {PASSWORD:?}\nrequest_timeout = \"5s\"\n"
    )
}

/// As [`login`], for a client of the test's own.
pub(super) fn operator(settings: KafkaSettings) -> KafkaSettings {
    KafkaSettings {
        security_protocol: SecurityProtocol::SaslPlaintext,
        sasl_mechanism: MECHANISM.to_owned(),
        sasl_username: OPERATOR.to_owned(),
        sasl_password: ops::config::Secret::new(PASSWORD),
        ..settings
    }
}
