//! Ports that nobody listens on.

use std::net::TcpListener;

use anyhow::Context;

/// A free port of the loopback interface. Somebody else may take it before its user does: whoever passes it on
/// starts again with another when that happens.
///
/// # Errors
/// When the machine has none left.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("a listener has an address")?.port())
}
