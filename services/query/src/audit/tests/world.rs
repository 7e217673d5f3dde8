//! A log with topics and a store that follows it, whatever the log is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forensics::InputPosition;
use prost::Message;
use proto::topics::{AT_LEAST_ONCE, Topics, WORKER_GROUP, headers, outcome_headers};
use proto::v1;
use stream::local::{LocalConfig, LocalLog, Synchronous, system_clock};
use stream::{
    Commit, CommitOffset, Delivery, FetchBounds, Log, MemberEvent, Membership, NewRecord, Position, ReadEnd,
    Record, StartAt, TopicPartition, TopicPolicy, TopicSpec, Transaction,
};
use tokio::sync::mpsc;

use super::super::{Audit, Event, Report, Violation};
use super::database::Database;
use crate::metrics::Metrics;
use crate::projector::Projector;
use crate::store::Store;
use crate::testing::{record_of, verdict};

const DAY_MS: i64 = 86_400_000;

/// Longer than anything takes on a busy machine; only a hang reaches it.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct World {
    _folder: tempfile::TempDir,
    /// What the store keeps its rows in.
    pub(super) database: Database,
    pub(super) log: Arc<dyn Log>,
    store: Store,
    pub(super) ops: ops::Ops,
    projected: tokio::sync::watch::Receiver<BTreeMap<i32, i64>>,
    pub(super) topics: Topics,
    pub(super) group: Arc<str>,
    pub(super) patience: Duration,
    /// What was submitted ends here, by partition. Guards a map, for moments.
    submitted: Mutex<BTreeMap<i32, i64>>,
    /// The embedded log's clock stands still until it is moved.
    local: Option<LocalLog>,
    now_ms: Arc<AtomicI64>,
}

