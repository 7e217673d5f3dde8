//! The S3 operations that we answer. Wire types come in here and stay here.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use hyper::StatusCode;
use s3s::dto::*;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::blob::{Blob, Content, Headers};
use super::conditions::Conditions;
use super::disk::{Disk, StoreError};
use super::listing::{After, Item, Query};
use super::receive::{Promise, blocking, receive};

/// Bytes of a large object read at a time. Chosen.
const READ_BYTES: u64 = 256 << 10;

/// S3's own limit for one page of a listing, and for the keys of one multi-delete.
const ITEMS_MAX: i32 = 1000;

/// What an object is when its writer did not say, as S3 has it.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The S3 side of one store.
pub(super) struct Service {
    pub(super) disk: Arc<Disk>,
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            StoreError::BucketExists => S3ErrorCode::BucketAlreadyOwnedByYou,
            StoreError::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
            StoreError::NoSuchKey => S3ErrorCode::NoSuchKey,
            StoreError::InvalidKey(_) => S3ErrorCode::InvalidArgument,
            StoreError::NoSuchUpload => S3ErrorCode::NoSuchUpload,
            StoreError::InvalidPart(_) => S3ErrorCode::InvalidPart,
            StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            StoreError::PartTooSmall => S3ErrorCode::EntityTooSmall,
            StoreError::TooLarge => S3ErrorCode::EntityTooLarge,
            StoreError::BadDigest(_) => S3ErrorCode::BadDigest,
            StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            StoreError::NotModified => S3ErrorCode::NotModified,
            StoreError::Body(_) => S3ErrorCode::IncompleteBody,
            StoreError::DiskFull(_) | StoreError::Io(_) => {
                tracing::error!(%error, "the object store cannot serve a request");
                S3ErrorCode::InternalError
            }
        };
        let full = matches!(error, StoreError::DiskFull(_));
        let mut answer = S3Error::with_message(code, error.to_string());
        if full {
            answer.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
        }
        answer
    }
}

fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let (disk, bucket) = (Arc::clone(&self.disk), req.input.bucket);
        let location = Some(format!("/{bucket}"));
        blocking(move || disk.create_bucket(&bucket)).await?;
        answer(CreateBucketOutput { location })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.disk.require_bucket(&req.input.bucket)?;
        answer(HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.disk.require_bucket(&req.input.bucket)?;
        answer(GetBucketLocationOutput::default())
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let disk = Arc::clone(&self.disk);
        let found = blocking(move || Ok(disk.list_buckets()?)).await?;
        let buckets = found.into_iter().map(|(name, age)| Bucket {
            name: Some(name),
            creation_date: Some(age.into()),
            ..Bucket::default()
        });
        answer(ListBucketsOutput { buckets: Some(buckets.collect()), ..ListBucketsOutput::default() })
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let (disk, bucket) = (Arc::clone(&self.disk), req.input.bucket);
        blocking(move || disk.delete_bucket(&bucket)).await?;
        answer(DeleteBucketOutput {})
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        only_version(input.version_id.as_deref())?;
        let (disk, bucket, key) = (Arc::clone(&self.disk), input.bucket, input.key);
        let blob = disk.get(&bucket, &key)?; // here, without a hop: see `server`
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check_read(&blob.metadata)?;
        let all = 0..blob.length;
        let wanted = input.range.map_or(Ok(all), |range| range.check(blob.length))?;
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{}", wanted.start, wanted.end.saturating_sub(1), blob.length));
        let Headers {
            content_type,
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            user,
        } = blob.metadata.headers.clone();
        answer(GetObjectOutput {
            accept_ranges: Some("bytes".to_string()),
            e_tag: Some(ETag::Strong(blob.metadata.etag.clone())),
            last_modified: Some(blob.metadata.modified().into()),
            content_length: Some(length_of(wanted.end - wanted.start)),
            content_range,
            content_type: Some(content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_string())),
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            metadata: Some(user.into_iter().collect()),
            body: Some(body(blob, wanted)),
            ..GetObjectOutput::default()
        })
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        only_version(input.version_id.as_deref())?;
        let (disk, bucket, key) = (Arc::clone(&self.disk), input.bucket, input.key);
        let (metadata, length) = disk.head(&bucket, &key)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check_read(&metadata)?;
        let last_modified = Some(metadata.modified().into());
        let Headers {
            content_type,
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            user,
        } = metadata.headers;
        answer(HeadObjectOutput {
            accept_ranges: Some("bytes".to_string()),
            e_tag: Some(ETag::Strong(metadata.etag)),
            last_modified,
            content_length: Some(length_of(length)),
            content_type: Some(content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_string())),
            content_encoding,
            content_disposition,
            content_language,
            cache_control,
            metadata: Some(user.into_iter().collect()),
            ..HeadObjectOutput::default()
        })
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        super::keys::check(&input.key).map_err(StoreError::InvalidKey)?;
        self.disk.require_bucket(&input.bucket)?; // before a large body travels in vain
        let promise = Promise {
            md5: input.content_md5,
            checksums: Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c,
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Checksum::default()
            },
            trailers: req.trailing_headers.zip(trailer_names(&req.headers)),
        };
        let headers = Headers {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            user: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let conditions = Conditions::of_write(input.if_match, input.if_none_match);
        let (bucket, key) = (input.bucket, input.key);
        let etag = receive(&self.disk, input.body, promise, move |disk, written| {
            let etag = hex::encode(written.md5);
            let (incoming, metadata) = written.seal(etag, headers).map_err(|error| disk.refused(error))?;
            disk.place(incoming, &bucket, &key, &conditions)?;
            Ok(metadata.etag)
        })
        .await?;
        answer(PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..PutObjectOutput::default() })
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let (disk, bucket, key) = (Arc::clone(&self.disk), req.input.bucket, req.input.key);
        blocking(move || disk.delete(&bucket, &[key])?.into_iter().collect::<Result<(), _>>()).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let Delete { objects, quiet } = req.input.delete;
        if objects.len() > ITEMS_MAX as usize {
            return Err(S3ErrorCode::MalformedXML.into());
        }
        let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
        let (disk, bucket) = (Arc::clone(&self.disk), req.input.bucket);
        let (keys, answers) = blocking(move || {
            let answers = disk.delete(&bucket, &keys)?;
            Ok((keys, answers))
        })
        .await?;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (key, answer) in keys.into_iter().zip(answers) {
            match answer {
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => {
                    let error = S3Error::from(error);
                    errors.push(Error {
                        code: Some(error.code().as_str().to_string()),
                        message: error.message().map(str::to_string),
                        key: Some(key),
                        version_id: None,
                    });
                }
            }
        }
        if quiet == Some(true) {
            deleted.clear();
        }
        answer(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        })
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let after = match &input.continuation_token {
            Some(token) => Some(After::from_token(token).ok_or(S3ErrorCode::InvalidArgument)?),
            None => input.start_after.clone().map(After::Key),
        };
        let max_keys = input.max_keys.unwrap_or(ITEMS_MAX).clamp(0, ITEMS_MAX);
        let query = Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after,
            items_max: max_keys as usize,
        };
        let (disk, bucket) = (Arc::clone(&self.disk), input.bucket.clone());
        let page = blocking(move || disk.list(&bucket, &query)).await?;
        let wire = |text: String| match &input.encoding_type {
            Some(kind) if kind.as_str() == EncodingType::URL => url_encode(&text),
            _ => text,
        };
        let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
        for item in page.items {
            match item {
                Item::Object { key, metadata, length } => contents.push(Object {
                    key: Some(wire(key)),
                    last_modified: Some(metadata.modified().into()),
                    e_tag: Some(ETag::Strong(metadata.etag)),
                    size: Some(length_of(length)),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    ..Object::default()
                }),
                Item::CommonPrefix(prefix) => {
                    common_prefixes.push(CommonPrefix { prefix: Some(wire(prefix)) })
                }
            }
        }
        answer(ListObjectsV2Output {
            key_count: Some((contents.len() + common_prefixes.len()) as i32),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|next| next.to_token()),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            name: Some(input.bucket),
            prefix: input.prefix.map(wire),
            delimiter: input.delimiter.map(wire),
            start_after: input.start_after.map(wire),
            max_keys: Some(max_keys),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type.clone(),
            request_charged: None,
        })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let headers = Headers {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            user: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let (disk, bucket, key) = (Arc::clone(&self.disk), input.bucket.clone(), input.key.clone());
        let id = blocking(move || disk.begin_upload(&bucket, &key, headers)).await?;
        answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let number = u32::try_from(input.part_number).ok().filter(|number| (1..=10_000).contains(number));
        let number = number.ok_or(S3ErrorCode::InvalidArgument)?;
        let promise = Promise {
            md5: input.content_md5,
            checksums: Checksum {
                checksum_crc32: input.checksum_crc32,
                checksum_crc32c: input.checksum_crc32c,
                checksum_crc64nvme: input.checksum_crc64nvme,
                checksum_sha1: input.checksum_sha1,
                checksum_sha256: input.checksum_sha256,
                ..Checksum::default()
            },
            trailers: req.trailing_headers.zip(trailer_names(&req.headers)),
        };
        let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
        let etag = receive(&self.disk, input.body, promise, move |disk, written| {
            let etag = hex::encode(written.md5);
            let sealed = written.seal(etag, Headers::default());
            let (incoming, metadata) = sealed.map_err(|error| disk.refused(error))?;
            disk.place_part(incoming, (&bucket, &key), &id, number)?;
            Ok(metadata.etag)
        })
        .await?;
        answer(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..UploadPartOutput::default() })
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let marker = input.part_number_marker.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let max_parts = input.max_parts.unwrap_or(ITEMS_MAX).clamp(1, ITEMS_MAX);
        let disk = Arc::clone(&self.disk);
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let mut found = blocking(move || disk.parts(&bucket, &key, &id)).await?;
        found.retain(|part| part.number > marker);
        let truncated = found.len() > max_parts as usize;
        found.truncate(max_parts as usize);
        let next = found.last().filter(|_| truncated).and_then(|part| i32::try_from(part.number).ok());
        let parts = found.into_iter().map(|part| Part {
            part_number: i32::try_from(part.number).ok(),
            last_modified: Some(part.metadata.modified().into()),
            e_tag: Some(ETag::Strong(part.metadata.etag)),
            size: Some(length_of(part.length)),
            ..Part::default()
        });
        answer(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max_parts),
            is_truncated: Some(truncated),
            next_part_number_marker: next,
            parts: Some(parts.collect()),
            ..ListPartsOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let listed: Option<Vec<(u32, String)>> = parts
            .into_iter()
            .map(|part| Some((u32::try_from(part.part_number?).ok()?, part.e_tag?.into_value())))
            .collect();
        let listed = listed.ok_or(S3ErrorCode::MalformedXML)?;
        let conditions = Conditions::of_write(input.if_match, input.if_none_match);
        let (disk, id) = (Arc::clone(&self.disk), input.upload_id);
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let etag = blocking(move || disk.complete_upload((&bucket, &key), &id, &listed, &conditions)).await?;
        answer(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let (disk, input) = (Arc::clone(&self.disk), req.input);
        blocking(move || disk.abort_upload(&input.bucket, &input.key, &input.upload_id)).await?;
        answer(AbortMultipartUploadOutput::default())
    }
}

