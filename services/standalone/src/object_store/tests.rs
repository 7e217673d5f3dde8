//! The store as the real client sees it.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use ops::Ops;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

struct Store {
    server: ObjectStoreServer,
    client: Client,
}

impl Store {
    async fn open(folder: &Path) -> Self {
        let store = ObjectStore::open(folder).unwrap();
        store.ensure_bucket("media").unwrap();
        let ops = Ops::new("test", Duration::from_secs(5)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = store.serve(listener, &ops).unwrap();
        let client = client(&server.endpoint, &server.credentials);
        Store { server, client }
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> String {
        let put = self.client.put_object().bucket("media").key(key).body(bytes.to_vec().into());
        put.send().await.unwrap().e_tag.unwrap()
    }

    async fn get(&self, key: &str) -> Vec<u8> {
        let got = self.client.get_object().bucket("media").key(key).send().await.unwrap();
        got.body.collect().await.unwrap().to_vec()
    }
}

fn client(endpoint: &str, credentials: &Credentials) -> Client {
    let credentials = aws_sdk_s3::config::Credentials::new(
        &credentials.access_key,
        credentials.secret_key.expose(),
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// The S3 code and HTTP status of a failure.
fn failure<T, E: ProvideErrorMetadata>(
    result: Result<T, SdkError<E, aws_sdk_s3::config::http::HttpResponse>>,
) -> (String, u16) {
    let Err(error) = result else { panic!("expected a failure") };
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (error.code().unwrap_or_default().to_string(), status)
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

#[tokio::test]
async fn objects_come_back_as_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let long = "x".repeat(300);
    let keys = ["a", "a/b", "a/b/c", "a//", "faces/Ünïcode 日本 +&=%2F?#.jpg", "folder/", long.as_str()];
    for (index, key) in keys.iter().enumerate() {
        store.put(key, &bytes(index * 1000)).await;
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(store.get(key).await, bytes(index * 1000), "{key}");
    }
    let put = store.client.put_object().bucket("media").key("described").body(ByteStream::from_static(b"hi"));
    put.content_type("image/jpeg").metadata("origin", "camera").send().await.unwrap();
    let head = store.client.head_object().bucket("media").key("described").send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/jpeg"));
    assert_eq!(head.metadata().unwrap()["origin"], "camera");
    assert_eq!(head.content_length(), Some(2));
    // `printf hi | md5sum`
    assert_eq!(head.e_tag(), Some("\"49f68a5c8493ec2c0bf489821c21fc3b\""));

    let get = |key: &str| store.client.get_object().bucket("media").key(key).send();
    assert_eq!(failure(get("missing").await), ("NoSuchKey".into(), 404));
    let elsewhere = store.client.get_object().bucket("elsewhere").key("a").send().await;
    assert_eq!(failure(elsewhere), ("NoSuchBucket".into(), 404));
    let version = store.client.get_object().bucket("media").key("a").version_id("v7").send().await;
    assert_eq!(failure(version), ("NoSuchVersion".into(), 404));
}

#[tokio::test]
async fn large_objects_and_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let path = folder.path().join("upload");
    for length in [1000, 3_000_000] {
        let content = bytes(length);
        std::fs::write(&path, &content).unwrap();
        // From a file the client sends chunks with a checksum behind them.
        let body = ByteStream::from_path(&path).await.unwrap();
        store.client.put_object().bucket("media").key("k").body(body).send().await.unwrap();
        assert!(store.get("k").await == content);
        for (range, expected) in
            [("bytes=0-99", 0..100), ("bytes=900-", 900..length), ("bytes=-10", length - 10..length)]
        {
            let get = store.client.get_object().bucket("media").key("k").range(range).send().await.unwrap();
            let content_range = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
            assert_eq!(get.content_range(), Some(content_range.as_str()));
            assert!(get.body.collect().await.unwrap().to_vec() == content[expected]);
        }
        let beyond = store.client.get_object().bucket("media").key("k").range("bytes=3000000-").send().await;
        assert_eq!(failure(beyond), ("InvalidRange".into(), 416));
    }
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
}

#[tokio::test]
async fn conditions() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let old = store.put("k", b"old").await;
    let new = store.put("k", b"new").await;
    assert_ne!(old, new);
    let get = || store.client.get_object().bucket("media").key("k");
    assert!(get().if_match(&new).send().await.is_ok());
    assert_eq!(failure(get().if_match(&old).send().await), ("PreconditionFailed".into(), 412));
    assert_eq!(failure(get().if_none_match(&new).send().await).1, 304);
    let put =
        |key: &str| store.client.put_object().bucket("media").key(key).body(ByteStream::from_static(b"x"));
    assert_eq!(failure(put("k").if_none_match("*").send().await), ("PreconditionFailed".into(), 412));
    assert!(put("fresh").if_none_match("*").send().await.is_ok());
    assert_eq!(failure(put("k").if_match(&old).send().await), ("PreconditionFailed".into(), 412));
    assert!(put("k").if_match(&new).send().await.is_ok());
    let wrong = put("k").content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await;
    assert_eq!(failure(wrong), ("BadDigest".into(), 400));
    assert_eq!(store.get("k").await, b"x");
}

#[tokio::test]
async fn only_the_right_signature_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    store.put("k", b"v").await;
    let Credentials { access_key, .. } = store.server.credentials.clone();
    let wrong_secret =
        Credentials { access_key: access_key.clone(), secret_key: ops::config::Secret::new("guess") };
    let refused = client(&store.server.endpoint, &wrong_secret);
    let get = refused.get_object().bucket("media").key("k").send().await;
    assert_eq!(failure(get), ("SignatureDoesNotMatch".into(), 403));
    let unknown = Credentials { access_key: "TS0000000000000000".into(), ..store.server.credentials.clone() };
    let put = client(&store.server.endpoint, &unknown).put_object().bucket("media").key("k");
    assert_eq!(failure(put.send().await).1, 403);

    let anonymous = raw_request(&store.server.endpoint, "GET /media/k HTTP/1.1").await;
    assert!(anonymous.starts_with("HTTP/1.1 403"), "{anonymous}");
    assert!(
        !format!("{:?}", store.server.credentials).contains(store.server.credentials.secret_key.expose())
    );
}

async fn raw_request(endpoint: &str, line: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = endpoint.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{line}\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn nothing_outside_the_folder_is_reached() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("store");
    std::fs::write(parent.path().join("canary.o"), "canary").unwrap();
    let store = Store::open(&folder).await;
    for key in ["../canary", "a/../../../canary", "..", "/etc/passwd", "a\u{1}b", "a\nb"] {
        let get = store.client.get_object().bucket("media").key(key).send().await;
        assert_eq!(failure(get), ("InvalidArgument".into(), 400), "{key:?}");
        let put = store.client.put_object().bucket("media").key(key).body(ByteStream::from_static(b"x"));
        assert_eq!(failure(put.send().await), ("InvalidArgument".into(), 400), "{key:?}");
        let delete = store.client.delete_object().bucket("media").key(key).send().await;
        assert_eq!(failure(delete).1, 400, "{key:?}");
    }
    let part = store.client.upload_part().bucket("media").key("k").part_number(1).upload_id("../../media");
    assert_eq!(failure(part.send().await), ("NoSuchUpload".into(), 404));
    let bucket = store.client.list_objects_v2().bucket("..").send().await;
    assert!(bucket.is_err());
    assert_eq!(std::fs::read(parent.path().join("canary.o")).unwrap(), b"canary");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    store.put("a/b.jpg", &bytes(5000)).await;
    let upload = store.client.create_multipart_upload().bucket("media").key("big").send().await.unwrap();
    let upload = upload.upload_id.unwrap();
    let part = store.client.upload_part().bucket("media").key("big").upload_id(&upload).part_number(1);
    let part = part.body(bytes(100).into()).send().await.unwrap().e_tag.unwrap();
    assert!(matches!(ObjectStore::open(folder.path()), Err(OpenError::InUse { .. })));
    let credentials = store.server.credentials.clone();
    store.server.stop().await;

    // What a killed process leaves behind.
    std::fs::write(folder.path().join("incoming/17"), "half an obj").unwrap();
    let store = Store::open(folder.path()).await;
    assert_eq!(store.server.credentials, credentials);
    assert_eq!(store.get("a/b.jpg").await, bytes(5000));
    let parts = store.client.list_parts().bucket("media").key("big").upload_id(&upload).send().await.unwrap();
    assert_eq!(parts.parts()[0].e_tag(), Some(part.as_str()));
    assert!(!folder.path().join("incoming/17").exists());
}

#[tokio::test]
async fn multipart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let begin =
        || store.client.create_multipart_upload().bucket("media").key("big").content_type("video/mp4");
    let id = begin().send().await.unwrap().upload_id.unwrap();
    let content = bytes(11 << 20);
    let pieces = [&content[..5 << 20], &content[5 << 20..10 << 20], &content[10 << 20..]];
    let mut parts = Vec::new();
    for (number, piece) in (1..).zip(pieces) {
        let part = store.client.upload_part().bucket("media").key("big").upload_id(&id).part_number(number);
        let part = part.body(piece.to_vec().into()).send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(part.e_tag.unwrap()).build());
    }
    let complete = |parts: Vec<CompletedPart>| {
        let listed = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        store
            .client
            .complete_multipart_upload()
            .bucket("media")
            .key("big")
            .upload_id(&id)
            .multipart_upload(listed)
    };
    let reversed = parts.iter().rev().cloned().collect();
    assert_eq!(failure(complete(reversed).send().await).0, "InvalidPartOrder");
    let swapped = CompletedPart::builder().part_number(1).e_tag(parts[1].e_tag().unwrap()).build();
    assert_eq!(failure(complete(vec![swapped]).send().await).0, "InvalidPart");
    let last_first = vec![CompletedPart::builder().part_number(3).e_tag(parts[2].e_tag().unwrap()).build()];
    let missing = CompletedPart::builder().part_number(4).e_tag("\"0\"").build();
    assert_eq!(failure(complete([last_first, vec![missing]].concat()).send().await).0, "EntityTooSmall");

    let etag = complete(parts).send().await.unwrap().e_tag.unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    let head = store.client.head_object().bucket("media").key("big").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_type()), (Some(etag.as_str()), Some("video/mp4")));
    assert!(store.get("big").await == content);

    let id = begin().send().await.unwrap().upload_id.unwrap();
    let abort = || store.client.abort_multipart_upload().bucket("media").key("big").upload_id(&id).send();
    abort().await.unwrap();
    assert_eq!(failure(abort().await), ("NoSuchUpload".into(), 404));
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_2500_keys_by_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let mut expected: Vec<String> =
        (0..2500).map(|index| format!("faces/{}/{index:04}.jpg", index % 5)).collect();
    let mut puts = JoinSet::new();
    for batch in expected.chunks(100) {
        let (client, batch) = (store.client.clone(), batch.to_vec());
        puts.spawn(async move {
            for key in batch {
                client
                    .put_object()
                    .bucket("media")
                    .key(key)
                    .body(ByteStream::default())
                    .send()
                    .await
                    .unwrap();
            }
        });
    }
    puts.join_all().await;
    store.put("other", b"").await;
    expected.sort();

    let begin = Instant::now();
    let mut pages = store.client.list_objects_v2().bucket("media").prefix("faces/").into_paginator().send();
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.contents().len());
        found.extend(page.contents().iter().map(|object| object.key().unwrap().to_string()));
    }
    println!("listed 2,500 keys in {:?}", begin.elapsed());
    assert_eq!(sizes, [1000, 1000, 500]);
    assert_eq!(found, expected);

    let list = || store.client.list_objects_v2().bucket("media");
    let folders = list().prefix("faces/").delimiter("/").max_keys(3).send().await.unwrap();
    let names: Vec<_> = folders.common_prefixes().iter().filter_map(|folder| folder.prefix()).collect();
    assert_eq!(names, ["faces/0/", "faces/1/", "faces/2/"]);
    let token = folders.next_continuation_token().unwrap();
    let rest = list().prefix("faces/").delimiter("/").continuation_token(token).send().await.unwrap();
    let names: Vec<_> = rest.common_prefixes().iter().filter_map(|folder| folder.prefix()).collect();
    assert_eq!((names, rest.is_truncated()), (vec!["faces/3/", "faces/4/"], Some(false)));
    let last = list().start_after("faces/4/2494.jpg").send().await.unwrap();
    let keys: Vec<_> = last.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["faces/4/2499.jpg", "other"]);
}

