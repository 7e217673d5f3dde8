//! The worker's settings: as written, and checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forensics::{Aggregation, BucketAllowList, Policy, Thresholds};
use ops::config::{ByteSize, ConfigError, HumanDuration, Problems};
use proto::topics::Topics;
use serde::{Deserialize, Serialize};

use crate::engine::EngineConfig;

/// The whole configuration file of a worker, as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RawConfig {
    /// `[worker…]`.
    pub worker: Settings,
    /// `[topics]`: the names in use.
    #[serde(default)]
    pub topics: Topics,
    /// `[buckets]`: tenant (or `*`) → `bucket`, `bucket/prefix` or `*`: what its references may name.
    #[serde(default)]
    pub buckets: BTreeMap<String, Vec<String>>,
    /// `[s3]`.
    pub s3: media::S3Settings,
    /// `[decode]`.
    pub decode: media::DecodeSettings,
}

/// The tables `[worker…]` as written; each knob is explained in [`crate::DEFAULTS`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct Settings {
    pub slot: String,
    pub group: String,
    pub engine: SettingsEngine,
    pub intake: SettingsIntake,
    pub examine: SettingsExamine,
    pub publish: SettingsPublish,
    pub policy: SettingsPolicy,
}

/// `[worker.engine]` as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct SettingsEngine {
    pub model: String,
    pub faces: String,
    pub device: String,
    pub precision: String,
    pub threads: usize,
    pub batch_max: usize,
}

/// `[worker.intake]` as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct SettingsIntake {
    pub jobs_max: usize,
    pub uncommitted_max: usize,
    pub uncommitted_bytes_max: ByteSize,
    pub fetch_records_max: usize,
    pub fetch_bytes_max: ByteSize,
    pub pause_after: HumanDuration,
}

/// `[worker.examine]` as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct SettingsExamine {
    pub deadline: HumanDuration,
    pub frames_per_job: usize,
    pub pixel_bytes_max: ByteSize,
    pub face_queue_max: usize,
    pub slow_retries: u32,
    pub probe_pause: HumanDuration,
    pub probe_pause_max: HumanDuration,
}

/// `[worker.publish]` as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct SettingsPublish {
    pub window: HumanDuration,
    pub records_max: usize,
    pub bytes_max: ByteSize,
    pub record_bytes_max: ByteSize,
}

/// `[worker.policy]` as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct SettingsPolicy {
    pub version: String,
    pub aggregation: String,
    pub thresholds: Vec<f32>,
    pub faces_max: usize,
    pub face_size_min: f32,
    pub sharpness_min: f32,
}

/// Checked settings of one worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// The transactional id, unique among the living.
    pub slot: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// The topic names in use.
    pub topics: Topics,
    /// Which buckets may be read for whom.
    pub buckets: BucketAllowList,
    /// What turns scores into outcomes.
    pub policy: Policy,
    /// How much is taken in.
    pub intake: IntakeConfig,
    /// How one media is examined.
    pub examine: ExamineConfig,
    /// How outcomes are published.
    pub publish: PublishConfig,
    /// The object store.
    pub s3: media::S3Config,
    /// The decode threads.
    pub decode: media::DecodeConfig,
}

/// How much is taken in.
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// Media under examination at once.
    pub jobs_max: usize,
    /// Media taken in and not yet committed.
    pub uncommitted_max: usize,
    /// Bytes of their records.
    pub uncommitted_bytes_max: usize,
    /// Records of one fetch.
    pub fetch_records_max: usize,
    /// Bytes of one fetch.
    pub fetch_bytes_max: usize,
    /// Backpressure for so long pauses the partitions.
    pub pause_after: Duration,
}

/// How one media is examined.
#[derive(Debug, Clone)]
pub struct ExamineConfig {
    /// A media may take so long, its own work and the answers of a healthy store counted.
    pub deadline: Duration,
    /// Frames of one media under way at once.
    pub frames_per_job: usize,
    /// Decoded pixels and crops in memory at once.
    pub pixel_bytes_max: usize,
    /// Frames that may wait for the face detector.
    pub face_queue_max: usize,
    /// An object that is too slow is tried again so often.
    pub slow_retries: u32,
    /// The first pause between two probes of a store in trouble.
    pub probe_pause: Duration,
    /// The longest.
    pub probe_pause_max: Duration,
}

