//! The store's client against a store that misbehaves, one fault a test.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod store;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forensics::{Bucket, FailureClass, ObjectKey, ObjectRef};
use media::{Disposition, FetchError, ObjectStore, Stopwatch, SystemicCause};
use ops::metrics::Registry;

use store::{Answer, FaultStore};

const BODY: &[u8] = b"a picture's bytes, as far as the store is concerned";

fn bucket() -> Bucket {
    Bucket::parse("media").unwrap()
}

fn object(key: &str) -> ObjectRef {
    ObjectRef::newest(ObjectKey::parse(key).unwrap())
}

fn pinned(version: Option<&str>, etag: Option<&str>) -> ObjectRef {
    let key = ObjectKey::parse("f/1.jpg").unwrap();
    ObjectRef::pinned(key, version.map(str::to_owned), etag.map(str::to_owned)).unwrap()
}

async fn client(store: &FaultStore, adjust: impl FnOnce(&mut media::S3Config)) -> (ObjectStore, Registry) {
    let registry = Registry::new();
    let mut config = store.config();
    adjust(&mut config);
    (ObjectStore::connect(config, &registry).await.unwrap(), registry)
}

/// Fetches one object of a store that gives these answers, one after the other, the last for ever.
async fn fetch(answers: Vec<Answer>) -> (Result<media::FetchedObject, FetchError>, FaultStore) {
    let store = FaultStore::start(answers).await;
    let (client, _) = client(&store, |_| {}).await;
    (client.fetch(&bucket(), &object("f/1.jpg")).await, store)
}

fn disposition(result: &Result<media::FetchedObject, FetchError>) -> Disposition {
    result.as_ref().expect_err("the store misbehaves").disposition()
}

