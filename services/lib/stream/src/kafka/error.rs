//! Kafka's words for what went wrong, in ours: the topic or setting named, and what to do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::Trouble;
use super::config::KafkaConfig;
use crate::error::StreamError;

/// What was being done, for the message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing<'a> {
    Writing(&'a str),
    Reading(&'a str),
    Creating(&'a str),
    Describing(&'a str),
    Group(&'a str),
    Slot(&'a str),
    Asking(&'a str),
}

impl std::fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Writing(topic) => write!(f, "writing to topic {topic}"),
            Self::Reading(topic) => write!(f, "reading topic {topic}"),
            Self::Creating(topic) => write!(f, "creating topic {topic}"),
            Self::Describing(topic) => write!(f, "asking for the settings of topic {topic}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Slot(slot) => write!(f, "transactions of slot {slot}"),
            Self::Asking(what) => write!(f, "asking for {what}"),
        }
    }
}

/// An error of librdkafka, told by what the caller does about it.
pub(crate) fn told(doing: Doing<'_>, error: &KafkaError) -> StreamError {
    match code_of(error) {
        Some(code) => told_code(doing, code, &words(error)),
        None => StreamError::Unavailable { why: format!("{doing}: {error}") },
    }
}

/// As [`told`], of a bare code and what librdkafka said beside it.
pub(crate) fn told_code(doing: Doing<'_>, code: Code, said: &str) -> StreamError {
    let refused = |why: String| StreamError::Refused { what: doing.to_string(), why };
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId => match doing {
            Doing::Writing(topic)
            | Doing::Reading(topic)
            | Doing::Creating(topic)
            | Doing::Describing(topic) => StreamError::UnknownTopic { topic: topic.to_owned() },
            _ => StreamError::Unavailable { why: format!("{doing}: {said}") },
        },
        Code::TopicAuthorizationFailed => {
            let right = match doing {
                Doing::Writing(_) => "WRITE",
                Doing::Creating(_) => "CREATE",
                Doing::Describing(_) => "DESCRIBE_CONFIGS",
                _ => "DESCRIBE, and READ or WRITE",
            };
            refused(format!(
                "the principal of this login lacks the right ({right}) on the topic: add the ACL"
            ))
        }
        Code::GroupAuthorizationFailed => {
            refused("the principal of this login has no READ right on the group: add the ACL".to_owned())
        }
        Code::TransactionalIdAuthorizationFailed => {
            let why = "the principal of this login has no WRITE right on this transactional id: add the ACL";
            refused(why.to_owned())
        }
        Code::ClusterAuthorizationFailed => {
            let why = "the principal of this login has no right on the cluster (CREATE, or IDEMPOTENT_WRITE on \
                       brokers before 3.0): add the ACL";
            refused(why.to_owned())
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => refused(format!(
            "the broker does not know this ({said}): run Kafka 4.0 or later, or set kafka.group_protocol = \
             \"classic\" and, without transactions, kafka.delivery = \"at-least-once\""
        )),
        Code::InvalidSessionTimeout => refused(format!(
            "kafka.session_timeout is outside of the broker's group.min.session.timeout.ms and \
             group.max.session.timeout.ms ({said})"
        )),
        Code::InvalidTransactionTimeout => refused(format!(
            "kafka.transaction_timeout is above the broker's transaction.max.timeout.ms ({said})"
        )),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            StreamError::Invalid {
                why: format!(
                    "{doing}: a record is larger than the client or the topic takes (message.max.bytes, max.message.bytes)"
                ),
            }
        }
        Code::InvalidRecord => StreamError::Invalid {
            why: format!("{doing}: the broker refuses the record; a compacted topic wants a key ({said})"),
        },
        Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidRequest
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::InvalidGroupId => StreamError::Invalid { why: format!("{doing}: {said}") },
        _ => StreamError::Unavailable { why: format!("{doing}: {said}") },
    }
}

/// Why no broker answers, from what a client has said of it.
pub(crate) fn unreachable(config: &KafkaConfig, trouble: Option<&Trouble>) -> StreamError {
    let servers = &config.bootstrap_servers;
    match trouble {
        Some(Trouble { code: Code::Authentication | Code::SaslAuthenticationFailed, text }) => {
            let login =
                config.login.as_ref().map_or_else(|| "no login".to_owned(), super::config::Login::describe);
            let what = format!("the login at kafka.bootstrap_servers {servers} as {login}");
            StreamError::Refused { what, why: text.clone() }
        }
        Some(Trouble { code, text }) => match distrust(config, *code, text) {
            Some(settings) => {
                let what = format!("TLS with kafka.bootstrap_servers {servers}, by {settings},");
                StreamError::Refused { what, why: in_our_words(text) }
            }
            None => StreamError::Unavailable { why: format!("kafka.bootstrap_servers {servers}: {text}") },
        },
        None => {
            StreamError::Unavailable { why: format!("kafka.bootstrap_servers {servers}: no broker answers") }
        }
    }
}

/// librdkafka names its own properties; an operator finds ours.
pub(crate) fn in_our_words(text: &str) -> String {
    text.replace("ssl.ca.location", "kafka.ssl_ca_file")
        .replace("ssl.certificate.location", "kafka.ssl_certificate_file")
        .replace("ssl.key.location", "kafka.ssl_key_file")
}

/// The settings to look at when one side does not trust the other's certificate.
fn distrust(config: &KafkaConfig, code: Code, text: &str) -> Option<&'static str> {
    // The text names the broker, whose name may be anything.
    if !config.security_protocol.has_tls() {
        return None;
    }
    // The broker's word comes as an alert, and only after the handshake with TLS 1.3: there it is a lost connection.
    if text.contains("alert") && text.contains("cert") || text.contains("unknown ca") {
        return Some("kafka.ssl_certificate_file and kafka.ssl_key_file");
    }
    (code == Code::SSL && text.contains("verif")).then_some("kafka.ssl_ca_file")
}

/// The code behind an error, also where rust-rdkafka keeps it to itself.
pub(crate) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// What librdkafka says, with its own details where there are any.
pub(crate) fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        other => other.to_string(),
    }
}