/// How outcomes are published.
#[derive(Debug, Clone)]
pub struct PublishConfig {
    /// A transaction collects for so long.
    pub window: Duration,
    /// It holds so many records at most.
    pub records_max: usize,
    /// And so many bytes, unless one outcome alone is larger.
    pub bytes_max: usize,
    /// The largest record.
    pub record_bytes_max: usize,
}

impl RawConfig {
    /// The checked configuration and the choice of engines, or everything that is wrong.
    pub fn check(self) -> Result<(Config, EngineConfig), ConfigError> {
        let mut problems = Problems::default();
        let buckets = allow_list(&self.buckets, &mut problems);
        let (s3, decode) = (problems.absorb(self.s3.check()), problems.absorb(self.decode.check()));
        let engine = problems.absorb(self.worker.engine.check());
        let knobs = problems.absorb(Knobs::check(&self.worker));
        let policy = problems.absorb(self.worker.policy.check());
        problems.into_result()?;
        let ((Some(buckets), Some(s3), Some(decode)), (Some(engine), Some(policy), Some(knobs))) =
            ((buckets, s3, decode), (engine, policy, knobs))
        else {
            unreachable!("what is missing was a problem")
        };
        let config = Config {
            slot: self.worker.slot.into(),
            group: self.worker.group.into(),
            topics: self.topics,
            buckets,
            policy,
            intake: knobs.intake,
            examine: knobs.examine,
            publish: knobs.publish,
            s3,
            decode,
        };
        Ok((config, engine))
    }
}

fn allow_list(entries: &BTreeMap<String, Vec<String>>, problems: &mut Problems) -> Option<BucketAllowList> {
    let parsed = BucketAllowList::parse(entries);
    parsed.map_err(|wrong| wrong.iter().for_each(|why| problems.add("buckets", why))).ok()
}

struct Knobs {
    intake: IntakeConfig,
    examine: ExamineConfig,
    publish: PublishConfig,
}

impl Knobs {
    fn check(raw: &Settings) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let slot_ok = !raw.slot.is_empty() && raw.slot.bytes().all(|b| b.is_ascii_graphic());
        problems.require(
            slot_ok,
            "worker.slot",
            "is required: a name unique among the living, such as worker-0",
        );
        problems.require(!raw.group.is_empty(), "worker.group", "is empty");
        let (intake, examine, publish) = (&raw.intake, &raw.examine, &raw.publish);
        for (key, value) in [
            ("worker.intake.jobs_max", intake.jobs_max),
            ("worker.intake.fetch_records_max", intake.fetch_records_max),
            ("worker.intake.fetch_bytes_max", intake.fetch_bytes_max.as_usize()),
            ("worker.examine.frames_per_job", examine.frames_per_job),
            ("worker.examine.face_queue_max", examine.face_queue_max),
            ("worker.publish.records_max", publish.records_max),
            ("worker.publish.bytes_max", publish.bytes_max.as_usize()),
        ] {
            problems.require(value > 0, key, "must be at least 1");
        }
        problems.require(
            (intake.jobs_max..=1 << 24).contains(&intake.uncommitted_max),
            "worker.intake.uncommitted_max",
            "must be at least jobs_max and at most 16777216",
        );
        for (key, size) in [
            ("worker.intake.uncommitted_bytes_max", intake.uncommitted_bytes_max),
            ("worker.examine.pixel_bytes_max", examine.pixel_bytes_max),
        ] {
            problems.require(size.bytes() >= 1 << 20, key, "must be at least 1MiB");
        }
        problems.require(
            (64 << 10..=960 << 10).contains(&publish.record_bytes_max.bytes()),
            "worker.publish.record_bytes_max",
            "must be 64KiB, or verdicts of long media do not fit, to 960KiB, or clients of Kafka refuse them",
        );
        problems.require(
            !examine.deadline.get().is_zero(),
            "worker.examine.deadline",
            "must be longer than nothing",
        );
        let pauses_ok =
            !examine.probe_pause.get().is_zero() && examine.probe_pause <= examine.probe_pause_max;
        problems.require(pauses_ok, "worker.examine.probe_pause", "must be 1us to probe_pause_max");
        problems.finish(Self {
            intake: IntakeConfig {
                jobs_max: intake.jobs_max,
                uncommitted_max: intake.uncommitted_max,
                uncommitted_bytes_max: intake.uncommitted_bytes_max.as_usize(),
                fetch_records_max: intake.fetch_records_max,
                fetch_bytes_max: intake.fetch_bytes_max.as_usize(),
                pause_after: intake.pause_after.get(),
            },
            examine: ExamineConfig {
                deadline: examine.deadline.get(),
                frames_per_job: examine.frames_per_job,
                pixel_bytes_max: examine.pixel_bytes_max.as_usize(),
                face_queue_max: examine.face_queue_max,
                slow_retries: examine.slow_retries,
                probe_pause: examine.probe_pause.get(),
                probe_pause_max: examine.probe_pause_max.get(),
            },
            publish: PublishConfig {
                window: publish.window.get(),
                records_max: publish.records_max,
                bytes_max: publish.bytes_max.as_usize(),
                record_bytes_max: publish.record_bytes_max.as_usize(),
            },
        })
    }
}