#[tokio::test]
async fn deleting() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    for key in ["a", "a/b/c", "a/b/d", "kept"] {
        store.put(key, b"x").await;
    }
    store.client.delete_object().bucket("media").key("a/b/c").send().await.unwrap();
    store.client.delete_object().bucket("media").key("a/b/c").send().await.unwrap();
    assert_eq!(store.get("a/b/d").await, b"x");
    let object = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let many = Delete::builder().set_objects(Some(["a", "a/b/d", "never", "../x"].map(object).to_vec()));
    let many = store.client.delete_objects().bucket("media").delete(many.build().unwrap());
    let answer = many.send().await.unwrap();
    assert_eq!(answer.deleted().len(), 3);
    assert_eq!(answer.errors()[0].key(), Some("../x"));
    let names: Vec<_> = std::fs::read_dir(folder.path().join("buckets/media")).unwrap().collect();
    assert_eq!(names.len(), 1, "no empty folders stay behind: {names:?}");

    let delete_bucket = || store.client.delete_bucket().bucket("media").send();
    assert_eq!(failure(delete_bucket().await), ("BucketNotEmpty".into(), 409));
    store.client.delete_object().bucket("media").key("kept").send().await.unwrap();
    delete_bucket().await.unwrap();
    assert_eq!(failure(store.client.head_bucket().bucket("media").send().await).1, 404);
    store.client.create_bucket().bucket("new-one").send().await.unwrap();
    let buckets = store.client.list_buckets().send().await.unwrap();
    assert_eq!(buckets.buckets()[0].name(), Some("new-one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_at_once_see_whole_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    store.put("deep/er/k", &[0; 64]).await;
    let mut tasks = JoinSet::new();
    for writer in 1..=4_u8 {
        let client = store.client.clone();
        tasks.spawn(async move {
            for round in 0..25 {
                let length = 1 << (6 + round % 12);
                let put = client.put_object().bucket("media").key("deep/er/k");
                put.body(vec![writer; length].into()).send().await.unwrap();
                // A neighbour that comes and goes takes its folders with it.
                let neighbour = format!("deep/{writer}/n");
                let put = client.put_object().bucket("media").key(&neighbour);
                put.body(ByteStream::from_static(b"n")).send().await.unwrap();
                client.delete_object().bucket("media").key(&neighbour).send().await.unwrap();
            }
        });
    }
    for _ in 0..2 {
        let client = store.client.clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                let got = client.get_object().bucket("media").key("deep/er/k").send().await.unwrap();
                let length = got.content_length().unwrap() as usize;
                let body = got.body.collect().await.unwrap().to_vec();
                assert_eq!(body.len(), length);
                assert!(length.is_power_of_two() && body.iter().all(|byte| *byte == body[0]), "torn");
            }
        });
    }
    tasks.join_all().await;
}

