//! The connection side: accept, serve, stop when the owner says so.
//!
//! The server has its own threads and runtime, so that it may read small objects where it stands: a hop to
//! a blocking thread and back makes a GET of 40 kB cost up to twice as much (measured 2026-11-24 on two busy
//! cores: 90 to 110 µs of CPU without, 90 to 285 with), and a slow disk holds up nobody but those who read
//! from it. What waits for the disk to write takes the hop.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use ops::{Ops, TaskHandle};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::s3::Service;
use super::{Credentials, ObjectStore};

/// Connections at a time; more wait to be accepted. It also bounds the blocking threads in use. Chosen.
const CONNECTIONS_MAX: usize = 512;

/// Time to send a request's headers, idle time of a kept connection included: longer than clients keep
/// idle connections (20 to 60 s), so that they close first. Chosen.
const HEADER_TIME: Duration = Duration::from_secs(90);

/// Time for answers under way when the server stops. Chosen.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Threads of the server: one may wait for a slow disk while the other serves. Chosen.
const THREADS: usize = 2;

/// Pause after an accept that failed (out of file descriptors), which would fail again at once. Chosen.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. It does not listen to the process's shutdown, because workers that drain still fetch
/// from it: its owner stops it, or drops it, after them.
pub struct ObjectStoreServer {
    /// What clients are told: `http://address`.
    pub endpoint: String,
    /// What they sign with.
    pub credentials: Credentials,
    task: TaskHandle,
    stop: DropGuard,
}

impl ObjectStoreServer {
    /// Stops: answers under way are finished, then the connections closed.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.ended().await;
    }
}

impl ObjectStore {
    /// Serves the store on `listener`, on a thread of `ops`.
    pub fn serve(&self, listener: TcpListener, ops: &Ops) -> io::Result<ObjectStoreServer> {
        let endpoint = format!("http://{}", listener.local_addr()?);
        let mut builder = S3ServiceBuilder::new(Service { disk: Arc::clone(&self.disk) });
        let Credentials { access_key, secret_key } = &self.credentials;
        builder.set_auth(SimpleAuth::from_single(access_key.as_str(), secret_key.expose()));
        let stop = CancellationToken::new();
        let (service, stopped) = (builder.build(), stop.clone());
        let listener = listener.into_std()?;
        let task = ops.tasks.spawn_finite_thread("object-store", move || {
            run(listener, service, stopped).map_err(|error| {
                ops::ExitReason::Unavailable.because(format_args!("cannot serve the object store: {error}"))
            })
        });
        let credentials = self.credentials.clone();
        Ok(ObjectStoreServer { endpoint, credentials, task, stop: stop.drop_guard() })
    }
}

fn run(listener: std::net::TcpListener, service: S3Service, stop: CancellationToken) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(THREADS).thread_name("object-store").enable_all().build()?;
    runtime.block_on(async {
        accept(TcpListener::from_std(listener)?, service, stop).await;
        Ok(())
    })
}

async fn accept(listener: TcpListener, service: S3Service, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while let Some(ended) = connections.try_join_next() {
            say_panic(ended);
        }
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the object store cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_closed = async {
        while let Some(ended) = connections.join_next().await {
            say_panic(ended);
        }
    };
    if tokio::time::timeout(STOP_TIME, all_closed).await.is_err() {
        connections.shutdown().await;
    }
}

/// A panic while answering costs that connection; the others go on.
fn say_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection to the object store ended by a bug");
    }
}

async fn connection(stream: TcpStream, service: S3Service, stop: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return; // the client has gone already
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the object store broke");
    }
}