impl SettingsPolicy {
    /// The checked policy.
    pub fn check(self) -> Result<Policy, ConfigError> {
        let mut problems = Problems::default();
        let aggregation = Aggregation::parse(&self.aggregation);
        if aggregation.is_none() {
            let why = format!("must be top-third-mean, mean or max, got {}", self.aggregation);
            problems.add("worker.policy.aggregation", why);
        }
        let thresholds = match *self.thresholds {
            [] => None,
            [forged, authentic] => Thresholds::new(forged, authentic),
            _ => None,
        };
        problems.require(
            self.thresholds.is_empty() || thresholds.is_some(),
            "worker.policy.thresholds",
            "must be [] or [forged, authentic] with 0 <= authentic <= forged <= 1",
        );
        problems.require(!self.version.is_empty(), "worker.policy.version", "is empty");
        // A frame's crops are in memory together: 1,024 of them are 192 MiB.
        problems.require(
            (1..=1_024).contains(&self.faces_max),
            "worker.policy.faces_max",
            "must be 1 to 1024",
        );
        for (key, value) in [
            ("worker.policy.face_size_min", self.face_size_min),
            ("worker.policy.sharpness_min", self.sharpness_min),
        ] {
            problems.require(value.is_finite() && value >= 0.0, key, "must be 0 or more");
        }
        problems.finish(Policy {
            version: self.version,
            aggregation: aggregation.unwrap_or(Aggregation::TopThirdMean),
            thresholds,
            faces_max: self.faces_max,
            face_size_min: self.face_size_min,
            sharpness_min: self.sharpness_min,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<RawConfig, ConfigError> {
        let defaults = [crate::DEFAULTS, media::DEFAULTS].join("\n");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ops::config::load(&defaults, None, "TOUCHSTONE", variables)
    }

    #[test]
    fn the_defaults_lack_only_what_is_required() {
        let errors = load(&[]).unwrap().check().unwrap_err().errors;
        let keys: Vec<&str> = errors.iter().filter_map(|error| error.split(':').next()).collect();
        assert_eq!(keys, ["worker.engine.model", "worker.engine.faces", "worker.slot"]);
        let (config, engine) = load(&[
            ("TOUCHSTONE__WORKER__SLOT", "worker-0"),
            ("TOUCHSTONE__WORKER__ENGINE__MODEL", "scripted"),
            ("TOUCHSTONE__WORKER__ENGINE__FACES", "scripted"),
            ("TOUCHSTONE__BUCKETS__ACME", "[\"acme-media\"]"),
        ])
        .unwrap()
        .check()
        .unwrap();
        assert_eq!(config.policy, Policy::default(), "the file says what the code says");
        assert_eq!((&*config.slot, &*engine.model), ("worker-0", "scripted"));
        let bucket = forensics::Bucket::parse("acme-media").unwrap();
        let source = forensics::Source::prefix(bucket, "a/").unwrap();
        assert!(config.buckets.permits(&forensics::Tenant::parse("acme").unwrap(), &source));
        assert!(!config.buckets.permits(&forensics::Tenant::default_tenant(), &source));
    }

    #[test]
    fn wrong_values_are_all_listed() {
        let mut raw = load(&[]).unwrap();
        raw.worker.slot = "w".to_owned();
        raw.worker.engine.model = "scripted".to_owned();
        raw.worker.engine.faces = "scripted".to_owned();
        raw.worker.engine.device = "tpu".to_owned();
        raw.worker.intake.jobs_max = 0;
        raw.worker.policy.thresholds = vec![0.2, 0.8];
        raw.worker.policy.faces_max = 0;
        let errors = raw.check().unwrap_err().errors;
        assert_eq!(errors.len(), 4, "{errors:?}");
    }
}
