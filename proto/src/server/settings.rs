//! The server's knobs.

use std::net::SocketAddr;

use ops::config::{ByteSize, ConfigError, HumanDuration, Problems};
use ops::{Exit, ExitReason};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::transport::Server;

/// The table `[grpc]` of a service's defaults.
pub const DEFAULTS: &str = include_str!("../server.toml");

/// The same on another port, for a service that shares its machine with the one that has that of [`DEFAULTS`].
pub fn defaults_on(port: u16) -> String {
    DEFAULTS.replacen(":7700\"", &format!(":{port}\""), 1)
}

/// The table `[grpc]`; each knob is explained in [`DEFAULTS`]. tonic's own defaults are open.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "server.toml explains each knob, once")]
pub struct ServerSettings {
    pub listen: SocketAddr,
    pub reflection: bool,
    pub connections_max: usize,
    pub streams_per_connection_max: u32,
    pub requests_per_connection_max: usize,
    pub request_timeout: HumanDuration,
    pub header_bytes_max: ByteSize,
    pub connection_age_max: HumanDuration,
    pub keepalive_interval: HumanDuration,
    pub keepalive_timeout: HumanDuration,
}

impl ServerSettings {
    /// What [`DEFAULTS`] say.
    pub fn defaults() -> Self {
        #[derive(Deserialize)]
        struct Raw {
            grpc: ServerSettings,
        }
        let raw: Raw = ops::config::load(DEFAULTS, None, "", std::iter::empty())
            .expect("the defaults are part of this build and tested");
        raw.grpc
    }

    /// Everything that is wrong with them.
    ///
    /// # Errors
    /// Knobs that would open or close the server altogether.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        for (key, is_zero) in [
            ("grpc.connections_max", self.connections_max == 0),
            ("grpc.streams_per_connection_max", self.streams_per_connection_max == 0),
            ("grpc.requests_per_connection_max", self.requests_per_connection_max == 0),
            ("grpc.request_timeout", self.request_timeout.get().is_zero()),
            ("grpc.connection_age_max", self.connection_age_max.get().is_zero()),
            ("grpc.keepalive_interval", self.keepalive_interval.get().is_zero()),
            ("grpc.keepalive_timeout", self.keepalive_timeout.get().is_zero()),
        ] {
            problems.require(!is_zero, key, "must be more than nothing");
        }
        let headers = self.header_bytes_max.bytes();
        problems.require(
            (1024..=1024 * 1024).contains(&headers),
            "grpc.header_bytes_max",
            "must be 1KiB to 1MiB",
        );
        problems.into_result()
    }

    /// Listens where they say.
    ///
    /// # Errors
    /// [`ExitReason::Unavailable`] when somebody else listens there.
    pub async fn bind(&self) -> Result<TcpListener, Exit> {
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            ExitReason::Unavailable.because(format_args!("grpc.listen {}: {error}", self.listen))
        })?;
        if !self.listen.ip().is_loopback() {
            tracing::warn!(listen = %self.listen, "reachable from beyond this machine, and nothing asks a caller who it is");
        }
        let address = listener.local_addr().map_err(|error| ExitReason::Unavailable.because(error))?;
        tracing::info!(grpc = %address, "answers gRPC");
        Ok(listener)
    }

    pub(super) fn limits(&self, server: Server) -> Server {
        let headers = u32::try_from(self.header_bytes_max.bytes()).unwrap_or(16 * 1024);
        server
            .max_concurrent_streams(self.streams_per_connection_max)
            .concurrency_limit_per_connection(self.requests_per_connection_max)
            .load_shed(true)
            .timeout(self.request_timeout.get())
            .http2_max_header_list_size(headers)
            .max_connection_age(self.connection_age_max.get())
            .http2_keepalive_interval(Some(self.keepalive_interval.get()))
            .http2_keepalive_timeout(Some(self.keepalive_timeout.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let mut settings = ServerSettings::defaults();
        assert_eq!(settings.check(), Ok(()));
        settings.connections_max = 0;
        settings.header_bytes_max = ByteSize::new(1);
        assert_eq!(settings.check().expect_err("closed").errors.len(), 2);
    }
}
