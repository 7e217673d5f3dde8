//! Objects from an S3 store: pinned, bounded, hashed, retried within a budget.

mod client;
mod config;
mod error;
mod failure;
mod held;
mod metrics;
mod natural;
mod retry;
mod upload;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use bytes::Bytes;
use forensics::{Bucket, FailureClass, InvalidReference, ObjectKey, ObjectRef};
use ops::metrics::Registry;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use config::{Credentials, S3Config, S3Settings};
pub use error::{FetchError, Problem};
pub use natural::natural_order;
pub use upload::UploadError;

use failure::{Failure, Kind};
use held::Held;
use metrics::FetchMetrics;
use retry::{Backoff, RetryBudget};

use crate::Stopwatch;

/// The store cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A metric is registered twice: two stores on one registry.
    #[error("metrics of the object store: {0}")]
    Metrics(#[from] ops::metrics::Error),
}

/// An object, read to its end.
#[derive(Debug, Clone)]
pub struct FetchedObject {
    /// Its bytes; never empty. They count as in flight until the last clone is dropped, so drop them early
    /// and do not hold one object while waiting for another.
    pub bytes: Bytes,
    /// The store's version, where it gives one.
    pub version: Option<String>,
    /// The store's entity tag, without quotes.
    pub etag: Option<String>,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

/// What the store says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length in bytes.
    pub length_bytes: u64,
    /// The store's version, where it gives one.
    pub version: Option<String>,
    /// The store's entity tag, without quotes.
    pub etag: Option<String>,
}

/// What lies below a prefix under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key, as the store says it: it may be anything.
    pub key: String,
    /// The object, pinned to the entity tag it has now; an error where no reference could name it so.
    pub object: Result<ObjectRef, InvalidReference>,
}

/// A client of one store. Cloning shares connections, budgets and metrics.
#[derive(Clone)]
pub struct ObjectStore {
    inner: Arc<Inner>,
    /// Runs while the store is waited for.
    caller: Stopwatch,
}

struct Inner {
    client: Client,
    config: S3Config,
    /// One permit a request.
    requests: Semaphore,
    /// One permit a byte.
    bytes: Arc<Semaphore>,
    budget: RetryBudget,
    backoff: Backoff,
    metrics: FetchMetrics,
}

impl ObjectStore {
    /// Sets up the client. Nothing is sent yet, except that the default chain may look for credentials;
    /// see [`ObjectStore::probe`].
    pub async fn connect(config: S3Config, registry: &Registry) -> Result<Self, ConnectError> {
        let metrics = FetchMetrics::register(registry)?;
        let inner = Inner {
            client: client::build(&config).await,
            requests: Semaphore::new(config.connections_max),
            bytes: Arc::new(Semaphore::new(config.bytes_in_flight_max)),
            budget: RetryBudget::new(config.retry_ratio, config.retry_reserve),
            backoff: Backoff::new(config.backoff_base, config.backoff_max),
            metrics,
            config,
        };
        Ok(Self { inner: Arc::new(inner), caller: Stopwatch::new() })
    }

    /// The same client for a caller whose stopwatch runs while the store is waited for. It stands still while an
    /// operation waits for its turn or for room with us.
    pub fn timed_by(&self, caller: &Stopwatch) -> Self {
        Self { inner: Arc::clone(&self.inner), caller: caller.clone() }
    }

    /// Asks once, without retries, whether the bucket can be reached: for start-up and half-open breakers. One
    /// request beyond `connections_max`, because those may all be waiting for a store that says nothing.
    pub async fn probe(&self, bucket: &Bucket) -> Result<(), FetchError> {
        let request =
            self.inner.client.head_bucket().bucket(bucket.as_str()).set_expected_bucket_owner(self.owner());
        let mut sent = self.send(Box::pin(request.send())).await.map(drop);
        // A refusal of HEAD has no words: whether it is the bucket or our credentials, only another request tells.
        if sent.as_ref().is_err_and(|failure| matches!(failure.kind, Kind::Object(_))) {
            let request = self.inner.client.list_objects_v2().bucket(bucket.as_str()).max_keys(1);
            let request = request.set_expected_bucket_owner(self.owner());
            sent = self.send(Box::pin(request.send())).await.map(drop);
        }
        sent.map_err(|failure| failure.give_up(bucket, None, false))
    }

