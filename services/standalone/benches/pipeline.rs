//! What the pipeline costs by itself: media a second from reference to committed verdict, with a detector that is free.
//!
//! `cargo bench -p standalone --bench pipeline [-- MEDIA]`. One-frame media of 256×256 px (JPEG, already cropped), the
//! embedded log with `synchronous = full` and transactions on, the embedded S3 server and the real client, one worker
//! with the scripted detector, all on this machine. References stand in the log beforehand; the clock runs from the
//! start of the worker to the last verdict on the topic.
#![recursion_limit = "256"] // a worker's future is deep
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its result")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forensics::Lane;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use ops::config::Secret;
use ops::{Exit, Ops};
use prost::Message;
use proto::topics::{self, Topics};
use proto::v1;
use standalone::object_store::{ObjectStore, ObjectStoreServer};
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, NewRecord, ReadEnd, TopicPartition, TopicPolicy, TopicSpec};
use tokio::net::TcpListener;

/// The astronaut's face from scikit-image (NASA, public domain), 256×256 px, JPEG at quality 80, 12 KB.
const CROP: &[u8] = include_bytes!("crop.jpg");

const BUCKET: &str = "media";
const PARTITIONS: i32 = 8;
/// Distinct objects; media share them in turn.
const OBJECTS: usize = 512;
/// At 2,000 media/s ten seconds, so that start and end do not count.
const MEDIA: usize = 20_000;
/// The least that counts as quick enough.
const FLOOR: f64 = 2_000.0;
/// Longer than any machine takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    // As touchstone-standalone does: without it every crop costs page faults.
    models::prepare_process();
    let media = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MEDIA);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let stage = Stage::new(folder.path(), media).await.expect("the stage is built");
        let (took, cpu) = stage.run(media).await.expect("the worker works");
        let rate = media as f64 / took.as_secs_f64();
        println!(
            "BENCH worker_end_to_end {rate:.0} media/s ratio {:.2} against floor 2000 media/s ({media} one-frame media \
             in {:.1} s, {:.0} us CPU each, all processes' share of it)",
            rate / FLOOR,
            took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / media as f64,
        );
    });
    runtime.shutdown_background();
}

struct Stage {
    log: LocalLog,
    log_metrics: stream::Metrics,
    server: ObjectStoreServer,
    topics: Topics,
    ops: Ops,
}

impl Stage {
    /// Log and store with everything in them that the worker will need.
    async fn new(folder: &Path, media: usize) -> Result<Self, Exit> {
        let ops = Ops::new("bench", Duration::from_secs(30))?;
        let topics = Topics::default();
        let metrics = stream::Metrics::register(&ops.registry)?;
        let log =
            LocalLog::open(LocalConfig::new(folder.join("log")), metrics.clone()).expect("a fresh folder");
        let names = topics.all_media().into_iter().chain([&*topics.verdicts, &*topics.dead_letters]);
        let specs: Vec<_> = names
            .map(|name| TopicSpec {
                name: name.into(),
                partitions: PARTITIONS,
                policy: TopicPolicy::delete_after(Duration::from_secs(86_400)),
            })
            .collect();
        log.create_topics(&specs).await.expect("a fresh log");

        let store = ObjectStore::open(&folder.join("objects"))?;
        store.ensure_bucket(BUCKET)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = store.serve(listener, &ops.child("object-store")?).expect("an address");
        let stage = Self { log, log_metrics: metrics, server, topics, ops };
        stage.fill_store().await;
        stage.fill_log(media).await;
        Ok(stage)
    }

    async fn fill_store(&self) {
        let settings = self.raw().s3.check().expect("valid");
        let client =
            media::ObjectStore::connect(settings, &ops::metrics::Registry::new()).await.expect("a client");
        let bucket = forensics::Bucket::parse(BUCKET).expect("a bucket");
        let puts = futures::stream::iter(0..OBJECTS).map(Ok).try_for_each_concurrent(8, |object| {
            let (client, bucket) = (&client, &bucket);
            async move {
                let key = forensics::ObjectKey::parse(&key(object)).expect("a key");
                client.put(bucket, &key, Bytes::from_static(CROP), "image/jpeg").await.map(drop)
            }
        });
        puts.await.expect("the store takes them");
    }

