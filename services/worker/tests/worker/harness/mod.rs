//! A stage for workers: the embedded log in a folder of its own, a small S3 server, and workers that can be
//! stopped politely or dropped where they stand.

pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use forensics::scripted::{ScriptedFaceDetector, ScriptedForgeryDetector};
use forensics::{ForgeryDetector, Lane, Verdict};
use ops::{Exit, Ops};
use prost::Message;
use proto::topics::{Origin, Topics, headers};
use proto::v1;
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{Log, NewRecord, ReadEnd, Record, TopicPartition, TopicPolicy, TopicSpec};
use tempfile::TempDir;
use tokio::sync::oneshot;
use worker::{Engines, LogHandle, RawConfig};

pub(crate) use store::{Store, Tap};

/// Nothing here takes this long unless it hangs: the longest outage takes a minute.
pub(crate) const DEADLINE: Duration = Duration::from_secs(150);

/// A test need not wait as long as a service does.
const IMPATIENT: [(&str, &str); 4] = [
    ("T__WORKER__EXAMINE__PROBE_PAUSE", "20ms"),
    ("T__WORKER__EXAMINE__PROBE_PAUSE_MAX", "50ms"),
    ("T__S3__ATTEMPTS_MAX", "2"),
    ("T__S3__BACKOFF_BASE", "5ms"),
];

pub(crate) const PARTITIONS: i32 = 4;

pub(crate) struct Stage {
    _folder: TempDir,
    pub(crate) log: LocalLog,
    pub(crate) store: Store,
    pub(crate) topics: Topics,
    /// How long the next worker may drain.
    pub(crate) drain: Duration,
    /// Settings of the next worker, as its environment would name them: of those of one name the last counts.
    pub(crate) knobs: Vec<(&'static str, &'static str)>,
    ops: Ops,
}

