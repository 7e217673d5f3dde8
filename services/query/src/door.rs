//! Query's door: open it, add it to a server, or run it as a process of its own.

use std::sync::Arc;

use ops::{Exit, ExitReason, Gate, Ops, Shutdown};
use proto::server::{MESSAGE_BYTES_MAX, ServiceHealth, Services, serve};
use proto::v1::audit_service_server::AuditServiceServer;
use proto::v1::verdict_service_server::VerdictServiceServer;
use stream::Log;
use stream::local::system_clock;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::audit::Audit;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::projector::{Projected, Projector};
use crate::service::{Answers, Audits};
use crate::store::{Store, StoreError};

/// The store, its projector, and the services on top of them.
pub struct Query {
    answers: Answers,
    audits: Audits,
    projected: watch::Receiver<Projected>,
    gate: Gate,
}

impl Query {
    /// Opens the store and starts to project; the topics must exist. The gate `projector` opens when it follows.
    ///
    /// # Errors
    /// With the exit reason of a store that cannot be opened.
    pub async fn open(config: &Config, log: Arc<dyn Log>, ops: &Ops) -> Result<Self, Exit> {
        let metrics = Metrics::register(&ops.registry)?;
        let topic: Arc<str> = config.topics.verdicts.as_str().into();
        let store = Store::open(&config.store, &topic, &ops.tasks).await.map_err(|error| {
            let is_refused = matches!(error, StoreError::Refused { .. });
            let reason = if is_refused { ExitReason::Refused } else { ExitReason::Unavailable };
            reason.because(format_args!("query.store: {error}"))
        })?;
        let (sender, projected) = watch::channel(Projected::new());
        let gate = ops.readiness.gate("projector");
        let projector = Projector {
            log: Arc::clone(&log),
            store: store.clone(),
            topic: Arc::clone(&topic),
            pauses: config.pauses,
            gate: gate.clone(),
            metrics: metrics.clone(),
            projected: sender,
        };
        ops.tasks.spawn("projector", projector.run(ops.shutdown.clone()));
        let audit = Audit {
            log: Arc::clone(&log),
            store: Some(store.clone()),
            topics: config.topics.clone(),
            worker_group: Arc::clone(&config.worker_group),
            patience: config.audit_patience,
            clock: system_clock(),
        };
        let audits = Audits {
            audit,
            room: Arc::new(Semaphore::new(config.audits_max)),
            max: config.audits_max,
            metrics: metrics.clone(),
            tasks: ops.tasks.clone(),
            shutdown: ops.shutdown.clone(),
        };
        let answers = Answers {
            store,
            log,
            topic,
            watchers: Arc::new(Semaphore::new(config.watch.watchers_max)),
            watch: config.watch.clone(),
            metrics,
            tasks: ops.tasks.clone(),
            shutdown: ops.shutdown.clone(),
        };
        Ok(Self { answers, audits, projected, gate })
    }

    /// Adds VerdictService and AuditService to a server; they are SERVING while the store follows the topic.
    pub fn add_to(&self, services: &mut Services) {
        let verdicts = VerdictServiceServer::new(self.answers.clone());
        let verdicts = services.add(verdicts.max_decoding_message_size(MESSAGE_BYTES_MAX));
        let audits = AuditServiceServer::new(self.audits.clone());
        let audits = services.add(audits.max_decoding_message_size(MESSAGE_BYTES_MAX));
        let follow = follow_health(self.gate.clone(), [verdicts, audits], self.answers.shutdown.clone());
        self.answers.tasks.spawn("query-health", follow);
    }

    /// How far the store follows the verdict topic, and whenever that changes.
    pub fn projected(&self) -> watch::Receiver<Projected> {
        self.projected.clone()
    }
}

async fn follow_health(gate: Gate, services: [ServiceHealth; 2], shutdown: Shutdown) {
    // The server says SERVING when it starts: the first word is ours.
    let mut serving = gate.is_ready();
    loop {
        for service in &services {
            service.set(serving).await;
        }
        serving = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            now = gate.changed(serving) => now,
        };
    }
}

/// Runs query as a process: until shutdown is asked for, then until the requests under way are answered.
///
/// # Errors
/// With the exit reason of what could not be opened, or of a failed transport.
pub async fn run(config: Config, log: Arc<dyn Log>, listener: TcpListener, ops: Ops) -> Result<(), Exit> {
    let mut services = Services::new();
    Query::open(&config, log, &ops).await?.add_to(&mut services);
    let stop = ops.shutdown.clone();
    serve(listener, services, &config.grpc, async move { stop.requested().await })
        .await
        .map_err(|error| ExitReason::Bug.because(format_args!("gRPC server: {error}")))
}
