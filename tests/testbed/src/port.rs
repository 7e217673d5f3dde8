//! Ports that nobody listens on.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::bail;

/// Below those that Linux gives to whoever asks for any, connections going out among them (`ip_local_port_range`): one
/// of those could be taken before its user comes to it, and a broker takes seconds.
const PORTS: Range<u16> = 10_000..32_768;
/// So many are tried.
const ATTEMPTS: u64 = 1_000;

/// A free port of the loopback interface. Somebody else may take it before its user does: whoever passes it on
/// starts again with another when that happens.
///
/// # Errors
/// When none was found.
pub fn free_port() -> anyhow::Result<u16> {
    // Seeded by the system: tests side by side look in different places.
    let chance = RandomState::new();
    for attempt in 0..ATTEMPTS {
        let drawn = chance.hash_one(attempt) % u64::try_from(PORTS.len())?;
        let port = PORTS.start + u16::try_from(drawn)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 in {PORTS:?}")
}