/// A running worker.
pub(crate) struct Running {
    pub(crate) ops: Ops,
    ended: oneshot::Receiver<Result<(), Exit>>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ops = Ops::new("test", Duration::from_secs(1)).unwrap();
        let mut config = LocalConfig::new(folder.path());
        // No test here cuts the power.
        config.synchronous = Synchronous::Normal;
        let log = LocalLog::open(config, stream::Metrics::register(&ops.registry).unwrap()).unwrap();
        let topics = Topics::default();
        let names = topics.all_media().into_iter().chain([&*topics.verdicts, &*topics.dead_letters]);
        let specs: Vec<TopicSpec> = names
            .map(|name| TopicSpec {
                name: name.into(),
                partitions: PARTITIONS,
                policy: TopicPolicy::delete_after(Duration::from_secs(86_400)),
            })
            .collect();
        log.create_topics(&specs).await.unwrap();
        let store = Store::start(&ops).await;
        Self {
            _folder: folder,
            log,
            store,
            topics,
            drain: Duration::from_secs(20),
            knobs: IMPATIENT.to_vec(),
            ops,
        }
    }

    /// Starts a worker with the scripted engines.
    pub(crate) fn worker(&self, slot: &str) -> Running {
        self.worker_with(slot, Box::new(|| Ok(Box::new(ScriptedForgeryDetector::new(8)))))
    }

    /// Starts a worker with this forgery detector.
    pub(crate) fn worker_with(
        &self,
        slot: &str,
        forgery: Box<dyn FnOnce() -> Result<Box<dyn ForgeryDetector>, Exit> + Send>,
    ) -> Running {
        let (config, _) = self.config(slot).check().unwrap();
        let ops = Ops::new("worker", self.drain).unwrap();
        let engines = Engines { forgery, faces: Box::new(|| Ok(Box::new(ScriptedFaceDetector))) };
        let (done, ended) = oneshot::channel();
        // As in a process of its own: what the log tells stands beside what the worker tells.
        let metrics = stream::Metrics::register(&ops.registry).unwrap();
        let log = LogHandle { log: Arc::new(self.log.clone()) as Arc<dyn Log>, metrics };
        let running = worker::run(config, log, engines, ops.clone());
        let tasks = ops.tasks.clone();
        ops.tasks.spawn_finite("worker", async move {
            let mut result = Box::pin(running).await;
            // As ops::run does: what failed first is the reason.
            if let Some(first) = tasks.failure() {
                result = Err(first);
            }
            drop(done.send(result));
        });
        Running { ops, ended }
    }

    fn config(&self, slot: &str) -> RawConfig {
        let variables = [
            ("T__WORKER__SLOT", slot),
            ("T__WORKER__ENGINE__MODEL", "scripted"),
            ("T__WORKER__ENGINE__FACES", "scripted"),
            ("T__BUCKETS", "{ \"*\" = [\"media\"] }"),
            ("T__S3__ENDPOINT", &self.store.endpoint),
            ("T__S3__ACCESS_KEY_ID", "test"),
            ("T__S3__SECRET_ACCESS_KEY", "test-secret"),
            ("T__DECODE__THREADS", "2"),
        ];
        let variables = variables.into_iter().chain(self.knobs.iter().copied());
        let variables: BTreeMap<_, _> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let defaults = [worker::DEFAULTS, media::DEFAULTS].join("\n");
        ops::config::load(&defaults, None, "T", variables.into_iter()).unwrap()
    }

    /// Appends references (or what pretends to be one) to the standard lane.
    pub(crate) async fn submit(&self, values: impl IntoIterator<Item = Vec<u8>>) {
        self.append(values, |record| record).await;
    }

    /// Appends references in JSON, as producers do that know nothing of protobuf.
    pub(crate) async fn submit_json(&self, values: impl IntoIterator<Item = &str>) {
        let values = values.into_iter().map(|value| value.as_bytes().to_vec());
        let json = |record: NewRecord| record.with_header(headers::CONTENT_TYPE, proto::topics::JSON);
        self.append(values, json).await;
    }

    async fn append(
        &self,
        values: impl IntoIterator<Item = Vec<u8>>,
        finish: impl Fn(NewRecord) -> NewRecord,
    ) {
        let topic = self.topics.media(Lane::Standard);
        let record = |(index, value): (usize, Vec<u8>)| {
            let record = NewRecord::keyed(topic, format!("k{index}"), value);
            finish(record.in_partition(index as i32 % PARTITIONS))
        };
        let records: Vec<NewRecord> = values.into_iter().enumerate().map(record).collect();
        self.log.append(records).await.unwrap();
    }

    /// Submits one cropped picture per media, `0..count`, all showing the same face.
    pub(crate) async fn submit_pictures(&self, count: usize) {
        self.submit_more_pictures(0..count).await;
    }

    /// The same of these numbers.
    pub(crate) async fn submit_more_pictures(&self, numbers: Range<usize>) {
        let picture = png(256, 256, [255, 255, 255]);
        for index in numbers.clone() {
            self.store.put(&format!("{index}.png"), picture.clone());
        }
        let cropped = |index| image(&format!("m{index}"), &format!("{index}.png"), v1::Faces::Cropped);
        self.submit(numbers.map(cropped)).await;
    }

    /// Everything on a topic.
    pub(crate) async fn records(&self, topic: &str) -> Vec<Record> {
        let from = (0..PARTITIONS).map(|index| (TopicPartition::new(topic, index), 0)).collect();
        let mut reader = self.log.read(from, ReadEnd::Watermark).await.unwrap();
        let mut records = Vec::new();
        while let Some(batch) = reader.next().await.unwrap() {
            records.extend(batch.records);
        }
        records
    }

    /// The verdicts so far.
    pub(crate) async fn verdicts(&self) -> Vec<Verdict> {
        let records = self.records(&self.topics.verdicts).await;
        let read = |record: &Record| v1::Verdict::decode(&**record.value.as_ref().unwrap()).unwrap();
        records.iter().map(|record| Verdict::try_from(read(record)).unwrap()).collect()
    }

    /// The outcome records of every input position, by topic of the outcome.
    pub(crate) async fn outcomes(&self) -> BTreeMap<(i32, i64), Vec<String>> {
        let mut outcomes: BTreeMap<(i32, i64), Vec<String>> = BTreeMap::new();
        for topic in [&self.topics.verdicts, &self.topics.dead_letters] {
            for record in self.records(topic).await {
                if let Origin::Input(at) = proto::topics::origin(&record.headers) {
                    outcomes.entry((at.partition, at.offset)).or_default().push(topic.clone());
                }
            }
        }
        outcomes
    }

    /// Waits until at least `count` inputs have an outcome.
    pub(crate) async fn until_outcomes(&self, count: usize) {
        self.until(async || self.outcomes().await.len() >= count, &format!("{count} outcomes")).await;
    }

    /// Waits for a condition, looking again every few milliseconds.
    pub(crate) async fn until(&self, holds: impl AsyncFn() -> bool, what: &str) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "waited in vain for {what}");
    }

    /// Every one of `count` inputs has exactly one outcome, and what is committed covers all of them.
    pub(crate) async fn assert_exactly_once(&self, count: usize) {
        let outcomes = self.outcomes().await;
        for (at, records) in &outcomes {
            assert_eq!(records.len(), 1, "{at:?} has {records:?}");
        }
        assert_eq!(outcomes.len(), count);
        let topic = self.topics.media(Lane::Standard);
        let partitions: Vec<_> = (0..PARTITIONS).map(|index| TopicPartition::new(topic, index)).collect();
        let group = proto::topics::WORKER_GROUP;
        for (partition, behind) in stream::lag(&self.log, group, &partitions).await.unwrap() {
            assert_eq!(behind, 0, "{partition}");
        }
    }

    /// Slots that wrote outcomes.
    pub(crate) async fn slots(&self) -> BTreeSet<String> {
        let records = self.records(&self.topics.verdicts).await;
        let slot =
            |record: &Record| String::from_utf8(record.header(headers::SLOT).unwrap().to_vec()).unwrap();
        records.iter().map(slot).collect()
    }
}

