//! The building: every service of the process, from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ops::{Exit, ExitReason, Ops, TaskHandle};
use proto::server::{Services, serve};
use query::Query;
use scheduler::Scheduler;
use stream::Log;
use stream::local::LocalLog;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::config::Config;
use crate::object_store::{ObjectStore, ObjectStoreServer};
use crate::{connection, ready};

/// After the drain deadline, for what ends because the rest has ended. Chosen.
const LAST_STEPS: Duration = Duration::from_secs(1);

/// Where a standalone answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// All gRPC services, with health and reflection.
    pub grpc: SocketAddr,
    /// The object store, as a URL.
    pub s3: String,
    /// Admin HTTP, where the process serves it.
    pub admin: Option<SocketAddr>,
}

/// A running standalone. Several live in one process.
pub struct Standalone {
    addresses: Addresses,
    config: Config,
    log: LocalLog,
    object_store: ObjectStoreServer,
    server: TaskHandle,
    workers: Vec<TaskHandle>,
    services: Vec<Ops>,
    ops: Ops,
}

/// Runs a standalone until it is asked to stop and has drained; says on standard output when it is ready.
///
/// # Errors
/// With the exit reason of whatever could not start, failed, or did not drain in time.
pub async fn run(config: Config, ops: Ops) -> Result<(), Exit> {
    let started = Instant::now();
    let standalone = Standalone::start(config, ops.clone()).await?;
    tokio::select! {
        ready = standalone.ready() => {
            ready?;
            ready::announce(&standalone.config, &standalone.addresses, started.elapsed());
        }
        () = ops.shutdown.requested() => {}
    }
    ops.shutdown.requested().await;
    standalone.drain().await
}

impl Standalone {
    /// Opens the folder and starts every service in `ops`; [`Standalone::ready`] waits until they can work.
    ///
    /// # Errors
    /// With the exit reason of what could not be opened.
    pub async fn start(config: Config, ops: Ops) -> Result<Self, Exit> {
        let (log, log_metrics) = open_log(&config, &ops).await?;
        let shared: Arc<dyn Log> = Arc::new(log.clone());
        shared.create_topics(&config.topics()).await?;
        start_tidying(&log, &config, &ops);

        let store = ObjectStore::open(&config.folder.join("objects"))?;
        store.ensure_bucket(config.bucket())?;
        let listener = bind("standalone.s3_listen", config.s3_listen()).await?;
        let store_ops = ops.child("object-store")?;
        let object_store =
            store.serve(listener, &store_ops).map_err(|error| ExitReason::Unavailable.because(error))?;

        let (scheduler_ops, query_ops) = (ops.child("scheduler")?, ops.child("query")?);
        make_folder(&config.folder.join("store"))?;
        let mut services = Services::new();
        let scheduler = Scheduler::open(&config.scheduler()?, Arc::clone(&shared), &scheduler_ops).await?;
        scheduler.add_to(&mut services);
        Query::open(&config.query()?, Arc::clone(&shared), &query_ops).await?.add_to(&mut services);
        let listener = bind("standalone.listen", config.listen()).await?;
        let grpc = listener.local_addr().map_err(|error| ExitReason::Unavailable.because(error))?;
        let server = start_server(listener, services, &config, &ops);

        let mut service_ops = vec![scheduler_ops, query_ops];
        let worker_log = worker::LogHandle { log: Arc::clone(&shared), metrics: log_metrics };
        let mut workers = Vec::with_capacity(config.workers());
        for number in 0..config.workers() {
            let worker_ops = ops.child(&format!("worker-{number}"))?;
            let (settings, engines) = config.worker(number, &object_store)?;
            let engines = worker::engine::choose(&engines)?;
            // Without its type: the layout of a whole worker inside that of a whole process is too deep for the compiler.
            let running: BoxFuture<'static, Result<(), Exit>> =
                Box::pin(worker::run(settings, worker_log.clone(), engines, worker_ops.clone()));
            workers.push(worker_ops.tasks.spawn("worker", running));
            service_ops.push(worker_ops);
        }

        let addresses = Addresses { grpc, s3: object_store.endpoint.clone(), admin: ops.admin_address() };
        connection::write(&config.folder, &addresses, config.bucket(), &object_store.credentials).map_err(
            |error| {
                let file = connection::path(&config.folder);
                ExitReason::Unavailable.because(format_args!("{}: {error}", file.display()))
            },
        )?;
        Ok(Self { addresses, config, log, object_store, server, workers, services: service_ops, ops })
    }

