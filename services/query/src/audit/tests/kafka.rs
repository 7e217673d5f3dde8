//! The same cases on a real Kafka, and what only Kafka has: markers, aborted records, and transactions in doubt.

use std::sync::Arc;
use std::time::Duration;

use proto::topics::Topics;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use stream::kafka::{KafkaLog, KafkaSettings};
use stream::local::system_clock;
use stream::{Delivery, NewRecord, Position};
use testbed::Kafka;
use tokio::sync::mpsc;

use super::super::{Audit, Event, Kind};
use super::database::Database;
use super::world::{DEADLINE, World, run};

#[derive(serde::Deserialize)]
struct Settings {
    kafka: KafkaSettings,
}

/// Topics and a group of its own on the broker that all tests share.
async fn world(case: &str) -> World {
    world_that_delivers(Delivery::ExactlyOnce, case).await
}

async fn world_that_delivers(delivery: Delivery, case: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite(&folder);
    world_with(delivery, (folder, database), case).await
}

/// As a fleet has it: on Kafka, the store in PostgreSQL.
async fn world_on_postgres(case: &str) -> World {
    let store = (tempfile::tempdir().unwrap(), Database::postgres().await);
    world_with(Delivery::ExactlyOnce, store, case).await
}

async fn world_with(delivery: Delivery, store: (tempfile::TempDir, Database), case: &str) -> World {
    let bootstrap = tokio::task::spawn_blocking(|| Kafka::shared().bootstrap()).await.unwrap();
    let variable = ("T__KAFKA__BOOTSTRAP_SERVERS".to_owned(), bootstrap);
    let settings: Settings =
        ops::config::load(stream::KAFKA_DEFAULTS, None, "T", std::iter::once(variable)).unwrap();
    let config = KafkaSettings { delivery, ..settings.kafka }.check().unwrap();
    let ops = ops::Ops::new("test", Duration::from_secs(5)).unwrap();
    let metrics = stream::Metrics::register(&ops.registry).unwrap();
    let log = KafkaLog::connect(config, metrics, ops.failpoints.clone()).await.unwrap();
    let prefix = format!("audit.{case}.{}", std::process::id());
    let name = |what: &str| format!("{prefix}.{what}");
    let topics = Topics {
        media_live: name("media.live"),
        media_standard: name("media.standard"),
        media_bulk: name("media.bulk"),
        verdicts: name("verdicts"),
        dead_letters: name("dead-letters"),
    };
    let mut world = World::over(Arc::new(log), store, ops, topics, 30).await;
    world.group = format!("{prefix}.workers").into();
    world
}

/// A transaction of somebody else's, which is open until it is ended.
struct Foreign {
    producer: BaseProducer,
}

