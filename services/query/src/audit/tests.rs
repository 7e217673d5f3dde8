use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proto::topics::{WORKER_GROUP, outcome_headers};
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{
    Commit, CommitOffset, FetchBounds, MemberEvent, Membership, NewRecord, Record, StartAt, TopicPartition,
    TopicPolicy, TopicSpec, Transaction,
};

use super::*;
use crate::metrics::Metrics;
use crate::projector::Projector;
use crate::store::SqliteConfig;
use crate::testing::{record_of, verdict};

const DAY_MS: i64 = 86_400_000;

/// A log with topics, a store that follows it, and a clock that stands still until it is moved.
struct World {
    folder: tempfile::TempDir,
    local: LocalLog,
    log: Arc<dyn Log>,
    store: Store,
    ops: ops::Ops,
    projected: tokio::sync::watch::Receiver<BTreeMap<i32, i64>>,
    now_ms: Arc<AtomicI64>,
    topics: Topics,
}

impl World {
    async fn new(verdict_days: i64) -> Self {
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
        let topics = Topics::default();
        let kept = |name: &str, partitions, days: i64| TopicSpec {
            name: name.into(),
            partitions,
            policy: TopicPolicy::delete_after(Duration::from_secs(days as u64 * 86_400)),
        };
        let mut specs: Vec<_> = topics.all_media().map(|name| kept(name, 2, 7)).to_vec();
        specs.push(kept(&topics.verdicts, 2, verdict_days));
        specs.push(kept(&topics.dead_letters, 1, 30));
        local.create_topics(&specs).await.unwrap();
        let log: Arc<dyn Log> = Arc::new(local.clone());
        let file = folder.path().join("store.db");
        let config = SqliteConfig { file, readers: 1, waiting_max: 64 };
        let store = Store::open_sqlite(&config, &topics.verdicts, &ops.tasks).unwrap();
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
        Self { folder, local, log, store, ops, projected, now_ms, topics }
    }

    fn audit(&self) -> Audit {
        Audit {
            log: Arc::clone(&self.log),
            store: Some(self.store.clone()),
            topics: self.topics.clone(),
            worker_group: WORKER_GROUP.into(),
        }
    }

    async fn verify(&self) -> (Report, Vec<Violation>) {
        run(&self.audit()).await
    }

    async fn submit(&self, count: usize) {
        let record = |n| NewRecord::keyed(self.topics.media_standard.as_str(), format!("k-{n}"), "reference");
        self.log.append((0..count).map(record).collect()).await.unwrap();
    }

