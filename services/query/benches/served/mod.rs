//! Query as its process runs it, over a log: projector, store, gRPC. What the benches fill and ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ops::Ops;
use query::{Config, Query, RawConfig};
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{Log, TopicPartition, TopicPolicy, TopicSpec};
use tokio::net::TcpListener;
use tonic::transport::Channel;

pub(crate) const PARTITIONS: i32 = 4;

pub(crate) struct Served {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) query: Query,
    pub(crate) config: Config,
    pub(crate) ops: Ops,
}

impl Served {
    /// Over `log`, whose topics are made, with the store that this variable names, such as `("FILE", "store.db")`.
    pub(crate) async fn open(log: Arc<dyn Log>, ops: Ops, store: (&str, &str)) -> Self {
        let config = config(store);
        create_topics(&*log, &config).await;
        let query = Query::open(&config, Arc::clone(&log), &ops).await.expect("the store is ours");
        Self { log, query, config, ops }
    }

    /// Waits until the store has every verdict.
    pub(crate) async fn projected(&self) {
        let mut ends = BTreeMap::new();
        for partition in partitions(&self.config.topics.verdicts) {
            ends.insert(partition.partition, self.log.watermarks(&partition).await.expect("an answer").high);
        }
        let mut projected = self.query.projected();
        let all = projected.wait_for(|seen| ends.iter().all(|(at, end)| seen.get(at) >= Some(end)));
        drop(all.await.expect("the projector lives"));
    }

    /// Answers from here on; a connection to it.
    pub(crate) async fn channel(&self) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut services = proto::server::Services::new();
        self.query.add_to(&mut services);
        let (grpc, stop) = (self.config.grpc.clone(), self.ops.shutdown.clone());
        self.ops.tasks.spawn("grpc", async move {
            let served =
                proto::server::serve(listener, services, &grpc, async move { stop.requested().await });
            served.await.map_err(|error| ops::ExitReason::Bug.because(error))
        });
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect().await;
        channel.expect("it answers")
    }
}

/// What a process has beside its rooms, with nothing registered yet.
pub(crate) fn ops() -> Ops {
    Ops::new("bench", Duration::from_secs(5)).expect("a fresh registry")
}

/// The embedded log in this folder, as benches want it: a crash of the machine would cost the bench, no more.
pub(crate) fn local(folder: &Path, ops: &Ops) -> Arc<dyn Log> {
    let mut local = LocalConfig::new(folder.join("log"));
    local.synchronous = Synchronous::Normal;
    let metrics = stream::Metrics::register(&ops.registry).expect("registered once");
    Arc::new(LocalLog::open(local, metrics).expect("the folder is ours"))
}

pub(crate) fn partitions(topic: &str) -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect()
}

/// The defaults, and a store.
pub(crate) fn config((key, value): (&str, &str)) -> Config {
    let store = (format!("B__QUERY__STORE__{key}"), value.to_owned());
    let defaults = format!("{}{}", query::DEFAULTS, proto::server::DEFAULTS);
    let raw: RawConfig = ops::config::load(&defaults, None, "B", std::iter::once(store)).expect("defaults");
    raw.check().expect("the defaults are valid")
}

pub(crate) async fn create_topics(log: &dyn Log, config: &Config) {
    let spec = |name: &str| TopicSpec {
        name: name.into(),
        partitions: PARTITIONS,
        policy: TopicPolicy::delete_after(Duration::from_hours(24)),
    };
    log.create_topics(&config.topics.all().map(spec)).await.expect("topics can be made");
}
