//! Start, restart, neighbours, end.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use ops::{ExitReason, Ops};
use proto::v1;
use proto::v1::verdict_service_client::VerdictServiceClient;
use standalone::Standalone;
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, NewRecord, TopicPartition, Watermarks};

use crate::stage;

async fn stored(standalone: &Standalone, media_id: &str) -> v1::Verdict {
    let mut client = VerdictServiceClient::new(stage::channel(standalone).await);
    let by = Some(v1::get_verdict_request::By::MediaId(media_id.to_owned()));
    let deadline = tokio::time::Instant::now() + stage::DEADLINE;
    loop {
        match client.get_verdict(v1::GetVerdictRequest { by: by.clone() }).await {
            Ok(answer) => return answer.into_inner(),
            // The projector follows the topic by moments.
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => panic!("{status}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "no row for {media_id}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let first = stage::start(folder.path()).await;
    stage::submit(&first, "m-1", stage::face(255)).await;
    let verdict = stage::verdict(&first, "m-1").await;
    assert_eq!(verdict.outcome(), v1::Outcome::LikelyForged);
    first.stop().await.unwrap();

    let second = stage::start(folder.path()).await;
    assert_eq!(stored(&second, "m-1").await, verdict, "the same verdict, to the last field");
    // The picture is still there, too: a second media over the same object is judged.
    stage::submit(&second, "m-2", stage::face(0)).await;
    assert_eq!(stage::verdict(&second, "m-2").await.outcome(), v1::Outcome::LikelyAuthentic);
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_beyond_their_retention_go() {
    let folder = tempfile::tempdir().unwrap();
    stage::start(folder.path()).await.stop().await.unwrap();
    let old = TopicPartition::new("touchstone.media.bulk.v1", 0);
    let week_ago = stream::local::system_clock()() - 8 * 24 * 60 * 60 * 1_000;
    let settings =
        LocalConfig { clock: Arc::new(move || week_ago), ..LocalConfig::new(folder.path().join("log")) };
    let metrics = stream::Metrics::register(&prometheus::Registry::new()).unwrap();
    let log = LocalLog::open(settings, metrics).unwrap();
    let record = NewRecord::keyed(Arc::clone(&old.topic), "key", "not a reference").in_partition(0);
    log.append(vec![record]).await.unwrap();
    assert_eq!(log.watermarks(&old).await.unwrap(), Watermarks { low: 0, high: 1 });
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();

    let standalone = stage::start(folder.path()).await;
    let log = standalone.log();
    let gone = async { while log.watermarks(&old).await.unwrap().low == 0 {} };
    tokio::time::timeout(stage::DEADLINE, gone).await.expect("the log is tidied");
    standalone.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_in_one_process_and_know_nothing_of_each_other() {
    let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, other) = tokio::join!(stage::start(left.path()), stage::start(right.path()));
    assert_ne!(one.addresses().grpc, other.addresses().grpc);
    stage::submit(&one, "mine", stage::face(255)).await;
    stage::submit(&other, "theirs", stage::face(0)).await;
    assert_eq!(stage::verdict(&one, "mine").await.outcome(), v1::Outcome::LikelyForged);
    assert_eq!(stage::verdict(&other, "theirs").await.outcome(), v1::Outcome::LikelyAuthentic);
    let mut client = VerdictServiceClient::new(stage::channel(&other).await);
    let by = Some(v1::get_verdict_request::By::MediaId("mine".to_owned()));
    let absent = client.get_verdict(v1::GetVerdictRequest { by }).await.unwrap_err();
    assert_eq!(absent.code(), tonic::Code::NotFound);
    one.stop().await.unwrap();
    // The end of one is not the other's.
    stage::submit(&other, "later", stage::face(255)).await;
    assert_eq!(stage::verdict(&other, "later").await.outcome(), v1::Outcome::LikelyForged);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_belongs_to_one_standalone_and_its_keys_to_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let first = stage::start(folder.path()).await;
    let file = folder.path().join("connection.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let ops = Ops::new("test", Duration::from_secs(5)).unwrap();
    let refused =
        Standalone::start(stage::config(folder.path()), ops).await.err().expect("the folder is taken");
    assert!(refused.why.contains("in use"), "{refused}");
    assert_ne!(refused.reason, ExitReason::Bug);
    assert!(file.exists(), "the one that runs keeps its file");

    first.stop().await.unwrap();
    assert!(!file.exists(), "its ports are free for others now");
}
