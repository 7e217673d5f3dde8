//! The store's client against a store of others: versitygw, whose buckets are folders.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Builder, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use forensics::{Bucket, FailureClass, ObjectKey, ObjectRef};
use media::{Credentials, Disposition, FetchError, ObjectStore, S3Config, SystemicCause};
use ops::config::Secret;
use ops::metrics::Registry;
use testbed::{Signal, VersityGateway, until_async};

/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn bucket() -> Bucket {
    Bucket::parse("media").unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn newest(name: &str) -> ObjectRef {
    ObjectRef::newest(key(name))
}

fn pinned(name: &str, version: Option<&str>, etag: Option<&str>) -> ObjectRef {
    ObjectRef::pinned(key(name), version.map(str::to_owned), etag.map(str::to_owned)).unwrap()
}

/// As a deployment would have it, but less patient.
fn config(gateway: &VersityGateway, access_key: &str, secret_key: &str) -> S3Config {
    S3Config {
        endpoint: Some(gateway.endpoint()),
        region: "us-east-1".to_owned(),
        path_style: true,
        credentials: Credentials::Keys {
            access_key_id: access_key.to_owned(),
            secret_access_key: Secret::new(secret_key),
            session_token: None,
        },
        expected_bucket_owner: None,
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(20),
        stall_timeout: Duration::from_secs(2),
        connections_max: 8,
        object_bytes_max: 1 << 20,
        bytes_in_flight_max: 4 << 20,
        attempts_max: 3,
        retry_ratio: 0.1,
        retry_reserve: 10,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        prefix_objects_max: 20_000,
    }
}

async fn client(gateway: &VersityGateway) -> ObjectStore {
    let config = config(gateway, VersityGateway::ACCESS_KEY, VersityGateway::SECRET_KEY);
    ObjectStore::connect(config, &Registry::new()).await.unwrap()
}

/// With the bucket `media`.
async fn start() -> (VersityGateway, ObjectStore) {
    let gateway = VersityGateway::start().unwrap();
    fs::create_dir(gateway.buckets().join("media")).unwrap();
    let client = client(&gateway).await;
    (gateway, client)
}

/// What administrators do; our client cannot.
fn administrator(gateway: &VersityGateway) -> aws_sdk_s3::Client {
    let keys = (VersityGateway::ACCESS_KEY, VersityGateway::SECRET_KEY);
    let keys = aws_sdk_s3::config::Credentials::new(keys.0, keys.1, None, None, "test");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(gateway.endpoint())
        .force_path_style(true)
        .credentials_provider(keys)
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    aws_sdk_s3::Client::from_conf(config.build())
}

async fn keep_versions(gateway: &VersityGateway) {
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let request = administrator(gateway).put_bucket_versioning().bucket("media");
    request.versioning_configuration(on).send().await.unwrap();
}

fn rejected(error: &FetchError) -> FailureClass {
    match error.disposition() {
        Disposition::Reject(class) => class,
        other => panic!("{other:?}: {error}"),
    }
}

#[tokio::test]
async fn an_object_is_read_by_its_version_and_by_its_tag() {
    let (gateway, client) = start().await;
    keep_versions(&gateway).await;
    let bucket = bucket();
    let put = |body: &'static [u8]| {
        let (client, bucket) = (client.clone(), bucket.clone());
        async move { client.put(&bucket, &key("f/1.jpg"), Bytes::from_static(body), "image/jpeg").await.unwrap() }
    };
    let (first, second) = (put(b"the first picture").await, put(b"the second picture").await);
    let (one, two) = (first.version.as_deref(), second.version.as_deref());
    assert!(one.is_some() && two.is_some() && one != two, "{first:?} {second:?}");

    for (object, body, version) in [
        (newest("f/1.jpg"), &b"the second picture"[..], two),
        (pinned("f/1.jpg", one, None), b"the first picture", one),
        (pinned("f/1.jpg", two, None), b"the second picture", two),
        (pinned("f/1.jpg", None, second.etag.as_deref()), b"the second picture", two),
        (pinned("f/1.jpg", one, first.etag.as_deref()), b"the first picture", one),
    ] {
        let fetched = client.fetch(&bucket, &object).await.unwrap();
        assert_eq!((&*fetched.bytes, fetched.version.as_deref()), (body, version), "{object:?}");
        let info = client.head(&bucket, &object).await.unwrap();
        assert_eq!((info.version, info.etag), (fetched.version, fetched.etag), "{object:?}");
    }
    for object in [
        pinned("f/1.jpg", None, first.etag.as_deref()),
        pinned("f/1.jpg", two, first.etag.as_deref()),
        pinned("f/1.jpg", None, Some("d41d8cd98f00b204e9800998ecf8427e")),
    ] {
        let error = client.fetch(&bucket, &object).await.unwrap_err();
        assert_eq!(rejected(&error), FailureClass::ChangedWhileReading, "{object:?}: {error}");
    }
    for (version, class) in [
        ("01K9ZZZZZZZZZZZZZZZZZZZZZZ", FailureClass::ObjectNotFound),
        ("no-version-of-theirs", FailureClass::InvalidReference),
    ] {
        let error = client.fetch(&bucket, &pinned("f/1.jpg", Some(version), None)).await.unwrap_err();
        assert_eq!(rejected(&error), class, "{error}");
    }

    // Deleted, it is gone; its versions are not.
    administrator(&gateway).delete_object().bucket("media").key("f/1.jpg").send().await.unwrap();
    let error = client.fetch(&bucket, &newest("f/1.jpg")).await.unwrap_err();
    assert_eq!(rejected(&error), FailureClass::ObjectNotFound, "{error}");
    let fetched = client.fetch(&bucket, &pinned("f/1.jpg", one, None)).await.unwrap();
    assert_eq!(fetched.bytes, &b"the first picture"[..]);
}

