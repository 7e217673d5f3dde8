//! Query on a port of its own over the embedded log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use forensics::VerdictId;
use ops::Ops;
use prost::Message;
use proto::v1;
use proto::v1::audit_service_client::AuditServiceClient;
use proto::v1::verdict_service_client::VerdictServiceClient;
use query::store::{SqliteConfig, StoreConfig};
use query::{Config, Query, RawConfig};
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{Log, NewRecord, TopicPartition, TopicPolicy, TopicSpec};
use tokio::net::TcpListener;
use tonic::Request;
use tonic::transport::Channel;

pub(crate) struct Service {
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) log: LocalLog,
    pub(crate) config: Config,
    pub(crate) ops: Ops,
    pub(crate) channel: Channel,
    projected: tokio::sync::watch::Receiver<query::Projected>,
}

pub(crate) fn sqlite(file: PathBuf) -> StoreConfig {
    StoreConfig::Sqlite(SqliteConfig { file, readers: 2, waiting_max: 64 })
}

pub(crate) fn config(folder: &tempfile::TempDir) -> Config {
    let text = format!("{}{}", query::DEFAULTS, proto::server::DEFAULTS);
    let mut raw: RawConfig = ops::config::load(&text, None, "", std::iter::empty()).unwrap();
    raw.query.store.file = folder.path().join("store.db");
    raw.check().unwrap()
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let ops = Ops::new("test", Duration::from_secs(5)).unwrap();
        let mut local = LocalConfig::new(folder.path().join("log"));
        local.synchronous = Synchronous::Normal;
        let log = LocalLog::open(local, stream::Metrics::register(&ops.registry).unwrap()).unwrap();
        let mut config = config(&folder);
        change(&mut config);
        let topics = config.topics.clone();
        let spec = |name: &str| TopicSpec {
            name: name.into(),
            partitions: 2,
            policy: TopicPolicy::delete_after(Duration::from_secs(86_400)),
        };
        let names = topics.all_media().into_iter().chain([&*topics.verdicts, &*topics.dead_letters]);
        log.create_topics(&names.map(spec).collect::<Vec<_>>()).await.unwrap();
        Self::on(folder, log, config, ops).await
    }

    /// The same log and store, a new process as it were.
    pub(crate) async fn restart(self, change: impl FnOnce(&mut Config)) -> Self {
        self.ops.shutdown.request();
        let Self { folder, log, mut config, ops, .. } = self;
        ops.tasks.join(tokio::time::Instant::now() + Duration::from_secs(20)).await.unwrap();
        change(&mut config);
        Self::on(folder, log, config, Ops::new("test", Duration::from_secs(5)).unwrap()).await
    }

    /// Another process on the same log and store, as it were.
    pub(crate) async fn replica(&self) -> Self {
        let ops = Ops::new("test", Duration::from_secs(5)).unwrap();
        Self::on(Arc::clone(&self.folder), self.log.clone(), self.config.clone(), ops).await
    }

    async fn on(folder: Arc<tempfile::TempDir>, log: LocalLog, config: Config, ops: Ops) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let query = Query::open(&config, Arc::new(log.clone()), &ops).await.unwrap();
        let projected = query.projected();
        let mut services = proto::server::Services::new();
        query.add_to(&mut services);
        drop(query);
        let (grpc, stop) = (config.grpc.clone(), ops.shutdown.clone());
        ops.tasks.spawn("grpc", async move {
            proto::server::serve(listener, services, &grpc, async move { stop.requested().await })
                .await
                .unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { folder, log, config, ops, channel, projected }
    }

    pub(crate) fn verdicts(&self) -> VerdictServiceClient<Channel> {
        VerdictServiceClient::new(self.channel.clone())
    }

    pub(crate) fn audits(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn publish(&self, verdicts: &[v1::Verdict]) {
        let records = verdicts.iter().map(|verdict| {
            let key = proto::topics::key(&verdict.tenant, &verdict.media_id);
            NewRecord::keyed(self.config.topics.verdicts.as_str(), key, verdict.encode_to_vec())
        });
        self.log.append(records.collect()).await.unwrap();
    }

    pub(crate) async fn publish_bytes(&self, value: &'static [u8]) {
        let topic = self.config.topics.verdicts.as_str();
        self.log.append(vec![NewRecord::keyed(topic, "k", Bytes::from_static(value))]).await.unwrap();
    }

    /// Waits until the store has all that is on the topic.
    pub(crate) async fn projected(&mut self) {
        let mut highs = vec![];
        for partition in 0..2 {
            let tp = TopicPartition::new(self.config.topics.verdicts.as_str(), partition);
            highs.push((partition, self.log.watermarks(&tp).await.unwrap().high));
        }
        let caught_up = self.projected.wait_for(|seen| {
            highs.iter().all(|(partition, high)| *high == 0 || seen.get(partition) >= Some(high))
        });
        tokio::time::timeout(Duration::from_secs(20), caught_up).await.unwrap().unwrap();
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.ops.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| family.get_metric().iter().map(|m| m.get_counter().get_value()).sum())
    }
}

/// A verdict; `n` makes its id and its time.
pub(crate) fn verdict(tenant: &str, media_id: &str, n: u64) -> v1::Verdict {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    v1::Verdict {
        verdict_id: VerdictId::from_bytes(id).to_string(),
        tenant: tenant.to_owned(),
        media_id: media_id.to_owned(),
        outcome: 1 + (n % 5) as i32,
        probability: Some((n % 10) as f32 / 10.0),
        model: Some(v1::ModelIdentity { name: "two-stream".to_owned(), ..Default::default() }),
        created_at: Some((UNIX_EPOCH + Duration::from_secs(1_795_485_600 + n)).into()),
        ..Default::default()
    }
}

/// The request as this tenant's.
pub(crate) fn of<T>(tenant: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(proto::TENANT_METADATA, tenant.parse().unwrap());
    request
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut pulse = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        pulse.tick().await;
    }
}
