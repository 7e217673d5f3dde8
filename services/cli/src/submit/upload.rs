//! Files go up to the configured bucket before they are submitted, under keys made of their content.

use std::io::Read;
use std::path::{Path, PathBuf};

use forensics::{Bucket, ObjectKey};
use media::{Disposition, FetchError, ObjectStore, UploadError};
use proto::v1;
use proto::v1::media_reference::Source;
use sha2::{Digest, Sha256};

use super::plan::Planned;
use crate::failure::{Failure, Status};
use crate::settings::Settings;

/// Digits of the content's SHA-256 in ids and keys: 64 bits, so that a collision within one's own media is out of
/// the question, and the name after it can still be read.
const DIGEST_DIGITS: usize = 16;

/// The longest name taken over into an id (256 bytes at most) or a key.
const NAME_BYTES_MAX: usize = 200;

/// Gives each media its place in the store.
pub(super) struct Uploader {
    /// `None` where nothing is local.
    destination: Option<Destination>,
}

struct Destination {
    store: ObjectStore,
    bucket: Bucket,
    prefix: String,
}

/// A media whose pictures are in the store.
pub(super) struct Placed {
    pub(super) media_id: String,
    pub(super) source: Source,
}

impl Uploader {
    /// Connects to the store if one of the media is local.
    pub(super) async fn new(settings: &Settings, planned: &[Planned]) -> Result<Self, Failure> {
        if !planned.iter().any(Planned::is_local) {
            return Ok(Self { destination: None });
        }
        let upload = &settings.upload;
        if upload.bucket.is_empty() {
            let cause = "files must be uploaded first, and no bucket is configured for that";
            return Err(Failure::new(Status::Usage, cause)
                .next("give --data DIR of a standalone, --bucket NAME, or s3:// URIs"));
        }
        let bucket = Bucket::parse(&upload.bucket).map_err(|error| Failure::new(Status::Usage, error))?;
        let config = settings.s3.clone().check()?;
        let store = ObjectStore::connect(config, &ops::metrics::Registry::new())
            .await
            .map_err(|error| Failure::new(Status::Software, error))?;
        Ok(Self { destination: Some(Destination { store, bucket, prefix: upload.prefix.clone() }) })
    }

    /// Uploads what is local.
    pub(super) async fn place(&self, planned: Planned) -> Result<Placed, Failure> {
        match planned {
            Planned::Object { bucket, key } => {
                let media_id = id_of_uri(&format!("s3://{bucket}/{key}"));
                let object = Some(v1::ObjectRef { key, ..Default::default() });
                Ok(Placed { media_id, source: Source::Image(v1::ImageSource { bucket, object }) })
            }
            Planned::Prefix { bucket, prefix } => {
                let media_id = id_of_uri(&format!("s3://{bucket}/{prefix}"));
                Ok(Placed { media_id, source: Source::Prefix(v1::PrefixSource { bucket, prefix }) })
            }
            Planned::File(path) => self.destination()?.file(path).await,
            Planned::Frames { folder, names } => self.destination()?.frames(folder, names).await,
        }
    }

    fn destination(&self) -> Result<&Destination, Failure> {
        let missing = || Failure::new(Status::Software, "no destination for a local file");
        self.destination.as_ref().ok_or_else(missing)
    }
}