/// Whether it says that a newer holder of the transactional id has come.
pub(crate) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// Whether it says that the group does not know this member, or not in this generation.
pub(crate) fn is_group_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
            | Code::RebalanceInProgress
            | Code::AssignmentLost
    )
}

/// Of those, whether it still knows the member, in another generation: the member may not have heard of it yet.
pub(crate) fn is_old_generation(code: Code) -> bool {
    matches!(code, Code::IllegalGeneration | Code::StaleMemberEpoch | Code::RebalanceInProgress)
}

#[cfg(test)]
mod tests {
    use super::super::config::{KafkaSettings, SecurityProtocol};
    use super::*;
    use crate::error::Disposition;

    #[test]
    fn messages_name_the_thing_and_the_remedy() {
        let error = told_code(Doing::Writing("verdicts"), Code::TopicAuthorizationFailed, "x");
        assert_eq!(error.disposition(), Disposition::Fatal);
        let message = error.to_string();
        assert!(
            message.contains("verdicts") && message.contains("WRITE") && message.contains("ACL"),
            "{message}"
        );
        let error = told_code(Doing::Group("workers"), Code::UnsupportedVersion, "x");
        assert!(error.to_string().contains("kafka.group_protocol"), "{error}");
        let error = told_code(Doing::Reading("media"), Code::UnknownTopicOrPartition, "x");
        assert_eq!(error, StreamError::UnknownTopic { topic: "media".to_owned() });
        let error = told_code(Doing::Asking("metadata"), Code::OperationTimedOut, "timed out");
        assert_eq!(error.disposition(), Disposition::Retry);
    }

    #[test]
    fn only_with_tls_a_certificate_is_to_blame() {
        let at = |security_protocol| {
            let bootstrap_servers = "alerts.certain.example:9092".to_owned();
            let settings =
                KafkaSettings { bootstrap_servers, security_protocol, ..KafkaSettings::default() }.check();
            let text = "alerts.certain.example:9092/bootstrap: Connect failed: refused".to_owned();
            let trouble = Trouble { code: Code::BrokerTransportFailure, text };
            unreachable(&settings.expect("they are right"), Some(&trouble))
        };
        assert_eq!(at(SecurityProtocol::Plaintext).disposition(), Disposition::Retry);
        let error = at(SecurityProtocol::Ssl);
        assert!(error.to_string().contains("alerts.certain.example"), "{error}");
    }
}
