//! The worker: media references in, one verdict each out, exactly once.
//!
//! In come records of the media topics; out go verdicts (and dead letters for what nobody can parse), each in
//! the transaction that commits its input's offset. Between them a reference walks one corridor, `examine`:
//! fetch, decode, faces, crop, batch, score, judge.
//!
//! It never keeps anything of its own: no database, no file, no state that outlives the process. It never
//! writes a verdict outside a transaction, never judges while the object store as a whole is in trouble, and
//! never loses a record: what cannot be judged ends as a FAILED verdict that says why.
//!
//! Start reading at [`run()`], then `examine.rs` from top to bottom, then `intake.rs` and `publish.rs`, the two
//! ends of the corridor.
//!
//! Before you change anything: only the finished prefix of a partition may be committed, and every job carries
//! the epoch of its assignment. Only the intake listens to the shutdown; each later room ends because its
//! input closed.

mod admission;
mod batcher;
mod breaker;
mod budget;
mod clerk;
mod config;
mod device;
pub mod engine;
mod examine;
mod faces;
mod intake;
mod job;
mod lag;
mod metrics;
mod publish;
mod resilient;
mod run;

pub use config::{
    Config, ExamineConfig, IntakeConfig, PublishConfig, RawConfig, Settings, SettingsEngine, SettingsExamine,
    SettingsIntake, SettingsPolicy, SettingsPublish,
};
pub use engine::{EngineConfig, Engines};
pub use run::{LogHandle, run};

/// The tables `[worker…]` with every knob explained; a service appends `media::DEFAULTS` and reads the whole
/// as [`RawConfig`].
pub const DEFAULTS: &str = include_str!("../defaults.toml");
