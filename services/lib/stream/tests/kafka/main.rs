//! What only Kafka has to stand: brokers that go away, answers that come late, members that were thought dead,
//! slots that are taken twice, logins and rights.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod access;
mod faults;
mod groups;
mod modes;
mod proxy;
mod reading;
mod rights;
mod support;
mod telling;
mod tls;
mod zombie;