impl World {
    /// On the embedded log, which keeps verdicts for so long.
    pub(super) async fn local(verdict_days: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ops = ops::Ops::new("test", Duration::from_secs(5)).unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_795_485_600_000));
        let clock = Arc::clone(&now_ms);
        let config = LocalConfig {
            synchronous: Synchronous::Normal,
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            ..LocalConfig::new(folder.path().join("log"))
        };
        let local = LocalLog::open(config, stream::Metrics::register(&ops.registry).unwrap()).unwrap();
        let database = Database::sqlite(&folder);
        let world = Self {
            local: Some(local.clone()),
            now_ms,
            ..Self::over(Arc::new(local), (folder, database), ops, Topics::default(), verdict_days).await
        };
        Self { patience: Duration::ZERO, ..world }
    }

    /// Over any log: makes the topics there and a store that follows them.
    pub(super) async fn over(
        log: Arc<dyn Log>,
        (folder, database): (tempfile::TempDir, Database),
        ops: ops::Ops,
        topics: Topics,
        verdict_days: u64,
    ) -> Self {
        let kept = |name: &str, partitions, days: u64| TopicSpec {
            name: name.into(),
            partitions,
            policy: TopicPolicy::delete_after(Duration::from_secs(days * 86_400)),
        };
        let mut specs: Vec<_> = topics.all_media().map(|name| kept(name, 2, 7)).to_vec();
        specs.push(kept(&topics.verdicts, 2, verdict_days));
        specs.push(kept(&topics.dead_letters, 1, 2));
        log.create_topics(&specs).await.unwrap();
        let store = Store::open(&database.config(), &topics.verdicts, &ops.tasks).await.unwrap();
        let (sender, projected) = tokio::sync::watch::channel(BTreeMap::new());
        let projector = Projector {
            log: Arc::clone(&log),
            store: store.clone(),
            topic: topics.verdicts.as_str().into(),
            pauses: (Duration::from_millis(1), Duration::from_millis(10)),
            gate: ops.readiness.gate("projector"),
            metrics: Metrics::register(&ops.registry).unwrap(),
            projected: sender,
        };
        ops.tasks.spawn("projector", projector.run(ops.shutdown.clone()));
        Self {
            _folder: folder,
            database,
            log,
            store,
            ops,
            projected,
            topics,
            group: WORKER_GROUP.into(),
            patience: Duration::from_secs(5),
            submitted: Mutex::default(),
            local: None,
            now_ms: Arc::default(),
        }
    }

    pub(super) fn audit(&self) -> Audit {
        let mut audit = Audit {
            log: Arc::clone(&self.log),
            store: Some(self.store.clone()),
            topics: self.topics.clone(),
            worker_group: Arc::clone(&self.group),
            patience: self.patience,
            clock: system_clock(),
        };
        if self.local.is_some() {
            let now_ms = Arc::clone(&self.now_ms);
            audit.clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
        }
        audit
    }

    pub(super) async fn verify(&self) -> (Report, Vec<Violation>) {
        run(&self.audit()).await
    }

    pub(super) async fn submit(&self, count: usize) -> Vec<Position> {
        let reference = v1::MediaReference { media_id: "m".to_owned(), ..v1::MediaReference::default() };
        self.submit_as(count, reference.encode_to_vec()).await
    }

    /// Records that nobody can parse.
    pub(super) async fn submit_rubbish(&self, count: usize) -> Vec<Position> {
        self.submit_as(count, b"rubbish".to_vec()).await
    }

    async fn submit_as(&self, count: usize, value: Vec<u8>) -> Vec<Position> {
        let record =
            |n| NewRecord::keyed(self.topics.media_standard.as_str(), format!("k-{n}"), value.clone());
        let positions = self.log.append((0..count).map(record).collect()).await.unwrap();
        let mut submitted = self.submitted.lock().unwrap();
        for at in &positions {
            let end = submitted.entry(at.partition).or_default();
            *end = (*end).max(at.offset + 1);
        }
        drop(submitted);
        positions
    }

    /// Whether the group has committed all that was submitted. Not whether it lags: a marker behind the last record
    /// counts as one that is behind.
    async fn is_done(&self) -> bool {
        let committed = self.log.committed(&self.group, &self.inputs()).await.unwrap();
        let submitted = self.submitted.lock().unwrap();
        (0..).zip(committed).all(|(at, next)| submitted.get(&at).is_none_or(|end| next >= Some(*end)))
    }

    fn inputs(&self) -> [TopicPartition; 2] {
        let topic: Arc<str> = self.topics.media_standard.as_str().into();
        [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition))
    }

    /// Takes all that was submitted in and commits it with the outcomes that `judge` makes of each record.
    pub(super) async fn work(&self, judge: impl Fn(&Record) -> Vec<NewRecord>) {
        let membership = Membership {
            group: Arc::clone(&self.group),
            slot: format!("{}-worker-0", self.group).into(),
            topics: vec![self.topics.media_standard.as_str().into()],
            start: StartAt::Earliest,
            fetch: FetchBounds::default(),
            session_timeout: None,
        };
        let mut member = self.log.join(membership).await.unwrap();
        while !self.is_done().await {
            let next = tokio::time::timeout(DEADLINE, member.next()).await.expect("the member has work");
            let MemberEvent::Records { partition, epoch, records } = next.unwrap() else {
                continue;
            };
            let next_offset = records.last().unwrap().position.offset + 1;
            let outcomes = records.iter().flat_map(&judge).collect();
            let offsets = vec![CommitOffset { partition, epoch, next_offset }];
            let commit = member.committer().commit(Transaction { records: outcomes, offsets }).await;
            assert!(matches!(commit, Commit::Committed { .. }), "{commit:?}");
        }
        member.leave().await.unwrap();
    }

    /// One verdict for an input record; its id is made of the position.
    pub(super) fn outcome(&self, input: &Position) -> NewRecord {
        self.outcome_with(input, |_| {})
    }

    /// The same, changed.
    pub(super) fn outcome_with(&self, input: &Position, change: fn(&mut v1::Verdict)) -> NewRecord {
        let n = u64::from(input.partition as u32) << 32 | input.offset as u64;
        let mut verdict = verdict("default", &format!("m-{n}"), n);
        change(&mut verdict);
        let value = record_of(&verdict);
        let mut record = NewRecord::keyed(self.topics.verdicts.as_str(), format!("k-{n}"), value);
        record.headers = outcome_headers(&named(input), "worker-0", "test");
        match self.log.delivery() {
            Delivery::ExactlyOnce => record,
            Delivery::AtLeastOnce => record.with_header(headers::DELIVERY, AT_LEAST_ONCE),
        }
    }

    pub(super) async fn one_each(&self) {
        self.work(|record| vec![self.outcome(&record.position)]).await;
    }

    /// Waits until the store has all that is on the verdict topic, and answers with its records.
    pub(super) async fn projected(&mut self) -> Vec<Record> {
        let mut highs = BTreeMap::new();
        let mut from = vec![];
        for partition in 0..2 {
            let tp = TopicPartition::new(self.topics.verdicts.as_str(), partition);
            highs.insert(partition, self.log.watermarks(&tp).await.unwrap().high);
            from.push((tp, 0));
        }
        let caught_up = self.projected.wait_for(|seen| {
            highs.iter().all(|(partition, high)| *high == 0 || seen.get(partition) >= Some(high))
        });
        tokio::time::timeout(DEADLINE, caught_up).await.unwrap().unwrap();
        let mut reader = self.log.read(from, ReadEnd::Watermark).await.unwrap();
        let mut records = vec![];
        while let Some(batch) = reader.next().await.unwrap() {
            records.extend(batch.records);
        }
        records
    }

    pub(super) fn verdict_at(&self, partition: i32, offset: i64) -> Position {
        Position::new(self.topics.verdicts.as_str(), partition, offset)
    }

    /// So much time passes, and the embedded log removes what is too old.
    pub(super) async fn later(&self, days: i64) {
        let now = self.now_ms.fetch_add(days * DAY_MS, Ordering::Relaxed) + days * DAY_MS;
        self.local.as_ref().expect("only the embedded log can be told the time").maintain(now).await.unwrap();
    }
}

/// The same position, as headers name it.
pub(super) fn named(input: &Position) -> InputPosition {
    let (topic, partition, offset) = (input.topic.to_string(), input.partition, input.offset);
    InputPosition { topic, partition, offset }
}

/// An audit's report, and all violations that it listed.
pub(super) async fn run(audit: &Audit) -> (Report, Vec<Violation>) {
    let (events, mut findings) = mpsc::channel(4);
    let listen = async {
        let mut violations = vec![];
        while let Some(event) = findings.recv().await {
            match event {
                Event::Violation(violation) => violations.push(violation),
                Event::Progress(progress) => assert!(progress.done <= progress.total, "{progress:?}"),
            }
        }
        violations
    };
    let (report, violations) = tokio::join!(audit.run(events), listen);
    (report.unwrap(), violations)
}