impl Destination {
    async fn file(&self, path: PathBuf) -> Result<Placed, Failure> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = path.clone();
        let digest = in_background(move || {
            digest_file(&file).map(hex::encode).map_err(|error| Failure::file(&file, &error))
        })
        .await?;
        let digest = &digest[..DIGEST_DIGITS];
        let media_id = format!("{digest}-{}", plain(&name));
        let key = format!("{}{digest}/{}", self.prefix, plain(&name));
        let etag = self.put(&path, &key).await?;
        let object = Some(v1::ObjectRef { key, version: String::new(), etag });
        let source = Source::Image(v1::ImageSource { bucket: self.bucket.as_str().to_owned(), object });
        Ok(Placed { media_id, source })
    }

    /// One folder of frames; the key's folder is made of all their contents, so that frames of different media,
    /// or of an older state of this one, never mix.
    async fn frames(&self, folder: PathBuf, names: Vec<String>) -> Result<Placed, Failure> {
        let name = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (root, frames) = (folder.clone(), names.clone());
        let digest = in_background(move || digest_frames(&root, &frames)).await?;
        let digest = &digest[..DIGEST_DIGITS];
        let media_id = format!("{digest}-{}", plain(&name));
        let prefix = format!("{}{digest}/", self.prefix);
        for name in names {
            self.put(&folder.join(&name), &format!("{prefix}{name}")).await?;
        }
        let bucket = self.bucket.as_str().to_owned();
        Ok(Placed { media_id, source: Source::Prefix(v1::PrefixSource { bucket, prefix }) })
    }

    /// Uploads one file; its entity tag, so that what is judged is what was uploaded.
    async fn put(&self, path: &Path, key: &str) -> Result<String, Failure> {
        let key = ObjectKey::parse(key)
            .map_err(|error| Failure::new(Status::NoInput, format_args!("{}: {error}", path.display())))?;
        let uploaded = self.store.put_file(&self.bucket, &key, path, content_type(path), |_| {}).await;
        let info = uploaded.map_err(|error| match error {
            UploadError::File { path, source } => Failure::file(Path::new(&path), &source),
            UploadError::Store(error) => store_failure(&error),
        })?;
        Ok(info.etag.unwrap_or_default())
    }
}

fn store_failure(error: &FetchError) -> Failure {
    let (status, next) = match error.disposition() {
        Disposition::Retry | Disposition::Pause(_) => {
            (Status::Unavailable, "check s3.endpoint and the s3 keys: `touchstone config show`")
        }
        Disposition::Reject(_) => {
            (Status::NoPermission, "check that the bucket exists and the keys may write to it")
        }
        Disposition::Fatal => (Status::Software, "this is a bug: the request could not be made"),
    };
    Failure::new(status, format_args!("upload: {}", error.detail())).next(next)
}

/// What the store is told; workers look at the bytes, not at this.
fn content_type(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// A URI as an id, shortened to its digest where it is longer than an id may be.
fn id_of_uri(uri: &str) -> String {
    if uri.len() <= 256 { uri.to_owned() } else { hex::encode(Sha256::digest(uri.as_bytes())) }
}

/// A name that the grammar of ids and keys accepts.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }) {
        if plain.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        plain.push(c);
    }
    if plain.is_empty() || plain == ".." { "media".to_owned() } else { plain }
}

/// Hex SHA-256 over the frames' names and digests.
fn digest_frames(folder: &Path, names: &[String]) -> Result<String, Failure> {
    let mut all = Sha256::new();
    for name in names {
        let path = folder.join(name);
        let digest = digest_file(&path).map_err(|error| Failure::file(&path, &error))?;
        all.update(Sha256::digest(name.as_bytes()));
        all.update(digest);
    }
    Ok(hex::encode(all.finalize()))
}

fn digest_file(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(path)?;
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.finalize().into()),
            length => digest.update(&piece[..length]),
        }
    }
}

/// Blocking work beside the connections.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(Status::Software, error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_strangers_become_valid_ids_and_keys() {
        for name in ["", "..", "a\nb", &"ü".repeat(300), "a/b"] {
            let plain = plain(name);
            assert!(ObjectKey::parse(&format!("uploads/0/{plain}")).is_ok(), "{name:?}");
            assert!(forensics::MediaId::parse(&plain).is_ok(), "{name:?}");
        }
        let long = id_of_uri(&format!("s3://bucket/{}", "x".repeat(1_000)));
        assert!(forensics::MediaId::parse(&long).is_ok());
    }

    #[test]
    fn frames_are_told_apart_by_name_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b"] {
            std::fs::write(root.join(name), "abc").unwrap();
        }
        // `printf abc | sha256sum`
        assert!(hex::encode(digest_file(&root.join("a")).unwrap()).starts_with("ba7816bf8f01cfea"));
        let digest = |names: &[&str]| {
            digest_frames(root, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_ne!(digest(&["a"]).unwrap(), digest(&["b"]).unwrap());
        assert_ne!(digest(&["a"]).unwrap(), digest(&["a", "b"]).unwrap());
        assert_eq!(digest(&["none"]).unwrap_err().status, Status::NoInput);
    }
}
