//! Admin HTTP, on its own port: is it alive, is it ready, how is it doing.
//!
//! `/livez` answers while the process can answer at all; `/readyz` is 200 only when every gate is ready and
//! names those that are not; `/metrics` is the Prometheus text format. None of them shows data.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::TextEncoder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Exit, ExitReason, Ops};

/// How long [`AdminServer::stop`] waits for answers under way: a kept-alive connection of a scraper must
/// not hold the process. Chosen.
const STOP_TIME: Duration = Duration::from_millis(500);

/// The running admin server. It belongs to none of the tasks: it stops last, when its owner says so.
pub struct AdminServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl AdminServer {
    /// Stops listening; the last thing a process does.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_TIME, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// Serves the three pages of `ops` on `listener`.
#[allow(clippy::disallowed_methods)] // stops last, after Tasks: owned and joined by AdminServer
pub fn serve(listener: TcpListener, ops: Ops) -> Result<AdminServer, Exit> {
    let address = listener
        .local_addr()
        .map_err(|error| ExitReason::Unavailable.because(format_args!("admin listener: {error}")))?;
    ops.set_admin_address(address);
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let server = tokio::spawn(async move {
        let served = axum::serve(listener, routes(ops)).with_graceful_shutdown(stopped).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin server ended");
        }
    });
    Ok(AdminServer { address, stop, server })
}

fn routes(ops: Ops) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let obstacles = ops.readiness.obstacles();
    if obstacles.is_empty() {
        return "ready\n".into_response();
    }
    let body: String = obstacles.iter().map(|(gate, reason)| format!("{gate}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics(State(ops): State<Ops>) -> Response {
    match TextEncoder::new().encode_to_string(&ops.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn three_pages() {
        let ops = Ops::new("test", Duration::ZERO).unwrap();
        let gate = ops.readiness.gate("model");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = serve(listener, ops.clone()).unwrap();
        assert_eq!(ops.admin_address(), Some(admin.address));

        assert!(get(admin.address, "/livez").await.starts_with("HTTP/1.1 200"));
        let page = get(admin.address, "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503") && page.ends_with("model: starting\n"), "{page}");
        gate.ready();
        assert!(get(admin.address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let page = get(admin.address, "/metrics").await;
        assert!(page.contains("touchstone_build_info{component=\"test\""), "{page}");
        assert!(page.contains("process_resident_memory_bytes"), "{page}");

        ops.shutdown.request();
        assert!(get(admin.address, "/readyz").await.starts_with("HTTP/1.1 503"));
        let address = admin.address;
        admin.stop().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