    /// Reads one object to its end, pinned to the version and entity tag that the reference names.
    pub async fn fetch(&self, bucket: &Bucket, object: &ObjectRef) -> Result<FetchedObject, FetchError> {
        let started = Instant::now();
        let operation = self.caller.child();
        let attempt = || self.fetch_once(bucket, object, &operation);
        let result = self.with_retries_timed(&operation, bucket, Some(object.key.as_str()), attempt).await;
        self.inner.metrics.seconds.observe(started.elapsed().as_secs_f64());
        result
    }

    /// What the store says about an object, without reading it.
    pub async fn head(&self, bucket: &Bucket, object: &ObjectRef) -> Result<ObjectInfo, FetchError> {
        let ask = || async {
            let request = self.inner.client.head_object().bucket(bucket.as_str()).key(object.key.as_str());
            let request = request.set_version_id(object.version.clone()).set_if_match(if_match(object));
            let answer = self.send(Box::pin(request.set_expected_bucket_owner(self.owner()).send())).await?;
            Ok(ObjectInfo {
                length_bytes: answer.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                version: answer.version_id().map(str::to_owned),
                etag: answer.e_tag().map(plain_etag),
            })
        };
        self.with_retries(bucket, Some(object.key.as_str()), ask).await
    }

    /// The objects below a prefix in natural order, each pinned to the entity tag it has now. Folder markers
    /// (`…/`) are left out. One that cannot be referenced stands in its place and spoils no other. Empty:
    /// OBJECT_NOT_FOUND; more than `prefix_objects_max`: TOO_LARGE.
    pub async fn list(&self, bucket: &Bucket, prefix: &str) -> Result<Vec<Listed>, FetchError> {
        let give_up = |failure: Failure| failure.give_up(bucket, Some(prefix), false);
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self
                .with_retries(bucket, Some(prefix), || {
                    let request = self.inner.client.list_objects_v2().bucket(bucket.as_str()).prefix(prefix);
                    let request = request.set_continuation_token(next.clone());
                    self.send(Box::pin(request.set_expected_bucket_owner(self.owner()).send()))
                })
                .await?;
            for object in page.contents() {
                let name = object.key().unwrap_or_default();
                if name.ends_with('/') {
                    continue;
                }
                // Some stores name none of what was not written through them.
                let etag = object.e_tag().map(plain_etag).filter(|etag| !etag.is_empty());
                let object = ObjectKey::parse(name).and_then(|key| ObjectRef::pinned(key, None, etag));
                objects.push(Listed { key: name.to_owned(), object });
            }
            let most = self.inner.config.prefix_objects_max;
            if objects.len() > most {
                let what = format!("holds more than {most} objects; use a longer prefix");
                return Err(give_up(Failure::object(FailureClass::TooLarge, what)));
            }
            next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() || page.is_truncated() != Some(true) {
                break;
            }
        }
        if objects.is_empty() {
            return Err(give_up(Failure::object(FailureClass::ObjectNotFound, "holds no object")));
        }
        objects.sort_by(|a, b| natural_order(&a.key, &b.key));
        Ok(objects)
    }

    async fn fetch_once(
        &self,
        bucket: &Bucket,
        object: &ObjectRef,
        operation: &Stopwatch,
    ) -> Result<FetchedObject, Failure> {
        let request = self.inner.client.get_object().bucket(bucket.as_str()).key(object.key.as_str());
        let request = request.set_version_id(object.version.clone()).set_if_match(if_match(object));
        let answer = self.send(Box::pin(request.set_expected_bucket_owner(self.owner()).send())).await?;
        check_pins(object, &answer)?;
        let declared = self.check_length(&answer)?;
        let room = {
            let _ours = operation.pause();
            self.room_for(declared).await
        };
        let (version, etag) = (answer.version_id().map(str::to_owned), answer.e_tag().map(plain_etag));
        let reading = self.read_body(answer, declared, room);
        let (bytes, sha256) = match tokio::time::timeout(self.inner.config.attempt_timeout, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(Failure::new(Kind::Slow, "was not read to its end in time")),
        };
        Ok(FetchedObject { bytes, version, etag, sha256 })
    }

    /// The announced length, refused before any of the body is read.
    fn check_length(&self, answer: &GetObjectOutput) -> Result<Option<usize>, Failure> {
        let max = self.inner.config.object_bytes_max;
        match answer.content_length().map(usize::try_from) {
            Some(Ok(0)) => Err(Failure::object(FailureClass::Truncated, "is empty: 0 bytes")),
            Some(Ok(length)) if length <= max => Ok(Some(length)),
            Some(Ok(length)) => Err(too_large(length, max)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    async fn read_body(
        &self,
        answer: GetObjectOutput,
        declared: Option<usize>,
        room: OwnedSemaphorePermit,
    ) -> Result<(Bytes, [u8; 32]), Failure> {
        let max = declared.unwrap_or(self.inner.config.object_bytes_max);
        let mut body = answer.body;
        let mut bytes = Vec::with_capacity(declared.unwrap_or(64 << 10));
        let mut hash = Sha256::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| failure::of_body(&error))?;
            self.inner.metrics.bytes.inc_by(chunk.len() as u64);
            if bytes.len() + chunk.len() > max {
                return Err(too_large(bytes.len() + chunk.len(), max));
            }
            hash.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        match (bytes.len(), declared) {
            (0, None) => return Err(Failure::object(FailureClass::Truncated, "is empty: 0 bytes")),
            (length, Some(declared)) if length < declared => {
                let what = format!("ended early: {length} of {declared} bytes");
                return Err(Failure::new(Kind::Short, what));
            }
            _ => {}
        }
        let held = Held::new(bytes, room, self.inner.metrics.bytes_in_flight.clone());
        Ok((Bytes::from_owner(held), hash.finalize().into()))
    }

    /// Room for a body before it is read; without a length, for the largest.
    async fn room_for(&self, declared: Option<usize>) -> OwnedSemaphorePermit {
        let bytes = declared.unwrap_or(self.inner.config.object_bytes_max);
        let permits = u32::try_from(bytes).expect("object_bytes_max is below 4 GiB");
        let room = Arc::clone(&self.inner.bytes).acquire_many_owned(permits).await;
        room.expect("the semaphore is never closed")
    }

    async fn slot(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.inner.requests.acquire().await.expect("the semaphore is never closed")
    }

    /// Sends one request within the attempt's time, and counts it. Boxed: the SDK's futures are several KiB, and
    /// callers hold hundreds of these.
    async fn send<T, E, F>(&self, request: Pin<Box<F>>) -> Result<T, Failure>
    where
        E: SdkFailure,
        F: Future<Output = SdkResult<T, E>>,
    {
        let metrics = &self.inner.metrics;
        match tokio::time::timeout(self.inner.config.attempt_timeout, request).await {
            Ok(Ok(answer)) => {
                metrics.request(Some(200), "");
                Ok(answer)
            }
            Ok(Err(error)) => {
                let status = error.raw_response().map(|raw| raw.status().as_u16());
                let mut failure = failure::of_request(&error);
                let timed_out = failure.kind == Kind::Slow;
                metrics.request(status, if timed_out { "timeout" } else { "connection" });
                if status.is_none() {
                    failure.what = format!("{} (store {})", failure.what, self.endpoint());
                }
                Err(failure)
            }
            Err(_) => {
                metrics.request(None, "timeout");
                let what = format!("did not answer in time (store {})", self.endpoint());
                Err(Failure::new(Kind::Slow, what))
            }
        }
    }

    async fn with_retries<T, F>(
        &self,
        bucket: &Bucket,
        key: Option<&str>,
        attempt: impl Fn() -> F,
    ) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.with_retries_timed(&self.caller.child(), bucket, key, attempt).await
    }

    /// Tries until it succeeds, cannot succeed, or attempts, budget or time are spent. The time is that of the
    /// store, and of the pauses for its sake: what passes before an attempt has its turn does not count.
    async fn with_retries_timed<T, F>(
        &self,
        operation: &Stopwatch,
        bucket: &Bucket,
        key: Option<&str>,
        attempt: impl Fn() -> F,
    ) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Inner { config, budget, backoff, metrics, .. } = &*self.inner;
        let limit = config.operation_timeout;
        budget.earn();
        let mut always_short = true;
        for number in 1.. {
            let turn = self.slot().await;
            let running = operation.run();
            let failure = match operation.within(limit, attempt()).await {
                Some(Ok(done)) => return Ok(done),
                Some(Err(failure)) => failure,
                None => {
                    let what = format!("was not done within {limit:?}");
                    return Err(Failure::new(Kind::Slow, what).give_up(bucket, key, false));
                }
            };
            drop(turn);
            always_short &= failure.kind == Kind::Short;
            let Some(reason) = failure.kind.retry_reason() else {
                return Err(failure.give_up(bucket, key, false));
            };
            let pause = backoff.pause(number);
            let spent = number >= config.attempts_max;
            if spent || operation.time() + pause >= limit || !budget.spend() {
                return Err(failure.give_up(bucket, key, always_short && spent));
            }
            metrics.retries.with_label_values(&[reason]).inc();
            tracing::debug!(attempt = number, reason, "object store: trying again");
            tokio::time::sleep(pause).await;
            drop(running);
        }
        unreachable!("attempts are bounded")
    }

    fn owner(&self) -> Option<String> {
        self.inner.config.expected_bucket_owner.clone()
    }

    fn endpoint(&self) -> &str {
        self.inner.config.endpoint.as_deref().unwrap_or("AWS")
    }
}

