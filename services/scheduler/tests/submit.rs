//! The front door over gRPC, as callers meet it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::Ops;
use prost::Message;
use proto::v1::media_service_client::MediaServiceClient;
use proto::v1::{self, submit_result};
use scheduler::{Config, RawConfig, Scheduler};
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{Log, ReadEnd, Record, TopicPartition, TopicPolicy, TopicSpec};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

struct Door {
    folder: tempfile::TempDir,
    log: LocalLog,
    config: Config,
    ops: Ops,
    client: MediaServiceClient<Channel>,
}

impl Door {
    async fn open() -> Self {
        Self::with(None).await
    }

    async fn with(bytes_max: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalConfig {
            synchronous: Synchronous::Normal,
            bytes_max,
            ..LocalConfig::new(folder.path().join("log"))
        };
        let metrics = stream::Metrics::register(&ops::metrics::Registry::new()).unwrap();
        let log = LocalLog::open(local, metrics).unwrap();
        let text = format!("{}{}", scheduler::DEFAULTS, proto::server::DEFAULTS);
        let mut raw: RawConfig = ops::config::load(&text, None, "", std::iter::empty()).unwrap();
        for (tenant, buckets) in [("*", "samples"), ("acme", "acme-media/clips")] {
            raw.buckets.insert(tenant.to_owned(), vec![buckets.to_owned()]);
        }
        let config = raw.check().unwrap();
        let spec = |name: &str| TopicSpec {
            name: name.into(),
            partitions: 2,
            policy: TopicPolicy::delete_after(Duration::from_secs(86_400)),
        };
        log.create_topics(&config.topics.all_media().map(spec)).await.unwrap();
        Self::on(folder, log, config).await
    }

