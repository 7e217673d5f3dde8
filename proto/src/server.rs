//! The gRPC server that every service runs its handlers on: limits, health, reflection, an orderly end.

mod connections;
mod deadline;
mod settings;
mod tenant;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

pub use deadline::deadline_of;
pub use settings::{DEFAULTS, ServerSettings, defaults_on};
pub use tenant::tenant_of;

/// Bytes of one request, unless the method takes batches.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of one request with up to 1,000 references, and of one response: what tonic's clients accept by default.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The services of one server, and their health.
#[derive(Debug, Default)]
pub struct Services {
    routes: Routes,
    added: Vec<ServiceHealth>,
    health: HealthReporter,
}

impl Services {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service. It is SERVING from the start of the server to the start of its shutdown, unless the
    /// returned handle has said or says otherwise.
    pub fn add<S>(&mut self, service: S) -> ServiceHealth
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.routes = std::mem::take(&mut self.routes).add_service(service);
        let health = ServiceHealth {
            name: S::NAME,
            reporter: self.health.clone(),
            told: Arc::new(AtomicBool::new(false)),
        };
        self.added.push(health.clone());
        health
    }
}

/// Tells `grpc.health.v1` how one service fares.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    name: &'static str,
    reporter: HealthReporter,
    /// Its owner has said how it fares: the start of the server does not say otherwise.
    told: Arc<AtomicBool>,
}

impl ServiceHealth {
    /// SERVING or NOT_SERVING from now on.
    pub async fn set(&self, serving: bool) {
        self.told.store(true, Ordering::Relaxed);
        self.report(serving).await;
    }

    async fn report(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(self.name, status).await;
    }
}

/// Serves until `stop` resolves, then says NOT_SERVING, takes no new requests and finishes those under way.
///
/// Handlers of long streams must end them by themselves when the process stops; nothing here cuts them.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    settings: &ServerSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let Services { mut routes, mut added, health } = services;
    routes = routes.add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())));
    if settings.reflection {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(crate::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let known = "the builds made these descriptors";
        routes = routes.add_service(reflection().build_v1().expect(known));
        // Older clients ask for the alpha version only.
        routes = routes.add_service(reflection().build_v1alpha().expect(known));
    }
    added.push(ServiceHealth { name: "", reporter: health, told: Arc::default() });
    for service in added.iter().filter(|service| !service.told.load(Ordering::Relaxed)) {
        service.report(true).await;
    }
    let stop = async move {
        stop.await;
        for service in &added {
            service.report(false).await;
        }
    };
    settings
        .limits(Server::builder())
        .add_routes(routes.prepare())
        .serve_with_incoming_shutdown(connections::incoming(listener, settings.connections_max), stop)
        .await
}