    async fn fill_log(&self, media: usize) {
        for start in (0..media).step_by(1_000) {
            let records = (start..media.min(start + 1_000)).map(|number| {
                let object = Some(v1::ObjectRef { key: key(number % OBJECTS), ..Default::default() });
                let image = v1::ImageSource { bucket: BUCKET.to_owned(), object };
                let reference = v1::MediaReference {
                    media_id: format!("media-{number}"),
                    source: Some(v1::media_reference::Source::Image(image)),
                    faces: v1::Faces::Cropped.into(),
                    ..Default::default()
                };
                let key = topics::key("default", &reference.media_id);
                NewRecord::keyed(self.topics.media(Lane::Standard), key, reference.encode_to_vec())
            });
            self.log.append(records.collect()).await.expect("the log takes them");
        }
    }

    /// The time and the CPU time from the worker's start to the last verdict on the topic.
    async fn run(self, media: usize) -> Result<(Duration, Duration), Exit> {
        let (config, engines) = self.raw().check()?;
        let engines = worker::engine::choose(&engines)?;
        let from =
            (0..PARTITIONS).map(|index| (TopicPartition::new(&*self.topics.verdicts, index), 0)).collect();
        let mut verdicts = self.log.read(from, ReadEnd::Tail).await.expect("the topic exists");
        let worker_ops = self.ops.child("worker-0")?;
        let log = worker::LogHandle { log: Arc::new(self.log.clone()), metrics: self.log_metrics.clone() };
        let (begin, cpu) = (Instant::now(), cpu_time());
        let running: BoxFuture<'static, Result<(), Exit>> =
            Box::pin(worker::run(config, log, engines, worker_ops.clone()));
        let worker = worker_ops.tasks.spawn("worker", running);
        let mut seen = 0;
        while seen < media {
            let batch = tokio::time::timeout(PATIENCE, verdicts.next()).await.expect("verdicts keep coming");
            seen += batch.expect("the log answers").expect("a tail has no end").records.len();
        }
        let took = (begin.elapsed(), cpu_time() - cpu);
        assert_eq!(seen, media, "one verdict for each media");
        if std::env::var_os("PIPELINE_METRICS").is_some() {
            let families = worker_ops.registry.gather();
            eprintln!("{}", prometheus::TextEncoder::new().encode_to_string(&families).expect("text"));
        }
        self.ops.shutdown.request();
        worker.ended().await;
        self.server.stop().await;
        tokio::task::spawn_blocking(move || self.log.close()).await.expect("it closes");
        match self.ops.tasks.failure() {
            Some(failure) => Err(failure),
            None => Ok(took),
        }
    }

    fn raw(&self) -> worker::RawConfig {
        let defaults = [worker::DEFAULTS, media::DEFAULTS].join("\n");
        let mut raw: worker::RawConfig =
            ops::config::load(&defaults, None, "PIPELINE", std::env::vars()).expect("the defaults are valid");
        raw.worker.slot = "bench-0".to_owned();
        raw.worker.engine.model = "scripted".to_owned();
        raw.worker.engine.faces = "scripted".to_owned();
        raw.buckets.insert("*".to_owned(), vec![BUCKET.to_owned()]);
        raw.s3.endpoint.clone_from(&self.server.endpoint);
        raw.s3.access_key_id.clone_from(&self.server.credentials.access_key);
        raw.s3.secret_access_key = Secret::new(self.server.credentials.secret_key.expose());
        raw
    }
}

fn key(object: usize) -> String {
    format!("crops/{object}.jpg")
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 (proc(5)), in ticks of 10 ms; the name in field 2 ends with the last bracket.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
