//! The server's limits are in force: each of these would pass on a server with tonic's own, open settings.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use ops::config::ByteSize;
use proto::server::{ServerSettings, Services, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const DEADLINE: Duration = Duration::from_secs(20);

/// A server that has nothing but its health, with these settings; it ends with the test's runtime.
async fn server(change: impl FnOnce(&mut ServerSettings)) -> (SocketAddr, oneshot::Sender<()>) {
    let mut settings = ServerSettings::defaults();
    change(&mut settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let tasks = ops::Tasks::new(ops::Shutdown::new(DEADLINE));
    tasks.spawn_finite("server", async move {
        let stop = async move { drop(stopped.await) };
        serve(listener, Services::new(), &settings, stop).await.unwrap();
    });
    (address, stop)
}

fn client(address: SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_one_closes() {
    let (address, _stop) = server(|settings| settings.connections_max = 1).await;
    let mut first = client(address);
    first.check(HealthCheckRequest::default()).await.unwrap();
    let mut second = client(address);
    let mut waiting = Box::pin(second.check(HealthCheckRequest::default()));
    // It has no answer while the first one is there, however often that asks.
    for _ in 0..20 {
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("answered beside another connection: {answer:?}"),
            answer = first.check(HealthCheckRequest::default()) => drop(answer.unwrap()),
        }
    }
    drop(first);
    let answer = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(answer.expect("it gets its turn").is_ok());
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let (address, _stop) = server(|settings| settings.header_bytes_max = ByteSize::new(2 * 1024)).await;
    let mut client = client(address);
    let mut ask = async |length: usize| {
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("x-long", "x".repeat(length).parse().unwrap());
        tokio::time::timeout(DEADLINE, client.check(request)).await.unwrap()
    };
    assert!(ask(1024).await.is_ok());
    assert!(ask(8 * 1024).await.is_err());
    assert!(ask(1024).await.is_ok(), "the connection, or the next one, goes on");
}
