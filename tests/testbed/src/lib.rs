//! Real services on this machine: started on free ports, in folders of their own, and stopped for sure.
//!
//! **What it does.** A [`Server`] is a process whose output goes to a file and that dies with us, however we end.
//! One module for each kind of service says how it is set up, started, and known to be ready.
//!
//! **In and out.** In: what `.ci/setup --tests` put into `.deps/`. Out: addresses, and handles to kill, stop and
//! continue what was started.
//!
//! **What it never does.** It knows nothing of Touchstone: its crates test themselves with it. It uses no fixed
//! port and touches no process that it did not start.
//!
//! **Where to start.** `server.rs`, then the service you need.
//!
//! **Before changing it.** A server is bound to the thread that started it (`PR_SET_PDEATHSIG`); that is why one
//! thread, which never ends, starts them all.

mod folder;
mod kafka;
mod port;
mod postgres;
mod prometheus;
mod server;
mod versitygw;
mod wait;

pub use kafka::{Kafka, KafkaBuilder, KafkaVersion, May, On};
pub use port::free_port;
pub use postgres::{Postgres, PostgresBuilder};
pub use prometheus::Prometheus;
pub use server::{Server, Signal, deps};
pub use versitygw::VersityGateway;
pub use wait::{until, until_async};
