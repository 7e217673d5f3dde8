//! What every process of the fleet needs and no hop of the data: configuration, telemetry, metrics,
//! admin HTTP, readiness, shutdown and named tasks.
//!
//! In goes a service's `defaults.toml`, a file, the environment and a closure that is the service. Out
//! comes an exit code an operator can act on ([`ExitReason`]), and three pages on the admin port:
//! `/livez`, `/readyz`, `/metrics`.
//!
//! It never knows what a medium or a verdict is, and never keeps anything global but the tracing
//! subscriber: two of any service live in one process, each with its own [`Ops`].
//!
//! Start reading at [`run()`]: the life of a process from first line to exit code. Then [`Tasks`], which
//! is where a panic becomes an exit, and [`config::load`].
//!
//! Before changing it: the order of shutdown is a promise. Not ready first, then the rooms drain because
//! their intake closed, then tasks and threads are joined, and the admin server goes last, so that a
//! draining process can still be watched. The second signal leaves at once, even if the runtime is stuck.

pub mod admin;
pub mod command_line;
pub mod config;
pub mod metrics;
pub mod telemetry;

mod exit;
mod failpoint;
mod log_key;
mod process;
mod readiness;
mod rooms;
mod run;
mod shutdown;
mod tasks;

pub use admin::AdminServer;
pub use exit::{Exit, ExitReason, refuse};
pub use failpoint::{Failpoints, Fault};
pub use log_key::log_key;
pub use readiness::{Gate, Readiness};
pub use rooms::Ops;
pub use run::{DEFAULTS, OpsConfig, run};
pub use shutdown::Shutdown;
pub use tasks::{TaskEnd, TaskHandle, Tasks};
