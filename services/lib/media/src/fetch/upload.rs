//! Objects into the store: what the command line and the demo need.

use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use forensics::{Bucket, ObjectKey};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::failure::{Failure, Kind};
use super::{FetchError, ObjectInfo, ObjectStore, plain_etag};

/// Larger files go up in parts, so that a broken connection costs one part. Chosen.
const MULTIPART_ABOVE: u64 = 16 << 20;

/// S3 wants at least 5 MiB a part, and at most 10,000 parts (Amazon S3 user guide, "Multipart upload limits").
const PART_BYTES_MIN: u64 = 8 << 20;
const PARTS_MAX: u64 = 10_000;

/// Why a file could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The local file.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] FetchError),
}

impl ObjectStore {
    /// Writes an object in one request.
    pub async fn put(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        bytes: Bytes,
        content_type: &str,
    ) -> Result<ObjectInfo, FetchError> {
        let write = || async {
            let request = self.inner.client.put_object().bucket(bucket.as_str()).key(key.as_str());
            let request = request.content_type(content_type).body(ByteStream::from(bytes.clone()));
            let answer = self.send(Box::pin(request.set_expected_bucket_owner(self.owner()).send())).await?;
            Ok(ObjectInfo {
                length_bytes: bytes.len() as u64,
                version: answer.version_id().map(str::to_owned),
                etag: answer.e_tag().map(plain_etag),
            })
        };
        self.with_retries(bucket, Some(key.as_str()), write).await
    }

    /// Uploads a file, above 16 MiB in parts. `progress` hears of the bytes that are up, part by part.
    #[allow(clippy::too_many_arguments, reason = "what, where to, and who wants to know: no two of one type")]
    pub async fn put_file(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        path: &Path,
        content_type: &str,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<ObjectInfo, UploadError> {
        let failed = |source| UploadError::File { path: path.display().to_string(), source };
        let mut file = File::open(path).await.map_err(failed)?;
        let length = file.metadata().await.map_err(failed)?.len();
        if length <= MULTIPART_ABOVE {
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.read_to_end(&mut bytes).await.map_err(failed)?;
            let info = self.put(bucket, key, Bytes::from(bytes), content_type).await?;
            progress(info.length_bytes);
            return Ok(info);
        }
        let target = Target { store: self, bucket, key };
        let upload_id = target.start(content_type).await?;
        let sent = target.send_parts(&upload_id, &mut file, part_bytes(length), &progress).await;
        let sent = match sent {
            Ok(parts) => target.complete(&upload_id, parts).await.map_err(UploadError::Store),
            Err(PartError::File(source)) => Err(failed(source)),
            Err(PartError::Store(error)) => Err(UploadError::Store(error)),
        };
        if sent.is_err() {
            // Parts of an upload that nobody ends are stored, and paid for, for ever.
            target.abort(&upload_id).await;
        }
        sent
    }
}

/// So large that the file fits into the parts that S3 allows.
fn part_bytes(length: u64) -> u64 {
    PART_BYTES_MIN.max(length.div_ceil(PARTS_MAX))
}

enum PartError {
    File(std::io::Error),
    Store(FetchError),
}

/// One multipart upload's destination.
struct Target<'a> {
    store: &'a ObjectStore,
    bucket: &'a Bucket,
    key: &'a ObjectKey,
}

impl Target<'_> {
    async fn start(&self, content_type: &str) -> Result<String, FetchError> {
        let key = self.key.as_str();
        let start = || async {
            let request = self.store.inner.client.create_multipart_upload().bucket(self.bucket.as_str());
            let request = request.key(key).content_type(content_type);
            let answer = self
                .store
                .send(Box::pin(request.set_expected_bucket_owner(self.store.owner()).send()))
                .await?;
            let id = answer.upload_id().map(str::to_owned);
            id.ok_or_else(|| Failure::new(Kind::Bug, "cannot be written: the store names no upload"))
        };
        self.store.with_retries(self.bucket, Some(key), start).await
    }

    /// Sends the file part by part; what was sent, in order, and its length.
    async fn send_parts(
        &self,
        upload_id: &str,
        file: &mut File,
        part_bytes: u64,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<(Vec<CompletedPart>, u64), PartError> {
        let (mut parts, mut sent) = (Vec::new(), 0);
        for number in 1.. {
            let mut bytes = Vec::with_capacity(usize::try_from(part_bytes).unwrap_or(0));
            file.take(part_bytes).read_to_end(&mut bytes).await.map_err(PartError::File)?;
            if bytes.is_empty() {
                break;
            }
            sent += bytes.len() as u64;
            let part = self.send_part(upload_id, number, Bytes::from(bytes)).await;
            parts.push(part.map_err(PartError::Store)?);
            progress(sent);
        }
        Ok((parts, sent))
    }

    async fn send_part(&self, id: &str, number: i32, bytes: Bytes) -> Result<CompletedPart, FetchError> {
        let key = self.key.as_str();
        let send = || async {
            let request = self.store.inner.client.upload_part().bucket(self.bucket.as_str()).key(key);
            let request = request.upload_id(id).part_number(number).body(ByteStream::from(bytes.clone()));
            let answer = self
                .store
                .send(Box::pin(request.set_expected_bucket_owner(self.store.owner()).send()))
                .await?;
            let etag = answer.e_tag().map(str::to_owned);
            Ok(CompletedPart::builder().part_number(number).set_e_tag(etag).build())
        };
        self.store.with_retries(self.bucket, Some(key), send).await
    }

    async fn complete(&self, id: &str, sent: (Vec<CompletedPart>, u64)) -> Result<ObjectInfo, FetchError> {
        let (parts, length_bytes) = sent;
        let key = self.key.as_str();
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = || async {
            let request = self.store.inner.client.complete_multipart_upload().bucket(self.bucket.as_str());
            let request = request.key(key).upload_id(id).multipart_upload(upload.clone());
            let answer = self
                .store
                .send(Box::pin(request.set_expected_bucket_owner(self.store.owner()).send()))
                .await?;
            Ok(ObjectInfo {
                length_bytes,
                version: answer.version_id().map(str::to_owned),
                etag: answer.e_tag().map(plain_etag),
            })
        };
        self.store.with_retries(self.bucket, Some(key), complete).await
    }

    async fn abort(&self, id: &str) {
        let key = self.key.as_str();
        let abort = || async {
            let request = self.store.inner.client.abort_multipart_upload().bucket(self.bucket.as_str());
            let request = request.key(key).upload_id(id).set_expected_bucket_owner(self.store.owner());
            self.store.send(Box::pin(request.send())).await
        };
        if let Err(error) = self.store.with_retries(self.bucket, Some(key), abort).await {
            tracing::warn!(%error, "parts of a failed upload stay in the store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_fits_into_the_parts_that_the_store_allows() {
        for length in [MULTIPART_ABOVE + 1, 80 << 30, (80 << 30) + 1, 5 << 40] {
            assert!(length.div_ceil(part_bytes(length)) <= PARTS_MAX, "{length}");
        }
        assert_eq!(part_bytes(17 << 20), PART_BYTES_MIN);
    }
}
