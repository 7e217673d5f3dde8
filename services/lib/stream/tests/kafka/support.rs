//! What the tests are written with: a log, a worker that copies, and an auditor that knows no mercy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::Registry;
use stream::kafka::{Delivery, GroupProtocol, KafkaLog, KafkaSettings};
use stream::{
    Commit, CommitOffset, Committer, FetchBounds, Log, Member, MemberEvent, Membership, Metrics, NewRecord,
    Position, ReadEnd, Record, StartAt, StreamError, TopicPartition, TopicPolicy, TopicSpec, Transaction,
};

/// How long any one condition may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A name that nobody else uses.
pub fn name(purpose: &str) -> Arc<str> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("{purpose}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)).into()
}

pub fn settings(bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap_servers: bootstrap.to_owned(),
        request_timeout: Duration::from_secs(30).into(),
        ..KafkaSettings::default()
    }
}

/// How groups are shared out, and what is promised of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it comes.
    Newest,
    Classic,
    /// Brokers without transactions are mostly without the newer protocol, too.
    AtLeastOnce,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Newest, Self::Classic, Self::AtLeastOnce];

    pub fn settings(self, bootstrap: &str) -> KafkaSettings {
        let (group_protocol, delivery) = match self {
            Self::Newest => (GroupProtocol::Consumer, Delivery::ExactlyOnce),
            Self::Classic => (GroupProtocol::Classic, Delivery::ExactlyOnce),
            Self::AtLeastOnce => (GroupProtocol::Classic, Delivery::AtLeastOnce),
        };
        // That of the test brokers for the newer protocol.
        let session_timeout = Duration::from_secs(6).into();
        KafkaSettings { group_protocol, delivery, session_timeout, ..settings(bootstrap) }
    }
}

/// A log and the registry with its metrics.
pub async fn connect(settings: KafkaSettings) -> (KafkaLog, Registry) {
    connect_with(settings, ops::Failpoints::default()).await
}

pub async fn connect_with(settings: KafkaSettings, failpoints: ops::Failpoints) -> (KafkaLog, Registry) {
    // For whoever looks for the reason of a failure: STREAM_TEST_LOG=stream=debug.
    if let Ok(level) = std::env::var("STREAM_TEST_LOG") {
        let format = ops::telemetry::Format::Pretty;
        ops::telemetry::init(&ops::telemetry::TelemetryConfig { format, level: level.try_into().unwrap() });
    }
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let log = KafkaLog::connect(settings.check().unwrap(), metrics, failpoints).await.unwrap();
    (log, registry)
}

/// The value of a counter or gauge, over all of its labels or those with this value.
pub fn metric(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("the metric is there");
    let counts = |metric: &&prometheus::proto::Metric| {
        label.is_none_or(|wanted| metric.get_label().iter().any(|pair| pair.value() == wanted))
    };
    family.get_metric().iter().filter(counts).map(|metric| metric.get_counter().get_value()).sum()
}

pub async fn topic(log: &KafkaLog, purpose: &str, partitions: i32) -> Arc<str> {
    let name = name(purpose);
    let policy = TopicPolicy::delete_after(Duration::from_hours(24));
    log.create_topics(&[TopicSpec { name: Arc::clone(&name), partitions, policy }]).await.unwrap();
    name
}

pub fn membership(group: &Arc<str>, slot: &Arc<str>, topics: &[Arc<str>]) -> Membership {
    Membership {
        group: Arc::clone(group),
        slot: Arc::clone(slot),
        topics: topics.to_vec(),
        start: StartAt::Earliest,
        fetch: FetchBounds { records_max: 50, bytes_max: 256 * 1024 },
        session_timeout: None,
    }
}

/// This future's value, before the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Takes events until one is an assignment.
pub async fn assigned(member: &mut dyn Member) -> Vec<stream::Assignment> {
    let work = async {
        loop {
            if let MemberEvent::Assigned(new) = member.next().await.unwrap() {
                return new;
            }
        }
    };
    soon("an assignment", work).await
}

/// Takes events until this many records are there; the offsets that cover them.
pub async fn records(member: &mut dyn Member, count: usize) -> (Vec<Record>, Vec<CommitOffset>) {
    let work = async {
        let mut all = Vec::new();
        let mut offsets: BTreeMap<TopicPartition, CommitOffset> = BTreeMap::new();
        while all.len() < count {
            if let MemberEvent::Records { partition, epoch, records } = member.next().await.unwrap() {
                let next_offset = records.last().unwrap().position.offset + 1;
                offsets.insert(partition.clone(), CommitOffset { partition, epoch, next_offset });
                all.extend(records);
            }
        }
        (all, offsets.into_values().collect())
    };
    soon("records", work).await
}

pub async fn append(log: &dyn Log, topic: &Arc<str>, count: usize) -> Vec<Position> {
    let record = |index: usize| NewRecord::keyed(Arc::clone(topic), index.to_string(), vec![b'i'; 100]);
    soon("append", log.append((0..count).map(record).collect())).await.unwrap()
}