fn metric(registry: &Registry, line: &str) -> bool {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn an_object_comes_with_its_digest_and_pins() {
    let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    let (client, registry) = client(&store, |_| {}).await;
    let fetched = client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap();
    assert_eq!(fetched.bytes, BODY);
    assert_eq!(fetched.etag.as_deref(), Some("tag-1"));
    assert_eq!(fetched.version.as_deref(), Some("v1"));
    // printf '…' | sha256sum
    assert_eq!(
        hex::encode(fetched.sha256),
        "72496e76a98f0c40e2c5abb6db2956c4f8fadf81db80979c30a2b85fea5588d0"
    );
    assert!(metric(&registry, "touchstone_media_s3_requests_total{code=\"200\"} 1"));
    assert!(metric(&registry, &format!("touchstone_media_s3_bytes_total {}", BODY.len())));
    assert!(metric(&registry, &format!("touchstone_media_bytes_in_flight {}", BODY.len())));
    drop(fetched);
    assert!(metric(&registry, "touchstone_media_bytes_in_flight 0"));
}

#[tokio::test]
async fn a_burst_of_500_passes() {
    let store = FaultStore::start(vec![
        Answer::Error(500, "InternalError"),
        Answer::Error(503, "SlowDown"),
        Answer::Whole(BODY),
    ])
    .await;
    let (client, registry) = client(&store, |_| {}).await;
    assert_eq!(client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap().bytes, BODY);
    assert!(metric(&registry, "touchstone_media_retries_total{reason=\"server_error\"} 1"));
    assert!(metric(&registry, "touchstone_media_retries_total{reason=\"throttled\"} 1"));
}

#[tokio::test]
async fn what_does_not_pass_pauses() {
    for (status, code, cause) in
        [(500, "InternalError", SystemicCause::ServerError), (503, "SlowDown", SystemicCause::Throttled)]
    {
        let (result, store) = fetch(vec![Answer::Error(status, code)]).await;
        assert_eq!(disposition(&result), Disposition::Pause(cause));
        assert_eq!(store.requests(), 3, "three attempts, then no more");
    }
    for (status, code, cause) in [
        (400, "ExpiredToken", SystemicCause::Credentials),
        (403, "InvalidAccessKeyId", SystemicCause::Credentials),
        (403, "SignatureDoesNotMatch", SystemicCause::Credentials),
        (403, "RequestTimeTooSkewed", SystemicCause::Clock),
    ] {
        let (result, store) = fetch(vec![Answer::Error(status, code)]).await;
        assert_eq!(disposition(&result), Disposition::Pause(cause), "{code}");
        assert_eq!(store.requests(), 1, "{code}: asking again with the same credentials helps nobody");
    }
}

#[tokio::test]
async fn what_concerns_one_object_rejects_it_at_once() {
    for (status, code, class) in [
        (404, "NoSuchKey", FailureClass::ObjectNotFound),
        (404, "NoSuchBucket", FailureClass::ObjectNotFound),
        (403, "AccessDenied", FailureClass::AccessDenied),
        (412, "PreconditionFailed", FailureClass::ChangedWhileReading),
    ] {
        let (result, store) = fetch(vec![Answer::Error(status, code)]).await;
        assert_eq!(disposition(&result), Disposition::Reject(class), "{code}");
        assert_eq!(store.requests(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_is_read_again() {
    let (result, store) =
        fetch(vec![Answer::Reset { declared: 100_000, sent: 40_000 }, Answer::Whole(BODY)]).await;
    assert_eq!(result.unwrap().bytes, BODY);
    assert_eq!(store.requests(), 2);
}

#[tokio::test]
async fn a_body_that_always_ends_early_is_truncated_and_once_is_not() {
    let (result, _store) =
        fetch(vec![Answer::Short { declared: 1_000, sent: 999 }, Answer::Whole(BODY)]).await;
    assert_eq!(result.unwrap().bytes, BODY);
    let (result, store) = fetch(vec![Answer::Short { declared: 1_000, sent: 999 }]).await;
    assert_eq!(disposition(&result), Disposition::Reject(FailureClass::Truncated));
    assert_eq!(store.requests(), 3);
    // With a spent budget nobody knows whether it is the file or the network.
    let store = FaultStore::start(vec![Answer::Short { declared: 1_000, sent: 999 }]).await;
    let (client, _) = client(&store, |config| config.retry_reserve = 0).await;
    let result = client.fetch(&bucket(), &object("f/1.jpg")).await;
    assert_eq!(disposition(&result), Disposition::Pause(SystemicCause::Unreachable));
}

#[tokio::test]
async fn zero_bytes_are_truncated() {
    let (result, store) = fetch(vec![Answer::Whole(b"")]).await;
    assert_eq!(disposition(&result), Disposition::Reject(FailureClass::Truncated));
    assert_eq!(store.requests(), 1);
    let (result, _store) = fetch(vec![Answer::Endless { chunks: 0 }]).await;
    assert_eq!(disposition(&result), Disposition::Reject(FailureClass::Truncated));
}

#[tokio::test]
async fn too_large_is_known_from_the_header() {
    let (result, store) = fetch(vec![Answer::Short { declared: 1 << 40, sent: 0 }]).await;
    assert_eq!(disposition(&result), Disposition::Reject(FailureClass::TooLarge));
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn an_endless_body_stops_at_the_limit() {
    let store = FaultStore::start(vec![Answer::Endless { chunks: usize::MAX }]).await;
    let (client, registry) = client(&store, |_| {}).await;
    let result = client.fetch(&bucket(), &object("f/1.jpg")).await;
    assert_eq!(disposition(&result), Disposition::Reject(FailureClass::TooLarge));
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let read = text.lines().find_map(|line| line.strip_prefix("touchstone_media_s3_bytes_total "));
    let read: usize = read.unwrap().parse().unwrap();
    assert!(read < 2 * store.config().object_bytes_max, "{read} bytes were read");
}

#[tokio::test]
async fn another_tag_or_version_than_the_pinned_one_is_refused() {
    for (object, request) in [
        (pinned(None, Some("tag-1")), "if-match: \"tag-1\""),
        (pinned(None, Some("\"tag-1\"")), "if-match: \"tag-1\""),
        (pinned(Some("v1"), None), "versionId=v1"),
    ] {
        let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
        let (client, _) = client(&store, |_| {}).await;
        assert_eq!(client.fetch(&bucket(), &object).await.unwrap().bytes, BODY);
        assert!(store.saw(request), "{request} was not sent");
    }
    // This store ignores what it is asked for.
    for object in [pinned(None, Some("tag-2")), pinned(Some("v2"), None)] {
        let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
        let (client, _) = client(&store, |_| {}).await;
        let result = client.fetch(&bucket(), &object).await;
        assert_eq!(disposition(&result), Disposition::Reject(FailureClass::ChangedWhileReading));
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    for to in ["http://169.254.169.254/latest/meta-data/".to_owned(), elsewhere.url()] {
        for status in [301, 302, 307, 308] {
            let (result, store) = fetch(vec![Answer::Redirect(status, to.clone())]).await;
            assert_eq!(disposition(&result), Disposition::Reject(FailureClass::AccessDenied), "{status}");
            assert_eq!(store.requests(), 1);
        }
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_slow_store_is_given_up_in_time_and_tried_again() {
    let started = Instant::now();
    let (result, store) = fetch(vec![Answer::Silent, Answer::Whole(BODY)]).await;
    assert_eq!(result.unwrap().bytes, BODY, "the second attempt is quick");
    assert_eq!(store.requests(), 2);
    // A head in time, then a body that never moves.
    let (result, _store) = fetch(vec![Answer::Stalled]).await;
    assert_eq!(disposition(&result), Disposition::Retry);
    let (result, store) = fetch(vec![Answer::Silent]).await;
    assert_eq!(disposition(&result), Disposition::Retry);
    assert!(result.unwrap_err().detail().contains(&store.url()), "the store is named");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_store_that_is_not_there_pauses() {
    let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    let config = store.config();
    drop(store);
    let client = ObjectStore::connect(config.clone(), &Registry::new()).await.unwrap();
    let error = client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Pause(SystemicCause::Unreachable));
    let probe = client.probe(&bucket()).await.unwrap_err();
    assert_eq!(probe.disposition(), Disposition::Pause(SystemicCause::Unreachable));
    assert!(probe.to_string().contains(config.endpoint.as_deref().unwrap()), "{probe}");
}

#[tokio::test]
async fn the_budget_bounds_what_failing_objects_add() {
    let store = FaultStore::start(vec![Answer::Error(500, "InternalError")]).await;
    let (client, _) = client(&store, |config| {
        config.retry_reserve = 5;
        config.retry_ratio = 0.1;
    })
    .await;
    for _ in 0..100 {
        let result = client.fetch(&bucket(), &object("f/1.jpg")).await;
        assert_eq!(disposition(&result), Disposition::Pause(SystemicCause::ServerError));
    }
    let extra = store.requests() - 100;
    assert!((5..=15).contains(&extra), "{extra} retries for 100 objects");
}

#[tokio::test]
async fn bytes_in_flight_wait_for_room() {
    let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    let (client, _) = client(&store, |config| {
        config.object_bytes_max = BODY.len() + 10;
        config.bytes_in_flight_max = 2 * BODY.len();
    })
    .await;
    let first = client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap();
    let second = client.fetch(&bucket(), &object("f/2.jpg")).await.unwrap();
    let (bucket, third_key) = (bucket(), object("f/3.jpg"));
    let third = client.fetch(&bucket, &third_key);
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
    assert!(early.is_err(), "there is no room for a third");
    // A clone keeps the room.
    let kept = second.bytes.clone();
    drop(second);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut third).await;
    assert!(early.is_err(), "the bytes are still held");
    drop(kept);
    assert_eq!(third.await.unwrap().bytes, BODY);
    drop(first);
}

#[tokio::test]
async fn waiting_for_room_with_us_is_not_the_stores_slowness() {
    let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    let configure = |config: &mut media::S3Config| {
        config.operation_timeout = Duration::from_millis(300);
        (config.object_bytes_max, config.bytes_in_flight_max) = (BODY.len(), BODY.len());
        config.connections_max = 2;
    };
    let (client, _) = client(&store, configure).await;
    let first = client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap();
    let watch = Stopwatch::new();
    // The second waits for the bytes of the first, the third for the place that the second takes up.
    let others = (0..3).map(|_| {
        let client = client.timed_by(&watch);
        async move { client.fetch(&bucket(), &object("f/2.jpg")).await.map(|fetched| fetched.sha256) }
    });
    let mut others = futures::future::join_all(others);
    let early = tokio::time::timeout(Duration::from_millis(900), &mut others).await;
    assert!(early.is_err(), "nobody is given up: {early:?}");
    assert!(!watch.is_running() && watch.time() < Duration::from_millis(300), "{watch:?}");
    drop(first);
    for fetched in others.await {
        assert!(fetched.is_ok());
    }
}

#[tokio::test]
async fn a_prefix_is_listed_in_natural_order_page_by_page() {
    let keys = ["f/", "f/10.jpg", "f/1.jpg", "f/2.jpg", "f/sub/", "f/sub/9.jpg"];
    let store =
        FaultStore::start(vec![Answer::Pages { keys: keys.map(str::to_owned).to_vec(), per_page: 2 }]).await;
    let (client, _) = client(&store, |_| {}).await;
    let listed = client.list(&bucket(), "f/").await.unwrap();
    let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(names, ["f/1.jpg", "f/2.jpg", "f/10.jpg", "f/sub/9.jpg"]);
    let first = listed[0].object.as_ref().unwrap();
    assert_eq!(first.etag.as_deref(), Some("tag-f/1.jpg"), "pinned as listed");
    assert_eq!(store.requests(), 3);
}

#[tokio::test]
async fn an_object_that_cannot_be_referenced_stands_among_the_others() {
    let keys = ["f/1.jpg", "f/2/../3.jpg", "f/with blank", "f/10.jpg"];
    let store =
        FaultStore::start(vec![Answer::Pages { keys: keys.map(str::to_owned).to_vec(), per_page: 2 }]).await;
    let (client, _) = client(&store, |_| {}).await;
    let listed = client.list(&bucket(), "f/").await.unwrap();
    let found: Vec<_> = listed.iter().map(|listed| (&*listed.key, listed.object.is_ok())).collect();
    let expected = [("f/1.jpg", true), ("f/2/../3.jpg", false), ("f/10.jpg", true), ("f/with blank", false)];
    assert_eq!(found, expected, "the last one's tag, which is its name, has a blank");
    assert_eq!(listed[1].object.as_ref().unwrap_err().field, "source.key");
    assert_eq!(listed[3].object.as_ref().unwrap_err().field, "source.etag");
}

#[tokio::test]
async fn an_empty_prefix_is_not_found_and_a_huge_one_refused() {
    let store = FaultStore::start(vec![Answer::Pages { keys: vec!["f/".to_owned()], per_page: 10 }]).await;
    let (client_, _) = client(&store, |_| {}).await;
    let error = client_.list(&bucket(), "f/").await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Reject(FailureClass::ObjectNotFound));

    let keys = (0..1_000).map(|index| format!("f/{index}")).collect();
    let store = FaultStore::start(vec![Answer::Pages { keys, per_page: 10 }]).await;
    let (client, _) = client(&store, |config| config.prefix_objects_max = 25).await;
    let error = client.list(&bucket(), "f/").await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Reject(FailureClass::TooLarge));
    assert_eq!(store.requests(), 3, "it stops reading pages");
}

#[tokio::test]
async fn logs_hash_keys_and_details_name_them() {
    let (result, _store) = fetch(vec![Answer::Error(404, "NoSuchKey")]).await;
    let error = result.unwrap_err();
    for shown in [error.to_string(), format!("{error:?}")] {
        assert!(!shown.contains("f/1.jpg"), "{shown}");
        assert!(shown.contains(&ops::log_key("f/1.jpg")), "{shown}");
    }
    assert!(error.detail().starts_with("s3://media/f/1.jpg does not exist"), "{}", error.detail());
}

#[tokio::test]
async fn the_owner_of_the_bucket_is_asked_for_on_every_request() {
    let store = FaultStore::start(vec![Answer::Whole(BODY)]).await;
    let (client, _) =
        client(&store, |config| config.expected_bucket_owner = Some("123456789012".to_owned())).await;
    client.fetch(&bucket(), &object("f/1.jpg")).await.unwrap();
    assert!(store.saw("x-amz-expected-bucket-owner: 123456789012"));
    assert!(store.saw("authorization: AWS4-HMAC-SHA256"));
}

#[tokio::test]
async fn uploads_are_signed_over_their_bytes_and_retried() {
    let store = FaultStore::start(vec![Answer::Error(500, "InternalError"), Answer::Whole(b"")]).await;
    let (client, _) = client(&store, |_| {}).await;
    let key = ObjectKey::parse("up/a.jpg").unwrap();
    let info = client.put(&bucket(), &key, Bytes::from_static(BODY), "image/jpeg").await.unwrap();
    assert_eq!((info.length_bytes, info.etag.as_deref()), (BODY.len() as u64, Some("tag-1")));
    assert_eq!(store.bodies().last().map(Vec::as_slice), Some(BODY));
    assert!(
        store.saw("x-amz-content-sha256: 72496e76a98f0c40e2c5abb6db2956c4f8fadf81db80979c30a2b85fea5588d0")
    );
    assert!(store.saw("content-type: image/jpeg"));
}

#[tokio::test]
async fn a_large_file_goes_up_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bin");
    let bytes: Vec<u8> = (0..17_000_000u32).map(|index| (index % 251) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let store = FaultStore::start(vec![Answer::Multipart]).await;
    let (client, _) = client(&store, |_| {}).await;
    let key = ObjectKey::parse("up/large.bin").unwrap();
    let heard = std::sync::Mutex::new(Vec::new());
    let progress = |sent| heard.lock().unwrap().push(sent);
    let info = client.put_file(&bucket(), &key, &path, "video/mp4", progress).await.unwrap();
    assert_eq!(info.length_bytes, 17_000_000);
    assert_eq!(*heard.lock().unwrap(), [8 << 20, 16 << 20, 17_000_000]);
    let sent: Vec<u8> = store.bodies().into_iter().filter(|body| body.len() > 10_000).flatten().collect();
    assert!(sent == bytes, "the parts are the file");

    let missing = client.put_file(&bucket(), &key, &folder.path().join("none"), "x/y", |_| {}).await;
    assert!(missing.unwrap_err().to_string().contains("none"));
}