    async fn on(folder: tempfile::TempDir, log: LocalLog, config: Config) -> Self {
        let ops = Ops::new("test", Duration::from_secs(5)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheduler = Scheduler::open(&config, Arc::new(log.clone()), &ops).await.unwrap();
        let mut services = proto::server::Services::new();
        scheduler.add_to(&mut services);
        let (grpc, stop) = (config.grpc.clone(), ops.shutdown.clone());
        ops.tasks.spawn("grpc", async move {
            proto::server::serve(listener, services, &grpc, async move { stop.requested().await })
                .await
                .unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { folder, log, config, ops, client: MediaServiceClient::new(channel) }
    }

    async fn restart(self) -> Self {
        self.ops.shutdown.request();
        let Self { folder, log, config, ops, .. } = self;
        ops.tasks.join(tokio::time::Instant::now() + Duration::from_secs(20)).await.unwrap();
        Self::on(folder, log, config).await
    }

    async fn submit(
        &self,
        tenant: &str,
        media: v1::MediaReference,
    ) -> Result<v1::InputPosition, tonic::Status> {
        let request = of(tenant, v1::SubmitMediaRequest { media: Some(media) });
        let response = self.client.clone().submit_media(request).await?;
        Ok(response.into_inner().position.unwrap())
    }

    async fn batch(&self, media: Vec<v1::MediaReference>) -> Vec<submit_result::Result> {
        let request = of("default", v1::BatchSubmitMediaRequest { media });
        let response = self.client.clone().batch_submit_media(request).await.unwrap();
        response.into_inner().results.into_iter().map(|result| result.result.unwrap()).collect()
    }

    /// All records of all lanes.
    async fn records(&self) -> Vec<Record> {
        let topics = self.config.topics.all_media().into_iter();
        let from = topics.flat_map(|topic| (0..2).map(move |p| (TopicPartition::new(topic, p), 0)));
        let mut reader = self.log.read(from.collect(), ReadEnd::Watermark).await.unwrap();
        let mut records = vec![];
        while let Some(batch) = reader.next().await.unwrap() {
            records.extend(batch.records);
        }
        records
    }
}

fn of<T>(tenant: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(proto::TENANT_METADATA, tenant.parse().unwrap());
    request
}

fn image(bucket: &str, key: &str) -> v1::MediaReference {
    v1::MediaReference {
        media_id: "clip".to_owned(),
        source: Some(v1::media_reference::Source::Image(v1::ImageSource {
            bucket: bucket.to_owned(),
            object: Some(v1::ObjectRef { key: key.to_owned(), ..Default::default() }),
        })),
        ..Default::default()
    }
}

fn asked(request_id: &str, media_id: &str) -> v1::MediaReference {
    v1::MediaReference {
        request_id: request_id.to_owned(),
        media_id: media_id.to_owned(),
        ..image("samples", "a.jpg")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_means_that_the_log_has_it_in_the_lanes_topic() {
    let door = Door::open().await;
    let lanes = [v1::Lane::Live, v1::Lane::Unspecified, v1::Lane::Bulk];
    for (lane, topic) in lanes.into_iter().zip(door.config.topics.all_media()) {
        let media = v1::MediaReference { lane: lane.into(), ..image("acme-media", "clips/a.jpg") };
        let position = door.submit("acme", media).await.unwrap();
        let records = door.records().await;
        let record = records
            .iter()
            .find(|record| *record.position.topic == *topic && record.position.offset == position.offset);
        let record = record.expect("the log has it");
        assert_eq!((position.topic.as_str(), position.partition), (topic, record.position.partition));
        assert_eq!(record.key.as_deref(), Some(&b"acme|clip"[..]));
        assert_eq!(record.header("content-type").map(|v| &v[..]), Some(proto::topics::PROTOBUF.as_bytes()));
        let value = v1::MediaReference::decode(record.value.clone().unwrap()).unwrap();
        assert_eq!(value.tenant, "acme");
        assert!(value.submitted_at.is_some(), "set at the door");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_and_leaves_nothing_behind() {
    let door = Door::open().await;
    let invalid = door.submit("acme", image("samples", "../secrets")).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert_eq!(invalid.get_details_bad_request().unwrap().field_violations[0].field, "source.key");

    for (tenant, bucket, key) in [
        ("acme", "acme-media", "elsewhere/a.jpg"),
        ("default", "acme-media", "clips/a.jpg"),
        ("acme", "other", "a"),
    ] {
        let denied = door.submit(tenant, image(bucket, key)).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{tenant} {bucket} {key}");
        assert_eq!(denied.get_details_error_info().unwrap().reason, "BUCKET_NOT_ALLOWED");
    }
    let foreign = v1::MediaReference { tenant: "acme".to_owned(), ..image("samples", "a.jpg") };
    let denied = door.submit("default", foreign).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(denied.get_details_error_info().unwrap().reason, "FOREIGN_TENANT");
    assert_eq!(door.records().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_gets_the_same_answer_also_after_a_restart() {
    let door = Door::open().await;
    let first = door.submit("default", asked("r-1", "clip")).await.unwrap();
    assert_eq!(door.submit("default", asked("r-1", "clip")).await.unwrap(), first);
    let other = door.submit("default", asked("r-1", "another")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    let elsewhere = door.submit("acme", asked("r-1", "another")).await.unwrap();
    assert_ne!(elsewhere, first, "ids are a tenant's own");

    let door = door.restart().await;
    assert_eq!(door.submit("default", asked("r-1", "clip")).await.unwrap(), first);
    let other = door.submit("default", asked("r-1", "another")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(door.records().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_request_id_are_one_record() {
    let door = Door::open().await;
    let all = futures::future::join_all((0..24).map(|_| door.submit("default", asked("r", "clip")))).await;
    let first = all[0].clone().unwrap();
    assert!(all.into_iter().all(|answer| answer.unwrap() == first));
    assert_eq!(door.records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_accepted_or_refused_one_by_one() {
    let door = Door::open().await;
    let media = vec![
        asked("a", "m-1"),
        image("forbidden", "a.jpg"),
        asked("a", "m-1"),
        asked("a", "m-2"),
        v1::MediaReference { media_id: String::new(), ..image("samples", "a.jpg") },
        asked("", "m-3"),
    ];
    use submit_result::Result::{Position, Refusal};
    let results = door.batch(media).await;
    let [Position(first), Refusal(bucket), Position(same), Refusal(other), Refusal(invalid), Position(last)] =
        &results[..]
    else {
        panic!("{results:?}");
    };
    assert_eq!(first, same);
    assert_ne!(first, last);
    assert_eq!((bucket.code, bucket.field.as_str()), (Code::PermissionDenied as i32, "source.bucket"));
    assert_eq!((other.code, other.field.as_str()), (Code::AlreadyExists as i32, "request_id"));
    assert_eq!((invalid.code, invalid.field.as_str()), (Code::InvalidArgument as i32, "media_id"));
    assert_eq!(door.records().await.len(), 2);
    assert_eq!(door.batch(vec![]).await, []);
    let request = v1::BatchSubmitMediaRequest { media: vec![asked("", "m"); 1_001] };
    let refused = door.client.clone().batch_submit_media(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_full_answers_at_once_and_says_where_to_make_space() {
    let door = Door::with(Some(1 << 20)).await;
    let large = |n: usize| {
        let labels = (0..30).map(|k| (format!("label-{k}"), "x".repeat(250))).collect();
        v1::MediaReference { media_id: format!("m-{n}"), labels, ..image("samples", "a.jpg") }
    };
    let mut accepted = 0;
    let refused = loop {
        match door.submit("default", large(accepted)).await {
            Ok(_) => accepted += 1,
            Err(status) => break status,
        }
        assert!(accepted < 1_000, "1 MiB is full by now");
    };
    for status in [refused, door.submit("default", large(0)).await.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
        assert!(status.message().contains(&door.folder.path().join("log").display().to_string()), "{status}");
    }
    let began = Instant::now();
    door.submit("default", asked("r", "clip")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(door.ops.readiness.obstacles().iter().any(|(gate, _)| gate == "front-door"));
    assert_eq!(door.records().await.len(), accepted, "what was acknowledged is there, and nothing else");
}
