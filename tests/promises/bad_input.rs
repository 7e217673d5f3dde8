//! "Bad input ends where the contract says": the process lives, and the rest of the batch is unharmed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use e2e::client::Platform;
use e2e::paint;
use e2e::process::Standalone;
use forensics::Lane;
use prost::Message;
use proto::topics::Topics;
use proto::v1::{self, FailureClass, NotApplicableReason, Outcome};
use stream::local::{LocalConfig, LocalLog};
use stream::{Log, Metrics, NewRecord, ReadEnd, TopicPartition};
use testbed::until;

/// What a media must end as.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Judged,
    NotApplicable(NotApplicableReason),
    Failed(FailureClass),
}

fn end(verdict: &v1::Verdict) -> End {
    match verdict.outcome() {
        Outcome::NotApplicable => End::NotApplicable(verdict.not_applicable_reason()),
        Outcome::Failed => End::Failed(verdict.failure_class()),
        _ => End::Judged,
    }
}

/// A PNG or JPEG header of 20,000 × 20,000 px, with nothing behind it.
fn huge_header(jpeg: bool) -> Vec<u8> {
    if jpeg {
        // SOI, then SOF0: length 17, 8 bits, height, width, three components.
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0x4e, 0x20, 0x4e, 0x20, 3];
        bytes.extend_from_slice(&[1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        bytes.extend_from_slice(&[0; 64]);
        return bytes;
    }
    let mut bytes = paint::png(&image::RgbImage::new(1, 1));
    bytes[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// CRC-32 as PNG wants it (ISO 3309), bit by bit: it is 17 bytes.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A valid PNG of 8,000 × 8,000 px of zeros: 190 KiB that would become 192 MB.
fn bomb() -> Vec<u8> {
    paint::png(&image::RgbImage::new(8_000, 8_000))
}

fn jpeg() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut picture = image::RgbImage::from_pixel(320, 240, image::Rgb([255, 128, 255]));
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        pixel.0[1] = (x ^ y) as u8;
    }
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).expect("encoding into memory succeeds");
    bytes.into_inner()
}

/// Appends records as a careless producer would, while nothing else runs.
async fn produce(data: &Path, records: Vec<(&str, Bytes)>) {
    let log = open(data);
    let topic: Arc<str> = Topics::default().media(Lane::Standard).into();
    let new = |(key, value): (&str, Bytes)| NewRecord {
        topic: topic.clone(),
        partition: None,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(value),
        headers: Vec::new(),
    };
    log.append(records.into_iter().map(new).collect()).await.expect("the log takes bytes");
    log.close();
}

fn open(data: &Path) -> LocalLog {
    let metrics = Metrics::register(&ops::metrics::Registry::new()).expect("a fresh registry");
    LocalLog::open(LocalConfig::new(data.join("log")), metrics).expect("nobody else holds the log")
}

/// Every dead letter of the log.
async fn dead_letters(data: &Path) -> Vec<v1::DeadLetter> {
    let log = open(data);
    let name = Topics::default().dead_letters;
    let topics = log.topics().await.expect("the log answers");
    let topic = topics.iter().find(|topic| *topic.name == *name).expect("the topic exists");
    let from =
        (0..topic.partitions).map(|partition| (TopicPartition { topic: topic.name.clone(), partition }, 0));
    let mut reader = log.read(from.collect(), ReadEnd::Watermark).await.expect("the log answers");
    let mut letters = Vec::new();
    while let Some(batch) = reader.next().await.expect("the log answers") {
        for record in batch.records {
            let value = record.value.expect("a dead letter has a value");
            letters.push(v1::DeadLetter::decode(&*value).expect("a dead letter is readable"));
        }
    }
    log.close();
    letters
}

