//! A standalone over a folder of its own, and the command line in front of it.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ops::Ops;
use proto::v1;
use proto::v1::media_service_client::MediaServiceClient;
use proto::v1::verdict_service_client::VerdictServiceClient;
use standalone::{Config, Overrides, Standalone};
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn config(folder: &Path) -> Config {
    let overrides = Overrides {
        data: Some(folder.to_owned()),
        model: Some("scripted".to_owned()),
        ..Overrides::default()
    };
    // No test here cuts the power.
    let normal = ("TOUCHSTONE_STANDALONE__STANDALONE__LOG__SYNCHRONOUS".to_owned(), "normal".to_owned());
    Config::load(overrides, std::iter::once(normal)).expect("a valid configuration")
}

/// A standalone that is ready.
pub(crate) async fn start(folder: &Path) -> Standalone {
    let ops = Ops::new("test", Duration::from_secs(20)).expect("a fresh registry");
    let admin = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    ops::admin::serve(admin, ops.clone()).expect("an address");
    let standalone = Standalone::start(config(folder), ops).await.expect("it starts");
    let ready = tokio::time::timeout(DEADLINE, standalone.ready()).await;
    ready.expect("it is ready in time").expect("nothing failed");
    standalone
}

pub(crate) async fn channel(standalone: &Standalone) -> Channel {
    let address = format!("http://{}", standalone.addresses().grpc);
    Channel::from_shared(address).expect("an address").connect().await.expect("it answers")
}

/// A black picture with one painted face; `green` is what the scripted score follows.
pub(crate) fn face(green: u8) -> Vec<u8> {
    let mut picture = image::RgbImage::new(128, 128);
    for (x, y) in (32..96).flat_map(|y| (32..96).map(move |x| (x, y))) {
        picture.put_pixel(x, y, image::Rgb([255, green, 255]));
    }
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding into memory succeeds");
    bytes.into_inner()
}

/// Puts a picture into the store and submits it.
pub(crate) async fn submit(standalone: &Standalone, media_id: &str, bytes: Vec<u8>) {
    let (store, bucket) = standalone.store_client().await.expect("settings are valid");
    let key = forensics::ObjectKey::parse(&format!("test/{media_id}")).expect("a key");
    store.put(&bucket, &key, bytes.into(), "image/png").await.expect("the store takes it");
    let object = Some(v1::ObjectRef { key: key.to_string(), ..Default::default() });
    let image = v1::ImageSource { bucket: bucket.to_string(), object };
    let media = v1::MediaReference {
        media_id: media_id.to_owned(),
        source: Some(v1::media_reference::Source::Image(image)),
        ..Default::default()
    };
    let mut client = MediaServiceClient::new(channel(standalone).await);
    let request = v1::SubmitMediaRequest { media: Some(media) };
    client.submit_media(request).await.expect("the front door takes it");
}

/// The media's verdict, once it is there: from the topic's start, so that it cannot be missed.
pub(crate) async fn verdict(standalone: &Standalone, media_id: &str) -> v1::Verdict {
    let mut client = VerdictServiceClient::new(channel(standalone).await);
    let request = v1::WatchVerdictsRequest { from_start: true, ..Default::default() };
    let mut events = client.watch_verdicts(request).await.expect("it answers").into_inner();
    let found = async {
        loop {
            let event = events.message().await.expect("the stream lives").expect("it has no end");
            if let Some(v1::watch_verdicts_response::Event::Verdict(verdict)) = event.event
                && verdict.media_id == media_id
            {
                return verdict;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("a verdict comes")
}

/// What a command line gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: cli::Status,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `touchstone ARGUMENTS` as nobody's terminal, in an empty environment.
pub(crate) async fn touchstone(arguments: &[&str]) -> Answer {
    let (out, err) = (Shared::default(), Shared::default());
    let surroundings = cli::Surroundings {
        environment: Vec::new(),
        stdout: Box::new(out.clone()),
        stderr: Box::new(err.clone()),
        stdout_is_terminal: false,
        stderr_is_terminal: false,
    };
    let line = std::iter::once("touchstone").chain(arguments.iter().copied()).map(Into::into).collect();
    let status = tokio::time::timeout(DEADLINE, cli::run(line, surroundings)).await.expect("it ends");
    Answer { status, out: out.text(), err: err.text() }
}

/// Bytes that a test reads after the command has written them.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("text")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