    /// Where it answers.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The log, for tests and benches that look below the services.
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    /// A client of the object store, and the bucket that every tenant may name.
    ///
    /// # Errors
    /// When the settings of the room `media` forbid it.
    pub async fn store_client(&self) -> Result<(media::ObjectStore, forensics::Bucket), Exit> {
        let bucket = forensics::Bucket::parse(self.config.bucket());
        let bucket = bucket.map_err(|error| ExitReason::Config.because(error))?;
        let settings = self.config.s3_client(&self.object_store)?;
        let client = media::ObjectStore::connect(settings, &ops::metrics::Registry::new()).await;
        Ok((client.map_err(|error| ExitReason::Bug.because(error))?, bucket))
    }

    /// Waits until every service can work.
    ///
    /// # Errors
    /// With the reason of a service that failed before.
    pub async fn ready(&self) -> Result<(), Exit> {
        tokio::select! {
            () = self.ops.readiness.ready() => Ok(()),
            () = self.ops.shutdown.requested() => {
                let asked = || ExitReason::Temporary.because("asked to stop before it was ready");
                Err(self.ops.tasks.failure().unwrap_or_else(asked))
            }
        }
    }

    /// Asks every service to stop, and waits until they have.
    ///
    /// # Errors
    /// With the reason of the first that failed, or that did not end in time.
    pub async fn stop(self) -> Result<(), Exit> {
        let ops = self.ops.clone();
        ops.shutdown.request();
        self.drain().await?;
        match ops.tasks.failure() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// The order of the end: workers finish what they began while object store and log still work; the services
    /// answer what they were asked; the object store goes, the log last.
    async fn drain(self) -> Result<(), Exit> {
        let deadline = self.ops.shutdown.deadline().unwrap_or_else(Instant::now) + LAST_STEPS;
        let ended = async {
            for worker in &self.workers {
                worker.ended().await;
            }
            self.server.ended().await;
        };
        let in_time = tokio::time::timeout_at(deadline, ended).await.is_ok();
        let mut result = Ok(());
        for service in &self.services {
            result = result.and(service.tasks.join(deadline).await);
        }
        self.object_store.stop().await;
        connection::remove(&self.config.folder);
        let log = self.log;
        let closed = tokio::task::spawn_blocking(move || log.close()).await;
        closed.map_err(|error| ExitReason::Bug.because(format_args!("the log did not close: {error}")))?;
        let late = || ExitReason::Temporary.because("the drain deadline passed");
        result.and(if in_time { Ok(()) } else { Err(late()) })
    }
}

async fn open_log(config: &Config, ops: &Ops) -> Result<(LocalLog, stream::Metrics), Exit> {
    make_folder(&config.folder)?;
    let metrics = stream::Metrics::register(&ops.child("log")?.registry)?;
    let (settings, told) = (config.log(), metrics.clone());
    let opened = tokio::task::spawn_blocking(move || LocalLog::open(settings, told)).await;
    Ok((opened.map_err(|error| ExitReason::Bug.because(error))??, metrics))
}

/// The topics' retention, applied at the start and again and again.
fn start_tidying(log: &LocalLog, config: &Config, ops: &Ops) {
    let (log, pause, shutdown) = (log.clone(), config.tidy_pause(), ops.shutdown.clone());
    ops.tasks.spawn("log-retention", async move {
        let tidied = log.maintain_every(pause, &shutdown).await;
        tidied.map_err(|error| ExitReason::Bug.because(format_args!("retention: {error}")))
    });
}

fn start_server(listener: TcpListener, services: Services, config: &Config, ops: &Ops) -> TaskHandle {
    let (settings, shutdown) = (config.grpc().clone(), ops.shutdown.clone());
    ops.tasks.spawn("grpc", async move {
        let stop = async move { shutdown.requested().await };
        let served = serve(listener, services, &settings, stop).await;
        served.map_err(|error| ExitReason::Bug.because(format_args!("gRPC server: {error}")))
    })
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Exit> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        let next = "another process has it; name another, or port 0 for a free one";
        ExitReason::Unavailable.because(format_args!("{key} {address}: {error} ({next})"))
    })
}

fn make_folder(folder: &std::path::Path) -> Result<(), Exit> {
    let made = std::fs::create_dir_all(folder);
    made.map_err(|error| ExitReason::Unavailable.because(format_args!("{}: {error}", folder.display())))
}