fn stop(standalone: Standalone) {
    standalone.ask_to_stop();
    let status = standalone.wait(std::time::Duration::from_secs(40));
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_ends_where_the_contract_says() {
    use End::{Failed, Judged, NotApplicable};
    let data = tempfile::tempdir().expect("a folder");

    // A first life makes topics and bucket; then a careless producer writes what the front door would refuse.
    let standalone = Standalone::scripted(data.path());
    let bucket = standalone.connection.bucket.clone();
    stop(standalone);
    let object = |key: &str| Some(v1::ObjectRef { key: key.to_owned(), ..Default::default() });
    let image = |id: &str, bucket: &str, key: &str| v1::MediaReference {
        media_id: id.to_owned(),
        source: Some(v1::media_reference::Source::Image(v1::ImageSource {
            bucket: bucket.to_owned(),
            object: object(key),
        })),
        ..Default::default()
    };
    let unparsable = Bytes::from_static(b"\xff\xff\xff not a reference");
    produce(
        data.path(),
        vec![
            ("default|junk", unparsable.clone()),
            ("default|escape", image("escape", &bucket, "../secrets").encode_to_vec().into()),
            ("default|foreign", image("foreign", "someone-elses-bucket", "a.png").encode_to_vec().into()),
        ],
    )
    .await;

    let standalone = Standalone::scripted(data.path());
    let process = standalone.id();
    let platform = Platform::connect(&standalone.connection).await;
    let whole = jpeg();
    let objects: Vec<(&str, Vec<u8>)> = vec![
        ("cut.jpg", whole[..whole.len() / 2].to_vec()),
        ("huge.jpg", huge_header(true)),
        ("huge.png", huge_header(false)),
        ("bomb.png", bomb()),
        ("zero.jpg", Vec::new()),
        ("text.jpg", b"this is no picture at all, whatever its name says".to_vec()),
        ("black.png", paint::faces(0, 0)),
        ("crowd.png", paint::faces(200, 40)),
        ("fine.png", paint::faces(1, 0)),
    ];
    for (key, bytes) in objects {
        platform.put(key, bytes).await;
    }
    let mut expected: BTreeMap<&str, End> = BTreeMap::from([
        ("escape", Failed(FailureClass::InvalidReference)),
        ("foreign", Failed(FailureClass::BucketNotAllowed)),
    ]);
    let mut batch = Vec::new();
    for (id, key, want) in [
        ("missing", "nowhere.png", Failed(FailureClass::ObjectNotFound)),
        ("cut", "cut.jpg", Failed(FailureClass::Truncated)),
        ("huge-jpeg", "huge.jpg", Failed(FailureClass::TooLarge)),
        ("huge-png", "huge.png", Failed(FailureClass::TooLarge)),
        ("bomb", "bomb.png", Failed(FailureClass::TooLarge)),
        ("zero", "zero.jpg", Failed(FailureClass::Truncated)),
        ("text", "text.jpg", NotApplicable(NotApplicableReason::UnsupportedMedia)),
        ("black", "black.png", NotApplicable(NotApplicableReason::NoFace)),
        ("crowd", "crowd.png", Judged),
        ("fine", "fine.png", Judged),
    ] {
        expected.insert(id, want);
        batch.push(platform.picture(id, key));
    }
    expected.insert("empty", Failed(FailureClass::ObjectNotFound));
    batch.push(platform.prefix("empty", "no/such/folder/"));
    expected.insert("mixed", Judged);
    batch.push(platform.frames("mixed", &["cut.jpg", "fine.png", "text.jpg"]));
    platform.submit_all(batch).await.expect("the front door takes them: it does not look at pictures");

    let ids: Vec<String> = expected.keys().map(|id| (*id).to_owned()).collect();
    let verdicts = platform.verdicts(&ids).await;
    let ends: BTreeMap<&str, End> =
        verdicts.iter().map(|(id, verdict)| (id.as_str(), end(verdict))).collect();
    assert_eq!(ends, expected);
    let failed = verdicts.values().filter(|v| v.outcome() == Outcome::Failed);
    for verdict in failed {
        assert!(!verdict.detail.is_empty(), "{} says what failed", verdict.media_id);
    }
    assert_eq!((verdicts["crowd"].faces.len(), verdicts["crowd"].faces_left_out), (32, 168));
    assert_eq!((verdicts["mixed"].frames_unreadable, verdicts["mixed"].timeline.len()), (1, 3));

    // The front door refuses what it can see, by name.
    let refused = platform.submit(image("x", &bucket, "../secrets")).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("source.key"), "{}", refused.message());
    let refused = platform.submit(image("x", "someone-elses-bucket", "a.png")).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    until("the dead letter is counted", e2e::process::DEADLINE, || {
        (standalone.metric("touchstone_worker_dead_letters_total", "") >= 1.0).then_some(())
    });
    assert_eq!(standalone.id(), process, "one process lived through all of it");
    standalone.verify();
    stop(standalone);

    let letters = dead_letters(data.path()).await;
    let junk: Vec<_> = letters.iter().filter(|l| l.kind() == v1::dead_letter::Kind::Unparsable).collect();
    assert_eq!(junk.len(), 1, "{letters:?}");
    assert_eq!(junk[0].original, unparsable, "the bytes are kept unchanged");
    assert_eq!(
        junk[0].position.as_ref().map(|p| p.topic.as_str()),
        Some(Topics::default().media(Lane::Standard))
    );
}