type SdkResult<T, E> = Result<T, aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>>;

/// An operation's modelled error.
trait SdkFailure: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static {}
impl<E> SdkFailure for E where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static
{
}

fn too_large(length: usize, max: usize) -> Failure {
    Failure::object(FailureClass::TooLarge, format!("exceeds {max} bytes: {length} bytes"))
}

/// The header `If-Match`; the reference may carry the tag with quotes or without.
fn if_match(object: &ObjectRef) -> Option<String> {
    object.etag.as_deref().map(|etag| format!("\"{}\"", plain_etag(etag)))
}

fn plain_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Stores exist that ignore `If-Match` or versions: what was pinned is compared with what came.
fn check_pins(object: &ObjectRef, answer: &GetObjectOutput) -> Result<(), Failure> {
    let moved = |pin: &str, wanted: &str, got: Option<&str>| {
        let got = got.unwrap_or("none");
        let what = format!("is no longer the pinned one: {pin} {wanted} was asked for, {got} came");
        Err(Failure::object(FailureClass::ChangedWhileReading, what))
    };
    if let Some(wanted) = object.etag.as_deref().map(plain_etag) {
        let got = answer.e_tag().map(plain_etag);
        if got.as_ref() != Some(&wanted) {
            return moved("entity tag", &wanted, got.as_deref());
        }
    }
    match (object.version.as_deref(), answer.version_id()) {
        // "null" is S3's name for the version of an object that was written without versioning.
        (None, _) | (Some("null"), None) => Ok(()),
        (Some(wanted), got) if got == Some(wanted) => Ok(()),
        (Some(wanted), got) => moved("version", wanted, got),
    }
}
