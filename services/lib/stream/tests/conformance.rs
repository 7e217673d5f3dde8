//! The embedded log and Kafka pass the suite that every log passes.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use stream::conformance::{self, Subject};
use stream::kafka::{Delivery, GroupProtocol, KafkaLog, KafkaSettings};
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, Metrics};
use tempfile::TempDir;
use testbed::{Kafka, KafkaVersion};

struct Local {
    folder: TempDir,
    log: LocalLog,
}

fn metrics() -> Metrics {
    Metrics::register(&Registry::new()).unwrap()
}

fn open(folder: &TempDir) -> LocalLog {
    LocalLog::open(LocalConfig::new(folder.path()), metrics()).unwrap()
}

#[async_trait]
impl Subject for Local {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    async fn reopen(&mut self) {
        self.log.close();
        self.log = open(&self.folder);
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_passes_the_suite() {
    conformance::run(conformance::cases(), || async {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder);
        Local { folder, log }
    })
    .await;
}

struct OnKafka {
    settings: KafkaSettings,
    log: KafkaLog,
}

impl OnKafka {
    async fn connect(bootstrap: &str, group_protocol: GroupProtocol) -> Self {
        Self::connect_with(bootstrap, group_protocol, Delivery::ExactlyOnce).await
    }

    async fn connect_with(bootstrap: &str, group_protocol: GroupProtocol, delivery: Delivery) -> Self {
        let settings = KafkaSettings {
            bootstrap_servers: bootstrap.to_owned(),
            group_protocol,
            delivery,
            request_timeout: Duration::from_secs(30).into(),
            ..KafkaSettings::default()
        };
        let log = Self::log(&settings).await;
        Self { settings, log }
    }

    async fn log(settings: &KafkaSettings) -> KafkaLog {
        let config = settings.clone().check().unwrap();
        KafkaLog::connect(config, metrics(), ops::Failpoints::default()).await.unwrap()
    }
}

#[async_trait]
impl Subject for OnKafka {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    async fn reopen(&mut self) {
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
        self.log = Self::log(&self.settings).await;
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn shows_at_once(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_passes_the_suite_with_the_consumer_protocol() {
    let bootstrap = Kafka::shared().bootstrap();
    conformance::run(conformance::cases(), || OnKafka::connect(&bootstrap, GroupProtocol::Consumer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_passes_the_suite_with_the_classic_protocol() {
    let bootstrap = Kafka::shared().bootstrap();
    conformance::run(conformance::cases(), || OnKafka::connect(&bootstrap, GroupProtocol::Classic)).await;
}

/// Brokers without transactions are mostly without the newer protocol, too. A slot fences by its transactional id: here
/// it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_without_transactions_passes_what_is_about_ownership() {
    let bootstrap = Kafka::shared().bootstrap();
    let mut cases = conformance::ownership_cases();
    let all = cases.len();
    cases.retain(|case| case.name != "a-newer-holder-of-the-slot-fences");
    assert_eq!(cases.len(), all - 1, "the case that is left out has another name now");
    let connect = || OnKafka::connect_with(&bootstrap, GroupProtocol::Classic, Delivery::AtLeastOnce);
    conformance::run(cases, connect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_4_0_passes_what_is_about_ownership() {
    let kafka = Kafka::builder().version(KafkaVersion::Kafka40).start().unwrap();
    let bootstrap = kafka.bootstrap();
    let cases = conformance::ownership_cases();
    conformance::run(cases, || OnKafka::connect(&bootstrap, GroupProtocol::Consumer)).await;
}

#[test]
fn names_of_cases_are_unique() {
    let mut names: Vec<_> = conformance::cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), conformance::cases().len());
}