/// Objects have one version, which S3 calls `null`.
fn only_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(S3ErrorCode::NoSuchVersion.into()),
    }
}

fn length_of(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn trailer_names(headers: &hyper::HeaderMap) -> Option<String> {
    Some(headers.get("x-amz-trailer")?.to_str().ok()?.to_ascii_lowercase())
}

/// The wanted bytes of an object: at once if they are in memory, else read piece by piece.
fn body(blob: Blob, wanted: Range<u64>) -> StreamingBlob {
    match blob.content {
        Content::Whole(all) => {
            let wanted = wanted.start as usize..wanted.end as usize; // of a length in memory
            StreamingBlob::from(Body::from(all.slice(wanted)))
        }
        Content::File(file) => {
            let file = Arc::new(file);
            StreamingBlob::wrap(stream::try_unfold(wanted, move |rest| read_piece(Arc::clone(&file), rest)))
        }
    }
}

async fn read_piece(
    file: Arc<std::fs::File>,
    rest: Range<u64>,
) -> Result<Option<(Bytes, Range<u64>)>, StoreError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let end = rest.end.min(rest.start + READ_BYTES);
    let piece = blocking(move || {
        let mut piece = vec![0; (end - rest.start) as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut piece, rest.start)?;
        Ok(Bytes::from(piece))
    })
    .await?;
    Ok(Some((piece, end..rest.end)))
}

/// As clients undo it when they asked for `encoding-type=url`.
fn url_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