#[tokio::test]
async fn a_prefix_of_five_thousand_is_listed_as_people_count() {
    let (gateway, client) = start().await;
    let folder = gateway.buckets().join("media/clip");
    fs::create_dir_all(folder.join("frames")).unwrap();
    fs::create_dir(folder.join("frames-of-another")).unwrap();
    fs::write(folder.join("frames-of-another/1.jpg"), "not ours").unwrap();
    for n in 0..5_000 {
        fs::write(folder.join(format!("frames/frame-{n}.jpg")), format!("frame {n}")).unwrap();
    }
    let listed = client.list(&bucket(), "clip/frames/").await.unwrap();
    let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    let expected: Vec<String> = (0..5_000).map(|n| format!("clip/frames/frame-{n}.jpg")).collect();
    assert_eq!(names, expected);
    for n in [0, 9, 10, 999, 4_999] {
        let fetched = client.fetch(&bucket(), listed[n].object.as_ref().unwrap()).await.unwrap();
        assert_eq!(fetched.bytes, format!("frame {n}"));
    }
    // What was written through the store is pinned by its tag.
    let info = client.put(&bucket(), &key("clip/put/1.jpg"), "a picture".into(), "image/jpeg").await.unwrap();
    let listed = client.list(&bucket(), "clip/put/").await.unwrap();
    let tag = &listed[0].object.as_ref().unwrap().etag;
    assert!(info.etag.is_some() && *tag == info.etag, "{listed:?} {info:?}");
    let error = client.list(&bucket(), "clip/no-such-frames/").await.unwrap_err();
    assert_eq!(rejected(&error), FailureClass::ObjectNotFound);
}

