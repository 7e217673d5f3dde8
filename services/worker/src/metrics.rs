//! What the worker tells about itself. Label sets are closed: never a tenant, a media or a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forensics::{Lane, ModelIdentity, Outcome};
use ops::metrics::{
    COUNT_BUCKETS, DURATION_BUCKETS, Error, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, LONG_DURATION_BUCKETS, Queues, Registry, counter, counters, gauge, gauges,
    histogram, histograms,
};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Opts};

/// Buckets of scores: even tenths, and the ends apart, where thresholds lie.
const SCORE_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// The worker's metrics. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) media: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) stages: Stages,
    end_to_end: HistogramVec,
    pub(crate) oldest: OldestUnprocessed,
    pub(crate) time_to_due: Histogram,
    pub(crate) queues: Queues,
    pub(crate) jobs: IntGauge,
    pub(crate) uncommitted: IntGauge,
    pub(crate) pending: IntGauge,
    pub(crate) partitions: IntGauge,
    pub(crate) paused: IntGauge,
    pub(crate) batch_size: Histogram,
    pub(crate) batch_wait: Histogram,
    pub(crate) batch_close: IntCounterVec,
    pub(crate) device_busy: Counter,
    pub(crate) wasted_device: Counter,
    pub(crate) device_faults: IntCounterVec,
    pub(crate) invalid_outputs: IntCounter,
    pub(crate) score: Histogram,
    pub(crate) faces_per_media: Histogram,
    pub(crate) retries: IntCounterVec,
    pub(crate) panics: IntCounter,
    pub(crate) dropped_jobs: IntCounter,
    pub(crate) breaker_open: IntGauge,
    pub(crate) breaker_opened: IntCounterVec,
    model_info: IntGaugeVec,
}

/// One duration histogram a hop.
#[derive(Clone)]
pub(crate) struct Stages {
    pub(crate) list: Histogram,
    pub(crate) fetch: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) faces: Histogram,
    pub(crate) crop: Histogram,
    pub(crate) wait: Histogram,
    pub(crate) score: Histogram,
    pub(crate) examine: Histogram,
    pub(crate) publish: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let name = |what: &str| format!("touchstone_worker_{what}");
        let plain = |what: &str, help: &str| counter(registry, &name(what), help);
        let labelled = |what: &str, help: &str, label| counters(registry, &name(what), help, &[label]);
        let level = |what: &str, help: &str| gauge(registry, &name(what), help);
        let spread = |what: &str, help: &str, buckets| histogram(registry, &name(what), help, buckets);
        let seconds = |what: &str, help: &str| -> Result<Counter, Error> {
            let metric = Counter::with_opts(Opts::new(name(what), help))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let stage = histograms(
            registry,
            &name("stage_duration_seconds"),
            "Time of one item in one hop.",
            &["stage"],
            DURATION_BUCKETS,
        )?;
        Ok(Self {
            media: counters(
                registry,
                &name("media_total"),
                "Media whose verdict was committed; the reason is that of the outcome, none where it needs none.",
                &["outcome", "reason", "lane"],
            )?,
            dead_letters: labelled(
                "dead_letters_total",
                "Records written to the dead-letter topic.",
                "class",
            )?,
            stages: Stages::of(&stage),
            end_to_end: histograms(
                registry,
                &name("end_to_end_seconds"),
                "From the reference's record to its committed verdict.",
                &["lane"],
                LONG_DURATION_BUCKETS,
            )?,
            oldest: OldestUnprocessed::register(registry, &name("oldest_unprocessed_seconds"))?,
            time_to_due: spread(
                "time_to_due_seconds",
                "Time left to the due time when the verdict was made; 0 when it was late.",
                LONG_DURATION_BUCKETS,
            )?,
            queues: Queues::register(registry, "worker")?,
            jobs: level("jobs_in_flight", "Media under examination.")?,
            uncommitted: level("uncommitted_media", "Media taken in and not yet committed.")?,
            pending: level("pending_records", "Records in hand that wait for room.")?,
            partitions: level("assigned_partitions", "Partitions assigned to this worker.")?,
            paused: level("intake_paused", "1 while partitions are paused.")?,
            batch_size: spread("batch_size", "Crops in a batch.", COUNT_BUCKETS)?,
            batch_wait: spread(
                "batch_wait_seconds",
                "Time of a crop before its batch began.",
                DURATION_BUCKETS,
            )?,
            batch_close: labelled("batch_close_total", "Batches by why they were closed.", "reason")?,
            device_busy: seconds("device_busy_seconds_total", "Time the device spent on batches.")?,
            wasted_device: seconds(
                "wasted_device_seconds_total",
                "Device time of crops whose media was given up meanwhile.",
            )?,
            device_faults: labelled("device_faults_total", "Engine faults.", "class")?,
            invalid_outputs: plain("invalid_outputs_total", "Outputs of an engine that were not numbers.")?,
            score: spread("score", "Probability of forgery of judged media.", SCORE_BUCKETS)?,
            faces_per_media: spread("faces_per_media", "Scored faces of a media.", COUNT_BUCKETS)?,
            retries: labelled("retries_total", "Objects tried again.", "reason")?,
            panics: plain("job_panics_total", "Jobs that panicked: bugs, contained.")?,
            dropped_jobs: plain(
                "dropped_jobs_total",
                "Jobs given up because their partition went elsewhere.",
            )?,
            breaker_open: level("breaker_open", "1 while the object store is in trouble.")?,
            breaker_opened: labelled(
                "breaker_opened_total",
                "Times the object store got into trouble.",
                "cause",
            )?,
            model_info: gauges(
                registry,
                "touchstone_model_info",
                "Always 1; the labels say which model judges.",
                &["model", "version", "sha256", "precision", "device"],
            )?,
        })
    }

    /// Which model judges.
    pub(crate) fn set_model(&self, model: &ModelIdentity) {
        let sha256 = hex::encode(model.sha256);
        let labels =
            [&*model.name, &*model.version, &sha256, model.precision.as_str(), model.device.as_str()];
        self.model_info.with_label_values(&labels).set(1);
    }

    /// A verdict was committed, so long after its reference was written.
    pub(crate) fn committed(&self, outcome: Outcome, lane: Lane, end_to_end: Duration) {
        let reason = outcome.reason().unwrap_or("none");
        self.media.with_label_values(&[outcome.as_str(), reason, lane.as_str()]).inc();
        self.end_to_end.with_label_values(&[lane.as_str()]).observe(end_to_end.as_secs_f64());
    }
}