impl Foreign {
    /// Begins one and writes these records in it.
    async fn begin(name: &'static str, records: Vec<NewRecord>) -> Self {
        let begun = tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", Kafka::shared().bootstrap())
                .set("transactional.id", format!("audit.{name}.{}", std::process::id()))
                .create()
                .unwrap();
            producer.init_transactions(DEADLINE).unwrap();
            producer.begin_transaction().unwrap();
            for record in &records {
                let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(&**value) })
                });
                let (key, value) = (record.key.as_deref().unwrap(), record.value.as_deref().unwrap());
                let sent = BaseRecord::to(&record.topic).key(key).payload(value).headers(headers);
                producer.send(sent.partition(record.partition.unwrap())).unwrap();
            }
            producer.flush(DEADLINE).unwrap();
            Self { producer }
        });
        begun.await.unwrap()
    }

    async fn abort(self) {
        tokio::task::spawn_blocking(move || self.producer.abort_transaction(DEADLINE))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_kafka_has_no_violations() {
    super::clean(world("clean").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_promise_is_found_at_its_place_on_kafka() {
    super::planted::each_is_found_at_its_place(world("planted").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_kafka_with_its_store_in_postgresql_has_no_violations() {
    super::clean(world_on_postgres("clean-pg").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_promise_is_found_at_its_place_with_the_store_in_postgresql() {
    super::planted::each_is_found_at_its_place(world_on_postgres("planted-pg").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_records_flow_with_the_store_in_postgresql_there_are_no_false_alarms() {
    super::flowing(world_on_postgres("flowing-pg").await, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_records_flow_on_kafka_there_are_no_false_alarms() {
    super::flowing(world("flowing").await, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_at_least_once_delivery_leaves_is_no_violation_while_it_agrees() {
    super::repeated::done_again_after_a_death(world_that_delivers(Delivery::AtLeastOnce, "again").await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_records_flow_at_least_once_there_are_no_false_alarms() {
    super::flowing(world_that_delivers(Delivery::AtLeastOnce, "flowing-again").await, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_have_no_outcome_and_are_none() {
    let mut world = world("aborted").await;
    let before = world.submit(20).await;
    let media = |partition| {
        let record = NewRecord::keyed(world.topics.media_standard.as_str(), "k", "aborted");
        record.in_partition(partition)
    };
    // References that nobody can see, and second verdicts of some that are there.
    let mut records = vec![media(0), media(0), media(1)];
    records.extend(before.iter().take(5).map(|input| world.outcome(input).in_partition(0)));
    Foreign::begin("aborted", records).await.abort().await;
    let after = world.submit(20).await;
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.outcomes, report.rows, found), (40, 40, 40, vec![]));

    // The two aborted records and their marker lie between the others.
    let last_before = before.iter().filter(|input| input.partition == 0).map(|input| input.offset).max();
    let aborted = Position { offset: last_before.unwrap() + 1, ..before[0].clone() };
    let aborted = Position { partition: 0, ..aborted };
    assert!(!after.contains(&aborted));
    let place = world.log.append(vec![world.outcome(&aborted)]).await.unwrap().remove(0);
    let (_, found) = world.verify().await;
    let [stray] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((stray.kind, &stray.input), (Kind::OutcomeWithoutInput, &Some(aborted)));
    assert_eq!(stray.outcome, Some(place));
    assert!(stray.detail.contains("no record is there"), "{}", stray.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_doubt_is_waited_for() {
    let mut world = world("in-doubt").await;
    let both = (0..2).map(|partition| {
        NewRecord::keyed(world.topics.verdicts.as_str(), "k", "never seen").in_partition(partition)
    });
    // As a worker that was killed leaves it: nobody can read past it, though others commit behind it.
    let open = Foreign::begin("in-doubt", both.collect()).await;
    world.submit(30).await;
    world.one_each().await;
    let hasty = Audit { patience: Duration::ZERO, ..world.audit() };
    let (report, _) = run(&hasty).await;
    assert_eq!((report.inputs_committed, report.violations), (30, 30), "without patience all seem lost");

    world.patience = DEADLINE;
    let audit = world.audit();
    let (events, mut told) = mpsc::channel(4);
    let (report, ()) = tokio::join!(audit.run(events), async {
        let mut open = Some(open);
        while let Some(event) = told.recv().await {
            match event {
                Event::Progress(progress) if progress.phase.contains("not decided yet") => {
                    if let Some(open) = open.take() {
                        open.abort().await;
                    }
                }
                Event::Progress(_) => {}
                Event::Violation(violation) => panic!("{violation:?}"),
            }
        }
        assert!(open.is_none(), "it waited");
    });
    let report = report.unwrap();
    assert_eq!((report.outcomes, report.verdicts, report.rows_pending), (30, 30, 30));
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!((report.rows, report.rows_pending, found), (30, 0, vec![]));
}

/// As `kafka-delete-records` does: all that the topic's first two partitions hold goes.
async fn delete_records(topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..2 {
        all.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    let deleted = admin.delete_records(&all, &AdminOptions::new().operation_timeout(Some(DEADLINE))).await;
    for partition in deleted.unwrap().elements() {
        partition.error().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_an_operator_deletes_are_missing_and_the_report_says_what_it_may_be() {
    let mut world = world("deleted").await;
    // Everything is decided when it audits.
    world.patience = Duration::from_millis(200);
    let inputs = world.submit(20).await;
    world.one_each().await;
    delete_records(&world.topics.verdicts).await;
    world.submit(20).await;
    world.one_each().await;
    let (report, found) = run(&Audit { store: None, ..world.audit() }).await;
    assert_eq!((report.inputs_committed, report.inputs_beyond_retention), (40, 0));
    let missing: Vec<_> = found.iter().filter_map(|violation| violation.input.clone()).collect();
    assert_eq!(missing.len(), 20, "{found:#?}");
    assert!(missing.iter().all(|input| inputs.contains(input)));
    assert!(found.iter().all(|violation| violation.detail.contains("by an operator's hand")), "{found:#?}");
}

/// As any producer may: a reference that says it was written so long ago.
async fn date_back(topic: &str, days: i64) {
    let topic = topic.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap();
        let then = system_clock()() - days * 86_400_000;
        producer.send(BaseRecord::to(&topic).key("k").payload("").partition(0).timestamp(then)).unwrap();
        producer.flush(DEADLINE).unwrap();
    });
    written.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_older_than_its_topic_keeps_records_excuses_nothing() {
    let mut world = world("dated-back").await;
    world.patience = Duration::from_millis(200);
    // Verdicts are kept for 30 days, references for 7; the first verdicts are gone.
    world.submit(20).await;
    world.one_each().await;
    delete_records(&world.topics.verdicts).await;
    let long_ago = system_clock()() - 40 * 86_400_000;
    date_back(&world.topics.media_standard, 60).await;
    world.submit(20).await;
    world
        .work(|record| match record.timestamp_ms {
            at if at < long_ago => vec![],
            _ => vec![world.outcome(&record.position)],
        })
        .await;
    let (report, found) = run(&Audit { store: None, ..world.audit() }).await;
    assert_eq!((report.inputs_committed, report.inputs_beyond_retention, found.len()), (41, 0, 21));
    let lies = found.iter().filter(|violation| violation.detail.contains("timestamp is not believed"));
    assert_eq!(lies.count(), 1, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_far_beyond_the_log_costs_no_memory() {
    let mut world = world("far").await;
    world.submit(20).await;
    world.one_each().await;
    let (group, topic) = (Arc::clone(&world.group), world.topics.media_standard.clone());
    // Kafka takes any offset from whoever may commit: one bit for each would be 128 TiB.
    let reset = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", Kafka::shared().bootstrap())
            .set("group.id", &*group)
            .create()
            .unwrap();
        let mut far = TopicPartitionList::new();
        far.add_partition_offset(&topic, 0, Offset::Offset(1 << 50)).unwrap();
        consumer.commit(&far, CommitMode::Sync).unwrap();
    });
    reset.await.unwrap();
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.outcomes, found), (20, 20, vec![]));
    let beyond = Position::new(world.topics.media_standard.as_str(), 0, 1 << 49);
    world.log.append(vec![world.outcome(&beyond)]).await.unwrap();
    let (_, found) = world.verify().await;
    let [stray] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((stray.kind, &stray.input), (Kind::OutcomeWithoutInput, &Some(beyond)));
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_a_group_that_kafka_has_forgotten_are_told_as_that() {
    let mut world = world("forgotten").await;
    let inputs = world.submit(4).await;
    world.one_each().await;
    // Another group than the one that worked has committed nothing.
    world.group = format!("{}-of-others", world.group).into();
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.violations), (0, inputs.len() as u64));
    for violation in found {
        assert_eq!(violation.kind, Kind::OutcomeWithoutInput);
        assert!(violation.detail.contains("has committed nothing there"), "{}", violation.detail);
    }
}