    /// Takes all that was submitted in and commits it with the outcomes that `judge` makes of each record.
    async fn work(&self, judge: impl Fn(&Record) -> Vec<NewRecord>) {
        let topic: Arc<str> = self.topics.media_standard.as_str().into();
        let both: Vec<_> = (0..2).map(|p| TopicPartition::new(Arc::clone(&topic), p)).collect();
        let membership = Membership {
            group: WORKER_GROUP.into(),
            slot: "worker-0".into(),
            topics: vec![topic],
            start: StartAt::Earliest,
            fetch: FetchBounds::default(),
            session_timeout: None,
        };
        let mut member = self.log.join(membership).await.unwrap();
        while stream::lag(&*self.log, WORKER_GROUP, &both).await.unwrap().iter().any(|(_, lag)| *lag > 0) {
            let MemberEvent::Records { partition, epoch, records } = member.next().await.unwrap() else {
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
    fn outcome(&self, input: &Position) -> NewRecord {
        let n = u64::from(input.partition as u32) << 32 | input.offset as u64;
        let value = record_of(&verdict("default", &format!("m-{n}"), n));
        let mut record = NewRecord::keyed(self.topics.verdicts.as_str(), format!("k-{n}"), value);
        let (topic, partition, offset) = (input.topic.to_string(), input.partition, input.offset);
        record.headers =
            outcome_headers(&forensics::InputPosition { topic, partition, offset }, "worker-0", "test");
        record
    }

    async fn one_each(&self) {
        self.work(|record| vec![self.outcome(&record.position)]).await;
    }

    async fn projected(&mut self) {
        let mut highs = BTreeMap::new();
        for partition in 0..2 {
            let tp = TopicPartition::new(self.topics.verdicts.as_str(), partition);
            highs.insert(partition, self.log.watermarks(&tp).await.unwrap().high);
        }
        let caught_up = self.projected.wait_for(|seen| {
            highs.iter().all(|(partition, high)| *high == 0 || seen.get(partition) >= Some(high))
        });
        tokio::time::timeout(Duration::from_secs(20), caught_up).await.unwrap().unwrap();
    }

    fn sql(&self, statement: &str) {
        let connection = rusqlite::Connection::open(self.folder.path().join("store.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(connection.execute(statement, []).unwrap(), 1, "{statement}");
    }

    fn input(&self, partition: i32, offset: i64) -> Position {
        Position::new(self.topics.media_standard.as_str(), partition, offset)
    }

    async fn later(&self, days: i64) {
        let now = self.now_ms.fetch_add(days * DAY_MS, Ordering::Relaxed) + days * DAY_MS;
        self.local.maintain(now).await.unwrap();
    }
}

async fn run(audit: &Audit) -> (Report, Vec<Violation>) {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_log_has_no_violations() {
    let mut world = World::new(30).await;
    let empty = world.verify().await;
    assert_eq!(empty, (Report::default(), vec![]));
    world.submit(700).await;
    world.one_each().await;
    world.submit(5).await;
    world.projected().await;
    let (report, violations) = world.verify().await;
    assert_eq!(violations, []);
    let expected = Report {
        inputs: 705,
        inputs_committed: 700,
        outcomes: 700,
        verdicts: 700,
        rows: 700,
        ..Report::default()
    };
    // Inputs that nobody has committed need not be read.
    assert_eq!(Report { inputs: 705, ..report }, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_promise_is_found_at_its_place() {
    let mut world = World::new(30).await;
    world.submit(40).await;
    let (lost, doubled, letter) = (world.input(0, 3), world.input(1, 4), world.input(1, 7));
    world
        .work(|record| {
            let outcome = || world.outcome(&record.position);
            if record.position == lost {
                vec![]
            } else if record.position == doubled {
                vec![outcome(), outcome()]
            } else if record.position == letter {
                let mut copy = NewRecord { topic: world.topics.dead_letters.as_str().into(), ..outcome() };
                let dead = copy.clone();
                copy.headers.clear();
                vec![dead, copy]
            } else {
                vec![outcome()]
            }
        })
        .await;
    let (nobody, beyond) = (world.input(0, 99_999), Position::new("no-such-topic", 0, 0));
    let unreadable = NewRecord { headers: vec![], ..world.outcome(&lost) }.in_partition(0);
    let strays = vec![world.outcome(&nobody), world.outcome(&beyond), unreadable];
    let strays = world.log.append(strays).await.unwrap();
    world.projected().await;
    world.sql("DELETE FROM verdicts WHERE seat = 5");
    world.sql("UPDATE verdicts SET verdict_id = randomblob(32) WHERE seat = 6");
    world.sql("INSERT INTO verdicts SELECT 9 << 40, randomblob(32), tenant, media_id, generation, outcome, reason, probability, band, model_name, model_sha256, created_at, record FROM verdicts WHERE seat = 7");

    let (report, found) = world.verify().await;
    let of = |kind: Kind| found.iter().filter(move |v| v.kind == kind).collect::<Vec<_>>();
    let inputs = |kind| of(kind).iter().map(|v| v.input.clone().unwrap()).collect::<Vec<_>>();
    let outcomes = |kind| of(kind).iter().map(|v| v.outcome.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(inputs(Kind::MissingOutcome), [lost]);
    assert_eq!(inputs(Kind::DoubleOutcome), [doubled]);
    assert_eq!(of(Kind::DoubleOutcome)[0].detail.matches("touchstone.verdicts.v1/").count(), 2);
    assert_eq!(inputs(Kind::OutcomeWithoutInput), [beyond, nobody]);
    assert_eq!(outcomes(Kind::OutcomeWithoutInput), [strays[1].clone(), strays[0].clone()]);
    assert_eq!(outcomes(Kind::UnreadableOutcome), [strays[2].clone()]);
    let seat = |partition, offset| Position::new(world.topics.verdicts.as_str(), partition, offset);
    assert_eq!(outcomes(Kind::MissingRow), [seat(0, 5), seat(0, 6)]);
    let mut rows = outcomes(Kind::RowWithoutVerdict);
    rows.sort();
    assert_eq!(rows, [seat(0, 6), seat(9, 0)]);
    assert_eq!((report.violations, report.dead_letters), (found.len() as u64, 1));

    let audit = Audit { store: None, ..world.audit() };
    let (report, found) = run(&audit).await;
    assert_eq!((report.rows, found.len()), (0, 5), "the topics alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_beyond_the_list_are_counted() {
    let world = World::new(30).await;
    world.submit(1_200).await;
    world.work(|_| vec![]).await;
    let (report, found) = world.verify().await;
    assert_eq!((report.violations, report.violations_unlisted, found.len()), (1_200, 200, LISTED_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_records_flow_there_are_no_false_alarms() {
    let world = Arc::new(World::new(30).await);
    let busy = Arc::clone(&world);
    let worker = world.ops.tasks.spawn_finite("worker", async move {
        for _ in 0..40 {
            busy.submit(60).await;
            busy.one_each().await;
        }
    });
    let mut audits = 0;
    while !worker.has_ended() || audits == 0 {
        let (report, found) = world.verify().await;
        assert_eq!(found, [], "{report:?}");
        audits += 1;
    }
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.outcomes, found), (2_400, 2_400, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_no_violation() {
    let mut world = World::new(30).await;
    world.submit(20).await;
    world.one_each().await;
    world.later(8).await;
    world.submit(10).await;
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.outcomes, found), (10, 30, vec![]), "inputs are gone");

    let mut world = World::new(3).await;
    world.submit(20).await;
    world.one_each().await;
    world.projected().await;
    world.later(5).await;
    world.submit(10).await;
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!(found, [], "outcomes are gone, rows stay");
    assert_eq!((report.inputs_committed, report.inputs_beyond_retention), (30, 20));
}