/// `oldest_unprocessed_seconds{lane}`: an age, so it is worked out when somebody looks.
#[derive(Clone)]
pub(crate) struct OldestUnprocessed {
    age: GaugeVec,
    written_ms: Arc<[AtomicI64; Lane::ALL.len()]>,
}

/// Nothing of the lane is in hand.
const NONE: i64 = i64::MAX;

impl OldestUnprocessed {
    fn register(registry: &Registry, name: &str) -> Result<Self, Error> {
        let help = "Age of the oldest record that this worker took in and has not committed, through outages too; 0 without one.";
        let age = GaugeVec::new(Opts::new(name, help), &["lane"])?;
        let oldest = Self { age, written_ms: Arc::new(Lane::ALL.map(|_| AtomicI64::new(NONE))) };
        registry.register(Box::new(oldest.clone()))?;
        Ok(oldest)
    }

    /// When the oldest record of a lane was written, in milliseconds since 1970.
    pub(crate) fn set(&self, lane: Lane, written_ms: Option<i64>) {
        self.written_ms[lane as usize].store(written_ms.unwrap_or(NONE), Ordering::Relaxed);
    }
}

impl Collector for OldestUnprocessed {
    fn desc(&self) -> Vec<&Desc> {
        self.age.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for lane in Lane::ALL {
            let age = match self.written_ms[lane as usize].load(Ordering::Relaxed) {
                NONE => 0.0,
                // A producer's clock may be ahead of ours.
                written_ms => (now.as_secs_f64() - written_ms as f64 / 1_000.0).max(0.0),
            };
            self.age.with_label_values(&[lane.as_str()]).set(age);
        }
        self.age.collect()
    }
}

impl Stages {
    fn of(stages: &HistogramVec) -> Self {
        let stage = |name| stages.with_label_values(&[name]);
        Self {
            list: stage("list"),
            fetch: stage("fetch"),
            decode: stage("decode"),
            faces: stage("faces"),
            crop: stage("crop"),
            wait: stage("wait"),
            score: stage("score"),
            examine: stage("examine"),
            publish: stage("publish"),
        }
    }
}