impl Running {
    /// As SIGKILL would, short of the process: every task is dropped where it stands.
    pub(crate) async fn crash(self) {
        drop(self.ops.tasks.join(tokio::time::Instant::now()).await);
        // Threads end by themselves: their inputs are closed.
        assert!(self.ops.tasks.join(tokio::time::Instant::now() + DEADLINE).await.is_ok());
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(self) -> Result<(), Exit> {
        self.ops.shutdown.request();
        self.ended().await
    }

    /// Waits for its end, threads included.
    pub(crate) async fn ended(self) -> Result<(), Exit> {
        let ended = tokio::time::timeout(DEADLINE, self.ended).await.expect("it ends").expect("it says how");
        self.ops.shutdown.request();
        let joined = self.ops.tasks.join(tokio::time::Instant::now() + DEADLINE).await;
        ended.and(joined)
    }

    pub(crate) async fn ready(&self) {
        assert!(tokio::time::timeout(DEADLINE, self.ops.readiness.ready()).await.is_ok(), "ready");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ops.shutdown.request();
    }
}

/// A reference to one picture.
pub(crate) fn image(media_id: &str, key: &str, faces: v1::Faces) -> Vec<u8> {
    let object = Some(v1::ObjectRef { key: key.to_owned(), ..Default::default() });
    let image = v1::ImageSource { bucket: "media".to_owned(), object };
    reference(media_id, v1::media_reference::Source::Image(image), faces)
}

/// A reference.
pub(crate) fn reference(media_id: &str, source: v1::media_reference::Source, faces: v1::Faces) -> Vec<u8> {
    let media_id = media_id.to_owned();
    v1::MediaReference { media_id, source: Some(source), faces: faces.into(), ..Default::default() }
        .encode_to_vec()
}

/// A picture of one colour.
pub(crate) fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    painted(width, height, |_, _| colour)
}

/// A picture.
pub(crate) fn painted(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb(colour(x, y)));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}