#[tokio::test]
async fn wrong_credentials_are_the_stores_trouble_and_named() {
    let (gateway, _) = start().await;
    fs::write(gateway.buckets().join("media/1.jpg"), "a picture").unwrap();
    for (access_key, secret_key, words) in [
        ("nobody", VersityGateway::SECRET_KEY, "XAdminUserNotFound"),
        (VersityGateway::ACCESS_KEY, "wrong", "SignatureDoesNotMatch"),
    ] {
        let config = config(&gateway, access_key, secret_key);
        let client = ObjectStore::connect(config, &Registry::new()).await.unwrap();
        let errors = [
            client.fetch(&bucket(), &newest("1.jpg")).await.unwrap_err(),
            client.list(&bucket(), "frames/").await.unwrap_err(),
            client.put(&bucket(), &key("2.jpg"), "x".into(), "image/jpeg").await.unwrap_err(),
            client.probe(&bucket()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.disposition(), Disposition::Pause(SystemicCause::Credentials), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_concerns_itself_alone() {
    let (gateway, client) = start().await;
    fs::write(gateway.buckets().join("media/empty.jpg"), "").unwrap();
    let nowhere = Bucket::parse("no-such-bucket").unwrap();
    for (error, class) in [
        (client.fetch(&bucket(), &newest("f/none.jpg")).await.unwrap_err(), FailureClass::ObjectNotFound),
        (client.head(&bucket(), &newest("f/none.jpg")).await.unwrap_err(), FailureClass::ObjectNotFound),
        (client.fetch(&nowhere, &newest("1.jpg")).await.unwrap_err(), FailureClass::ObjectNotFound),
        (client.list(&nowhere, "f/").await.unwrap_err(), FailureClass::ObjectNotFound),
        (client.probe(&nowhere).await.unwrap_err(), FailureClass::ObjectNotFound),
        (client.fetch(&bucket(), &newest("empty.jpg")).await.unwrap_err(), FailureClass::Truncated),
    ] {
        assert_eq!(rejected(&error), class, "{error}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_pauses_and_comes_back_for_the_same_client() {
    let (mut gateway, client) = start().await;
    let bucket = bucket();
    fs::write(gateway.buckets().join("media/1.jpg"), "a picture").unwrap();
    client.probe(&bucket).await.unwrap();
    client.fetch(&bucket, &newest("1.jpg")).await.unwrap();

    gateway.kill().unwrap();
    for error in [
        client.fetch(&bucket, &newest("1.jpg")).await.unwrap_err(),
        client.list(&bucket, "frames/").await.unwrap_err(),
        client.probe(&bucket).await.unwrap_err(),
    ] {
        assert_eq!(error.disposition(), Disposition::Pause(SystemicCause::Unreachable), "{error}");
        assert!(error.to_string().contains(&gateway.endpoint()), "{error}");
    }
    gateway.restart().unwrap();
    back(&client).await;
}

#[tokio::test]
async fn a_store_that_hangs_is_slow_and_goes_on_for_the_same_client() {
    let (gateway, _) = start().await;
    fs::write(gateway.buckets().join("media/1.jpg"), "a picture").unwrap();
    let mut config = config(&gateway, VersityGateway::ACCESS_KEY, VersityGateway::SECRET_KEY);
    config.attempt_timeout = Duration::from_millis(300);
    let client = ObjectStore::connect(config, &Registry::new()).await.unwrap();
    gateway.signal(Signal::Stop).unwrap();
    for error in [
        client.fetch(&bucket(), &newest("1.jpg")).await.unwrap_err(),
        client.probe(&bucket()).await.unwrap_err(),
    ] {
        assert_eq!(error.disposition(), Disposition::Retry, "{error}");
        assert!(error.to_string().contains("in time"), "{error}");
    }
    gateway.signal(Signal::Continue).unwrap();
    back(&client).await;
}

/// The store is well again, as the breaker finds out: by probing.
async fn back(client: &ObjectStore) {
    let bucket = bucket();
    let probe = || async { client.probe(&bucket).await.ok() };
    until_async("the store answers a probe", DEADLINE, probe).await;
    let fetched = client.fetch(&bucket, &newest("1.jpg")).await.unwrap();
    assert_eq!(fetched.bytes, &b"a picture"[..]);
}