/// An outcome of an input, which names it.
pub fn outcome(output: &Arc<str>, input: &Position) -> NewRecord {
    NewRecord::keyed(Arc::clone(output), input.to_string(), vec![b'o'; 100])
        .with_header("input-partition", input.partition.to_string())
        .with_header("input-offset", input.offset.to_string())
}

/// Copies inputs to outputs, a transaction for each fetch, and counts what it has committed. Whatever happens it
/// does what a worker does: give the work up, and take in what it is given again. Ends when the slot is fenced.
pub async fn copy(member: &mut dyn Member, output: &Arc<str>, copied: &AtomicUsize) -> StreamError {
    copy_through(member, output, copied, &tokio::sync::Mutex::default()).await
}

/// As [`copy`], each commit with this gate held.
pub async fn copy_through(
    member: &mut dyn Member,
    output: &Arc<str>,
    copied: &AtomicUsize,
    gate: &tokio::sync::Mutex<()>,
) -> StreamError {
    let committer = member.committer();
    loop {
        let event = match member.next().await {
            Ok(event) => event,
            Err(error) => return error,
        };
        let MemberEvent::Records { partition, epoch, records } = event else { continue };
        let outcomes: Vec<_> = records.iter().map(|record| outcome(output, &record.position)).collect();
        let next_offset = records.last().unwrap().position.offset + 1;
        let offsets = vec![CommitOffset { partition, epoch, next_offset }];
        let _gate = gate.lock().await;
        match committer.commit(Transaction { records: outcomes, offsets }).await {
            Commit::Committed { .. } => drop(copied.fetch_add(records.len(), Ordering::Relaxed)),
            given_up => tracing::info!(?given_up),
        }
    }
}

pub async fn commit(
    committer: &dyn Committer,
    output: &Arc<str>,
    inputs: &[Record],
    offsets: &[CommitOffset],
) -> Commit {
    let records = inputs.iter().map(|record| outcome(output, &record.position)).collect();
    soon("an answer", committer.commit(Transaction { records, offsets: offsets.to_vec() })).await
}

/// Everything visible.
pub async fn all(log: &dyn Log, topic: &Arc<str>, partitions: i32) -> Vec<Record> {
    let from = (0..partitions).map(|index| (TopicPartition::new(Arc::clone(topic), index), 0)).collect();
    let mut reader = log.read(from, ReadEnd::Watermark).await.unwrap();
    let mut records = Vec::new();
    while let Some(batch) = soon("read", reader.next()).await.unwrap() {
        records.extend(batch.records);
    }
    records
}

/// Waits until a group has committed everything in a topic, and as many outcomes can be seen: Kafka writes its
/// markers after it has answered.
pub async fn until_done(log: &dyn Log, group: &str, input: &Arc<str>, output: &Arc<str>, partitions: i32) {
    let names: Vec<_> = (0..partitions).map(|index| TopicPartition::new(Arc::clone(input), index)).collect();
    let done = || async {
        let lags = stream::lag(log, group, &names).await.ok()?;
        lags.iter().all(|(_, lag)| *lag == 0).then_some(())
    };
    testbed::until_async("everything is committed", DEADLINE, done).await;
    let inputs = all(log, input, partitions).await.len();
    let shown = || async { (all(log, output, partitions).await.len() >= inputs).then_some(()) };
    testbed::until_async("every outcome can be seen", DEADLINE, shown).await;
}

/// Each input below the committed offset has exactly one outcome, and no other has one. Gives the inputs' count.
pub async fn audit(
    log: &dyn Log,
    group: &str,
    input: &Arc<str>,
    output: &Arc<str>,
    partitions: i32,
) -> usize {
    audit_in(Mode::Newest, log, group, (input, output), partitions).await
}

/// As [`audit`]; at-least-once an input has one outcome or several, and may have some before it is committed.
pub async fn audit_in(
    mode: Mode,
    log: &dyn Log,
    group: &str,
    (input, output): (&Arc<str>, &Arc<str>),
    partitions: i32,
) -> usize {
    let mut outcomes: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    for record in all(log, output, partitions).await {
        let number =
            |name| -> i64 { std::str::from_utf8(record.header(name).unwrap()).unwrap().parse().unwrap() };
        let position = (i32::try_from(number("input-partition")).unwrap(), number("input-offset"));
        *outcomes.entry(position).or_default() += 1;
    }
    let names: Vec<_> = (0..partitions).map(|index| TopicPartition::new(Arc::clone(input), index)).collect();
    let committed = log.committed(group, &names).await.unwrap();
    let inputs = all(log, input, partitions).await;
    for record in &inputs {
        let Position { partition, offset, .. } = record.position;
        let is_done = committed[usize::try_from(partition).unwrap()].is_some_and(|next| offset < next);
        let count = outcomes.remove(&(partition, offset)).unwrap_or(0);
        let (least, most) =
            (u32::from(is_done), if mode == Mode::AtLeastOnce { u32::MAX } else { u32::from(is_done) });
        assert!(
            (least..=most).contains(&count),
            "{count} outcomes of input {partition}@{offset}, committed {committed:?}"
        );
    }
    assert_eq!(outcomes, BTreeMap::new(), "outcomes without an input");
    inputs.len()
}
