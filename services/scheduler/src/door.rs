//! The scheduler's door: open it, add it to a server, or run it as a process of its own.

use std::sync::Arc;

use ops::{Exit, ExitReason, Gate, Ops, Shutdown};
use proto::server::{BATCH_BYTES_MAX, ServiceHealth, Services, serve};
use proto::v1::media_service_server::MediaServiceServer;
use stream::{Log, LogHealth};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::front_door::FrontDoor;
use crate::metrics::Metrics;
use crate::requests::{Requests, rebuild};

/// The front door.
pub struct Scheduler {
    door: FrontDoor,
    gate: Gate,
    shutdown: Shutdown,
}

impl Scheduler {
    /// Reads the request ids of the last minutes back and is ready to take media; the topics must exist.
    ///
    /// # Errors
    /// With the exit reason of a log that cannot be read.
    pub async fn open(config: &Config, log: Arc<dyn Log>, ops: &Ops) -> Result<Self, Exit> {
        let metrics = Metrics::register(&ops.registry)?;
        let gate = ops.readiness.gate("front-door");
        let size = metrics.request_ids.clone();
        let requests = Requests::new(config.request_ids_for, config.request_ids_max, size);
        let look = || rebuild(&*log, &config.topics, &requests);
        let found = stream::at_start(&log.health(), &ops.shutdown, "reading request ids", look).await?;
        tracing::info!(request_ids = found, "request ids read back from the media topics");
        let door = FrontDoor {
            health: log.health(),
            log,
            topics: config.topics.clone(),
            buckets: Arc::new(config.buckets.clone()),
            requests,
            record_bytes_max: config.record_bytes_max,
            metrics,
            tasks: ops.tasks.clone(),
        };
        Ok(Self { door, gate, shutdown: ops.shutdown.clone() })
    }

    /// Adds MediaService to a server; it is SERVING, and the gate `front-door` open, while the log can take records.
    pub fn add_to(&self, services: &mut Services) {
        let server = MediaServiceServer::new(self.door.clone());
        let health = services.add(server.max_decoding_message_size(BATCH_BYTES_MAX));
        let follow =
            follow_health(self.door.health.clone(), self.gate.clone(), health, self.shutdown.clone());
        self.door.tasks.spawn("front-door-health", follow);
    }
}

async fn follow_health(
    mut log: watch::Receiver<LogHealth>,
    gate: Gate,
    service: ServiceHealth,
    shutdown: Shutdown,
) {
    loop {
        let state = log.borrow_and_update().clone();
        match &state {
            LogHealth::Ready => gate.ready(),
            LogHealth::NotReady { reason } => gate.not_ready(&**reason),
        }
        service.set(state.is_ready()).await;
        let changed = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            changed = log.changed() => changed,
        };
        if changed.is_err() {
            // The log was closed: what it said last holds until shutdown.
            shutdown.requested().await;
            return;
        }
    }
}

/// Runs the scheduler as a process: until shutdown is asked for, then until the requests under way are answered.
///
/// # Errors
/// With the exit reason of what could not be opened, or of a failed transport.
pub async fn run(config: Config, log: Arc<dyn Log>, listener: TcpListener, ops: Ops) -> Result<(), Exit> {
    let mut services = Services::new();
    Scheduler::open(&config, log, &ops).await?.add_to(&mut services);
    let stop = ops.shutdown.clone();
    serve(listener, services, &config.grpc, async move { stop.requested().await })
        .await
        .map_err(|error| ExitReason::Bug.because(format_args!("gRPC server: {error}")))
}
