//! What a platform does: puts pictures into its bucket, submits references, reads verdicts. Real clients only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use forensics::{Bucket, ObjectKey};
use media::{ObjectStore, S3Settings};
use ops::metrics::Registry;
use proto::v1::media_service_client::MediaServiceClient;
use proto::v1::verdict_service_client::VerdictServiceClient;
use proto::v1::watch_verdicts_response::Event;
use proto::v1::{self, media_reference};
use tonic::transport::Channel;

use crate::process::{Connection, DEADLINE};
use testbed::until_async;

/// Verdicts asked for in one call: few enough that asking again and again does not keep the store from its work.
const ASKED_AT_ONCE: usize = 200;

/// A platform with one bucket. Clones share its connections.
#[derive(Clone)]
pub struct Platform {
    media: MediaServiceClient<Channel>,
    verdicts: VerdictServiceClient<Channel>,
    store: ObjectStore,
    bucket: Bucket,
}

impl Platform {
    /// Connects to a standalone or a fleet.
    pub async fn connect(connection: &Connection) -> Self {
        let channel = open(&connection.endpoint).await;
        let query = match &*connection.query {
            "" => channel.clone(),
            query => open(query).await,
        };
        let settings = S3Settings {
            endpoint: connection.s3.endpoint.clone(),
            region: connection.s3.region.clone(),
            path_style: true,
            access_key_id: connection.s3.access_key_id.clone(),
            secret_access_key: ops::config::Secret::new(connection.s3.secret_access_key.clone()),
            ..settings()
        };
        let config = settings.check().expect("the defaults are valid");
        let store = ObjectStore::connect(config, &Registry::new()).await.expect("the client can be made");
        Self {
            media: MediaServiceClient::new(channel),
            verdicts: VerdictServiceClient::new(query).max_decoding_message_size(64 << 20),
            store,
            bucket: Bucket::parse(&connection.bucket).expect("a bucket"),
        }
    }

    /// Puts a picture into the bucket.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let key = ObjectKey::parse(key).expect("a key");
        self.store.put(&self.bucket, &key, bytes.into(), "image/png").await.expect("the store takes it");
    }

    /// A reference to one picture.
    pub fn picture(&self, media_id: &str, key: &str) -> v1::MediaReference {
        let object = Some(v1::ObjectRef { key: key.to_owned(), ..Default::default() });
        let image = v1::ImageSource { bucket: self.bucket.to_string(), object };
        self.reference(media_id, media_reference::Source::Image(image))
    }

    /// A reference to frames by key.
    pub fn frames(&self, media_id: &str, keys: &[&str]) -> v1::MediaReference {
        let objects = keys.iter().map(|key| v1::ObjectRef { key: (*key).to_owned(), ..Default::default() });
        let frames = v1::FramesSource { bucket: self.bucket.to_string(), objects: objects.collect() };
        self.reference(media_id, media_reference::Source::Frames(frames))
    }

    /// A reference to a prefix.
    pub fn prefix(&self, media_id: &str, prefix: &str) -> v1::MediaReference {
        let prefix = v1::PrefixSource { bucket: self.bucket.to_string(), prefix: prefix.to_owned() };
        self.reference(media_id, media_reference::Source::Prefix(prefix))
    }

    fn reference(&self, media_id: &str, source: media_reference::Source) -> v1::MediaReference {
        v1::MediaReference { media_id: media_id.to_owned(), source: Some(source), ..Default::default() }
    }

    /// Submits one media.
    pub async fn submit(&self, media: v1::MediaReference) -> Result<v1::InputPosition, tonic::Status> {
        let request = v1::SubmitMediaRequest { media: Some(media) };
        let answer = self.media.clone().submit_media(with_deadline(request)).await?.into_inner();
        Ok(answer.position.expect("an acknowledgement has a position"))
    }

    /// Submits many; an error if the call or any of them is refused.
    pub async fn submit_all(&self, media: Vec<v1::MediaReference>) -> Result<(), tonic::Status> {
        let request = v1::BatchSubmitMediaRequest { media };
        let answer = self.media.clone().batch_submit_media(with_deadline(request)).await?.into_inner();
        for result in answer.results {
            if let Some(v1::submit_result::Result::Refusal(refusal)) = result.result {
                return Err(tonic::Status::new(tonic::Code::from(refusal.code), refusal.message));
            }
        }
        Ok(())
    }

    /// The verdicts of these media, once all are there.
    pub async fn verdicts(&self, media_ids: &[String]) -> BTreeMap<String, v1::Verdict> {
        let mut found = BTreeMap::new();
        while found.len() < media_ids.len() {
            let missing = media_ids.iter().filter(|id| !found.contains_key(*id)).take(ASKED_AT_ONCE);
            let request = v1::BatchGetVerdictsRequest { media_ids: missing.cloned().collect() };
            let more = until_async("every media has its verdict", DEADLINE, || {
                let (mut client, request) = (self.verdicts.clone(), with_deadline(request.clone()));
                async move {
                    let answer = client.batch_get_verdicts(request).await.ok()?.into_inner().verdicts;
                    (!answer.is_empty()).then_some(answer)
                }
            });
            found.extend(more.await.into_iter().map(|verdict| (verdict.media_id.clone(), verdict)));
        }
        found
    }

    /// Watches from the oldest verdict on, until so many media have theirs: which.
    ///
    /// # Panics
    /// When a media has a second one.
    pub async fn watch(mut self, count: usize) -> BTreeSet<String> {
        let request = v1::WatchVerdictsRequest { from_start: true, ..Default::default() };
        let mut stream = self.verdicts.watch_verdicts(request).await.expect("it may be watched").into_inner();
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            let next = tokio::time::timeout(DEADLINE, stream.message()).await.expect("it goes on");
            match next.expect("the stream holds").expect("it has no end").event {
                Some(Event::Verdict(verdict)) => {
                    let first = seen.insert(verdict.media_id.clone());
                    assert!(first, "a second verdict of {}", verdict.media_id);
                }
                Some(Event::Gap(_)) => panic!("a gap, though everything is read at once"),
                Some(Event::Heartbeat(_)) | None => {}
            }
        }
        seen
    }

    /// The verdict of one media, once it is there.
    pub async fn verdict(&self, media_id: &str) -> v1::Verdict {
        let mut all = self.verdicts(&[media_id.to_owned()]).await;
        all.remove(media_id).expect("it was waited for")
    }
}

async fn open(endpoint: &str) -> Channel {
    let channel = Channel::from_shared(endpoint.to_owned()).expect("an endpoint is a URL");
    channel.connect().await.expect("the services answer")
}

fn settings() -> S3Settings {
    #[derive(serde::Deserialize)]
    struct Room {
        s3: S3Settings,
    }
    toml::from_str::<Room>(media::DEFAULTS).expect("the room's defaults are valid").s3
}

fn with_deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(30));
    request
}
