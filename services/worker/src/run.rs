//! The whole worker: every task and thread it has, from start to exit.

use std::sync::Arc;

use forensics::Bucket;
use media::{DecodePool, ObjectStore};
use ops::{Exit, ExitReason, Ops, TaskHandle};
use stream::{Delivery, Disposition, FetchBounds, Log, Membership, StartAt, StreamError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::admission::Door;
use crate::batcher;
use crate::breaker::{Breaker, Pauses};
use crate::budget::ByteBudget;
use crate::clerk::{Clerk, Desk, ModelFacts};
use crate::config::Config;
use crate::device::{self, DetectorFacts};
use crate::engine::{Engines, FaceFactory, ForgeryFactory};
use crate::examine::{self, Rooms};
use crate::faces::{self, FaceFinder};
use crate::intake::Intake;
use crate::lag::LagWatch;
use crate::metrics::Metrics;
use crate::publish::{self, Publisher};

/// Notes between the jobs and the publisher; a job that finds them full waits a moment.
const NOTES_MAX: usize = 1024;

/// What the store is asked for where no bucket is named: that there is none is an answer, too.
const NO_BUCKET: &str = "touchstone";

/// The log, and where it tells about itself.
#[derive(Clone)]
pub struct LogHandle {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its metrics; the worker adds how far its partitions are behind.
    pub metrics: stream::Metrics,
}

/// Runs a worker until it is asked to stop (`ops.shutdown`) and has drained, or cannot go on.
///
/// Loads the engines, tests them, joins the group under `config.slot`, and turns each reference on the media
/// topics into one verdict. Several workers may run in one process, each with an `ops` and a slot of its own.
pub async fn run(config: Config, log: LogHandle, engines: Engines, ops: Ops) -> Result<(), Exit> {
    let LogHandle { log, metrics: log_metrics } = log;
    let health = log.health();
    let names = config.topics.all();
    let look = || stream::missing_topics(&*log, names);
    let missing = stream::at_start(&health, &ops.shutdown, "the topics", look).await?;
    if !missing.is_empty() {
        return Err(ExitReason::Refused.because(proto::topics::missing(&missing)));
    }
    let metrics = Metrics::register(&ops.registry)?;
    let log_gate = ops.readiness.gate("log");
    let store_gate = ops.readiness.gate("object-store");
    let (device, give_seat) = start_device(engines.forgery, &ops, &metrics);
    let (face_bench, finder) = start_faces(engines.faces, config.examine.face_queue_max, &ops, &metrics);
    let loading = async { tokio::try_join!(device.loaded(&ops), face_bench.loaded(&ops)) };
    let (facts, face_detector) = tokio::select! {
        loaded = loading => loaded?,
        // Threads that still load see that nobody waits, and end.
        () = ops.shutdown.requested() => return Ok(()),
    };
    let clerk = clerk(&config, &facts, face_detector, log.delivery());
    metrics.set_model(&facts.identity);
    let (scorer, packer, seat) = batcher::room(facts.batch_max, metrics.clone());
    ops.tasks.spawn_finite_thread("pack", move || packer.pack());
    // A device thread that is gone by now has said why; its seat, dropped, turns the crops away.
    drop(give_seat.send(seat));

    let decode = DecodePool::start(&config.decode, &ops.registry)
        .map_err(|error| ExitReason::Unavailable.because(error))?;
    let store = ObjectStore::connect(config.s3, &ops.registry)
        .await
        .map_err(|error| ExitReason::Unavailable.because(error))?;
    let pauses = Pauses { first: config.examine.probe_pause, longest: config.examine.probe_pause_max };
    let rooms = Arc::new(Rooms {
        store,
        breaker: Arc::new(Breaker::new(pauses, store_gate.clone(), metrics.clone())),
        decode,
        // Enough that every decode thread finds the next picture waiting; chosen, since each may hold the
        // largest picture in memory before the budget knows of it.
        decode_places: Semaphore::new((2 * config.decode.threads).max(8)),
        pixels: ByteBudget::new(config.examine.pixel_bytes_max),
        faces: finder,
        scorer,
        clerk: Arc::new(clerk),
        config: config.examine,
        metrics: metrics.clone(),
        failpoints: ops.failpoints.clone(),
    });

    start_greeting(&rooms, config.buckets.named(), &ops);

    let membership = Membership {
        group: Arc::clone(&config.group),
        slot: Arc::clone(&config.slot),
        topics: config.topics.all_media().map(Arc::from).to_vec(),
        start: StartAt::Earliest,
        fetch: FetchBounds {
            records_max: config.intake.fetch_records_max,
            bytes_max: config.intake.fetch_bytes_max,
        },
        session_timeout: None,
    };
    let join = || log.join(membership.clone());
    let joined = stream::at_start(&health, &ops.shutdown, "joining the group", join).await;
    let member = joined.map_err(|error| cannot_join(&config.slot, error))?;
    let (notes, receiver) = mpsc::channel(NOTES_MAX);
    let identity = (Arc::clone(&config.slot), metrics);
    let publisher = Publisher::new(receiver, member.committer(), config.publish, identity);
    let publisher = ops.tasks.spawn("publish", publisher.run());
    let (assigned, followed) = watch::channel(Vec::new());
    let lag =
        LagWatch { log: Arc::clone(&log), metrics: log_metrics, group: config.group, assigned: followed };
    ops.tasks.spawn_finite("lag", lag.run());
    tracing::info!(slot = &*config.slot, model = facts.identity.name, "worker takes media in");
    let intake = Intake {
        member,
        door: Door::new(config.buckets),
        rooms,
        notes,
        config: config.intake,
        topics: config.topics,
        slot: config.slot,
        gate: log_gate,
        health,
        assigned,
        shutdown: ops.shutdown.clone(),
        tasks: ops.tasks.clone(),
    };
    let ended = Box::pin(intake.run(publisher)).await;
    // With the intake the rooms are gone: their threads see their input closed and end.
    if ended.is_ok() {
        store_gate.remove();
    }
    ended
}

/// Asks the store once whether it answers; the gate `object-store` opens when it does. Nobody waits for it: media that
/// are there already find out for themselves.
fn start_greeting(rooms: &Arc<Rooms>, named: Option<&Bucket>, ops: &Ops) {
    let bucket = named.cloned().or_else(|| Bucket::parse(NO_BUCKET).ok());
    let (rooms, shutdown) = (Arc::clone(rooms), ops.shutdown.clone());
    ops.tasks.spawn_finite("object-store-greeting", async move {
        let Some(bucket) = bucket else { return };
        tokio::select! {
            () = examine::greet(&rooms, &bucket) => {}
            () = shutdown.requested() => {}
        }
    });
}

fn clerk(config: &Config, facts: &DetectorFacts, face_detector: String, delivery: Delivery) -> Clerk {
    let wanted = &facts.preprocessing.face_detector;
    if *wanted != face_detector {
        tracing::warn!(
            "the model was made for faces found by {wanted}, this worker finds them with {face_detector}"
        );
    }
    let facts = ModelFacts {
        identity: facts.identity.clone(),
        calibration: facts.calibration,
        thresholds: facts.thresholds,
        crop: facts.preprocessing.crop,
        face_detector,
    };
    let desk =
        Desk { slot: Arc::clone(&config.slot), delivery, record_bytes_max: config.publish.record_bytes_max };
    Clerk::new(facts, config.policy.clone(), &config.topics, desk)
}

/// Starts the device thread; gives what to wait for until it is loaded, and where its seat goes.
fn start_device(
    factory: ForgeryFactory,
    ops: &Ops,
    metrics: &Metrics,
) -> (Starting<DetectorFacts>, oneshot::Sender<batcher::DeviceSeat>) {
    let (loaded, facts) = oneshot::channel();
    let (seat, take_seat) = oneshot::channel();
    let (gate, metrics) = (ops.readiness.gate("model"), metrics.clone());
    let failpoints = ops.failpoints.clone();
    let work = move || device::run(factory, gate, metrics, failpoints, (loaded, take_seat));
    (Starting { thread: ops.tasks.spawn_finite_thread("device", work), loaded: facts }, seat)
}

/// Starts the face-detector thread; gives what to wait for until it is loaded, and the jobs' end of its room.
fn start_faces(
    factory: FaceFactory,
    queue_max: usize,
    ops: &Ops,
    metrics: &Metrics,
) -> (Starting<String>, FaceFinder) {
    let (finder, bench) = faces::room(queue_max, metrics);
    let (loaded, name) = oneshot::channel();
    let (gate, metrics) = (ops.readiness.gate("faces"), metrics.clone());
    let work = move || faces::run(factory, gate, metrics, (loaded, bench));
    (Starting { thread: ops.tasks.spawn_finite_thread("faces", work), loaded: name }, finder)
}

/// An engine's thread while it loads.
struct Starting<T> {
    thread: TaskHandle,
    loaded: oneshot::Receiver<T>,
}

impl<T> Starting<T> {
    /// What the engine says about itself; the thread's own reason where it did not load.
    async fn loaded(self, ops: &Ops) -> Result<T, Exit> {
        match self.loaded.await {
            Ok(facts) => Ok(facts),
            Err(_) => {
                self.thread.ended().await;
                let unsaid = || ExitReason::Refused.because("an engine ended before it was loaded");
                Err(ops.tasks.failure().unwrap_or_else(unsaid))
            }
        }
    }
}

fn cannot_join(slot: &str, error: StreamError) -> Exit {
    match error.disposition() {
        Disposition::Restart => publish::fenced(slot, &error.to_string()),
        _ => error.into(),
    }
}