/// Printed, not asserted: machines differ.
/// `cargo test -p standalone cpu_of_a_get -- --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn cpu_of_a_get() {
    const READERS: u32 = 16;
    const GETS: u32 = 125;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    store.put("frame.jpg", &bytes(40_000)).await;
    let (begin, cpu) = (Instant::now(), cpu_ticks_of("object-store"));
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        let client = store.client.clone();
        tasks.spawn(async move {
            for _ in 0..GETS {
                let got = client.get_object().bucket("media").key("frame.jpg").send().await.unwrap();
                assert_eq!(got.body.collect().await.unwrap().into_bytes().len(), 40_000);
            }
        });
    }
    tasks.join_all().await;
    let rate = f64::from(READERS * GETS) / begin.elapsed().as_secs_f64();
    let micros = (cpu_ticks_of("object-store") - cpu) as f64 * 10_000.0 / f64::from(READERS * GETS);
    println!("{rate:.0} GET/s of 40 kB by a client on one thread; {micros:.0} µs of server CPU each");
}

/// CPU time of the threads called `name`, in hundredths of a second (proc(5), fields 14 and 15).
fn cpu_ticks_of(name: &str) -> u64 {
    let mut ticks = 0;
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        if let Some((_, rest)) = stat.split_once(&format!("({name}) ")) {
            ticks +=
                rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    ticks
}
