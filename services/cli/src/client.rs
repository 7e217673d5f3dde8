//! The services over gRPC: one connection, its keepalive, deadlines and tenant.

use std::time::Duration;

use proto::v1::audit_service_client::AuditServiceClient;
use proto::v1::media_service_client::MediaServiceClient;
use proto::v1::verdict_service_client::VerdictServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status as Answer};

use crate::failure::{Failure, Status};
use crate::settings::Connection;

/// A thousand verdicts of large media in one answer; the service sets its own, smaller bounds on requests. Chosen.
const ANSWER_BYTES_MAX: usize = 256 << 20;

type Door = InterceptedService<Channel, TenantStamp>;

/// The services, behind one address or two. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) media: MediaServiceClient<Door>,
    pub(crate) verdicts: VerdictServiceClient<Door>,
    pub(crate) audit: AuditServiceClient<Door>,
    call_deadline: Duration,
}

impl Client {
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let address = &connection.endpoint;
        if address.is_empty() {
            return Err(Failure::new(Status::Usage, "no service is named").next(
                "give --data DIR of a touchstone-standalone, or --endpoint URL (or set connection.endpoint)",
            ));
        }
        let tenant: MetadataValue<Ascii> = connection.tenant.parse().map_err(|_| {
            Failure::new(Status::Usage, format_args!("{:?} is not a tenant's name", connection.tenant))
        })?;
        let door = |channel| InterceptedService::new(channel, TenantStamp(tenant.clone()));
        let scheduler = endpoint(address, connection)?;
        let (scheduler, query) = if connection.query.is_empty() || connection.query == *address {
            let channel = open(address, &scheduler).await?;
            (channel.clone(), channel)
        } else {
            // Verdicts can be read while nobody takes media.
            let query = endpoint(&connection.query, connection)?;
            (scheduler.connect_lazy(), open(&connection.query, &query).await?)
        };
        let verdicts = VerdictServiceClient::new(door(query.clone()));
        Ok(Self {
            media: MediaServiceClient::new(door(scheduler)).max_decoding_message_size(ANSWER_BYTES_MAX),
            verdicts: verdicts.max_decoding_message_size(ANSWER_BYTES_MAX),
            audit: AuditServiceClient::new(door(query)).max_decoding_message_size(ANSWER_BYTES_MAX),
            call_deadline: connection.call_deadline.get(),
        })
    }

    /// A request with the deadline of a call; streams go without.
    pub(crate) fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_deadline);
        request
    }
}

fn endpoint(address: &str, connection: &Connection) -> Result<Endpoint, Failure> {
    if address.starts_with("https://") {
        let cause = format!("{address}: this build of touchstone has no TLS");
        return Err(Failure::new(Status::Usage, cause).next("use http:// through a tunnel or a sidecar"));
    }
    let wrong = |error| Failure::new(Status::Usage, format_args!("{address} is not an address: {error}"));
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(wrong)?;
    endpoint
        .connect_timeout(connection.connect_timeout.get())
        .http2_keep_alive_interval(connection.keepalive_interval.get())
        .keep_alive_timeout(connection.keepalive_timeout.get())
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .user_agent(concat!("touchstone/", env!("CARGO_PKG_VERSION")))
        .map_err(wrong)
}

async fn open(address: &str, endpoint: &Endpoint) -> Result<Channel, Failure> {
    endpoint.connect().await.map_err(|error| unreachable(address, &error))
}

fn unreachable(address: &str, error: &tonic::transport::Error) -> Failure {
    // The outermost text is only "transport error"; the innermost names the cause.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::new(Status::Unavailable, format_args!("{address} cannot be reached: {cause}"))
        .next("start one with `touchstone-standalone --data DIR` and name it with --data DIR, or give --endpoint URL")
}

/// Puts the tenant on every call.
#[derive(Clone)]
pub(crate) struct TenantStamp(MetadataValue<Ascii>);

impl Interceptor for TenantStamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Answer> {
        request.metadata_mut().insert(proto::TENANT_METADATA, self.0.clone());
        Ok(request)
    }
}
