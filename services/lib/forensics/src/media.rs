//! What is to be judged: references to media in an object store. The grammar is checked once, here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

/// At most this many frames of one media are judged; more are sampled evenly. Chosen: 512 frames are 17 s of
/// video at 30 frames/s, and bound the memory of one job.
pub const FRAMES_MAX: usize = 512;

/// A reference lists at most this many keys, so that a record stays below a broker's default 1 MiB.
pub const OBJECTS_MAX: usize = 4_096;

/// A reference that can be parsed but breaks the grammar; the media ends as FAILED(INVALID_REFERENCE).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct InvalidReference {
    /// The field's name in the reference, such as `source.image.object.key`.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl InvalidReference {
    /// An error for `field`.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype! {
    /// Who asks; grammar `[a-z0-9-]{1,63}`.
    Tenant
}
text_newtype! {
    /// The platform's own name of a media: 1 to 256 bytes without control characters.
    MediaId
}
text_newtype! {
    /// A bucket by S3's naming rules: 3 to 63 of `[a-z0-9.-]`, a letter or digit at both ends.
    Bucket
}
text_newtype! {
    /// An object's key: 1 to 1,024 bytes, no control characters, no `..` segment, not starting with `/`.
    ObjectKey
}

impl Tenant {
    /// Parses a tenant's name.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let ok = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidReference::new(
            "tenant",
            format!("must be 1 to 63 of a-z, 0-9 and -, got {}", quoted(text)),
        ))
    }

    /// The tenant of callers and producers that name none.
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }

    /// Stands in a verdict for a tenant that broke the grammar, so that it is never taken for another's.
    pub fn invalid() -> Self {
        Self("invalid-tenant".to_owned())
    }
}

impl MediaId {
    /// Parses a media id.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        let why = format!("must be 1 to 256 bytes without control characters, got {}", quoted(text));
        Err(InvalidReference::new("media_id", why))
    }

    /// The nearest valid id to a text that broke the grammar: control characters become `\u{fffd}`, the
    /// rest is cut, nothing becomes `-`. For the FAILED(INVALID_REFERENCE) verdict only.
    pub fn lossy(text: &str) -> Self {
        let mut id = String::new();
        for c in text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
            if id.len() + c.len_utf8() > 256 {
                break;
            }
            id.push(c);
        }
        Self(if id.is_empty() { "-".to_owned() } else { id })
    }
}

impl Bucket {
    /// Parses a bucket's name.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ok = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|&b| alnum(b) || b == b'.' || b == b'-')
            && alnum(bytes[0])
            && alnum(bytes[bytes.len() - 1])
            && !text.contains("..");
        if ok {
            return Ok(Self(text.to_owned()));
        }
        let why = format!("must be an S3 bucket name (3 to 63 of a-z, 0-9, . and -), got {}", quoted(text));
        Err(InvalidReference::new("source.bucket", why))
    }
}

impl ObjectKey {
    /// Parses an object's key.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::new("source.key", "is empty; name an object"));
        }
        check_path("source.key", text)?;
        Ok(Self(text.to_owned()))
    }
}

/// The grammar shared by keys and prefixes.
fn check_path(field: &'static str, text: &str) -> Result<(), InvalidReference> {
    let why = if text.len() > 1_024 {
        "is longer than 1,024 bytes".to_owned()
    } else if text.chars().any(char::is_control) {
        format!("has a control character: {}", quoted(text))
    } else if text.split('/').any(|segment| segment == "..") {
        format!("has a '..' segment: {}", quoted(text))
    } else if text.starts_with('/') {
        format!("starts with '/': {}", quoted(text))
    } else if text.contains("://") {
        format!("is a URL: {}; give bucket and key", quoted(text))
    } else {
        return Ok(());
    };
    Err(InvalidReference::new(field, why))
}

/// At most 80 characters of `text`, escaped: references come from strangers.
fn quoted(text: &str) -> String {
    let head: String = text.chars().take(80).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}

/// How soon an answer is wanted; one topic a lane, so that lag and quotas separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Somebody waits.
    Live,
    /// Uploads as they come.
    Standard,
    /// Backfill.
    Bulk,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 3] = [Self::Live, Self::Standard, Self::Bulk];

    /// The name in topics, metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the pictures show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FacesIn {
    /// Whole scenes: find the faces.
    #[default]
    Detect,
    /// Each picture already is one face crop.
    Cropped,
}

/// One object, optionally pinned to a version or an entity tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// The object's key.
    pub key: ObjectKey,
    /// The version to read; the newest if none.
    pub version: Option<String>,
    /// Read only if the entity tag is this one.
    pub etag: Option<String>,
}

impl ObjectRef {
    /// A reference to the newest version of `key`.
    pub fn newest(key: ObjectKey) -> Self {
        Self { key, version: None, etag: None }
    }

    /// A pinned reference; version and tag are checked.
    pub fn pinned(
        key: ObjectKey,
        version: Option<String>,
        etag: Option<String>,
    ) -> Result<Self, InvalidReference> {
        for (field, pin) in [("source.version", &version), ("source.etag", &etag)] {
            if let Some(text) = pin
                && !((1..=1_024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()))
            {
                let why = format!("must be 1 to 1,024 visible ASCII characters, got {}", quoted(text));
                return Err(InvalidReference::new(field, why));
            }
        }
        Ok(Self { key, version, etag })
    }
}

/// Where the pictures of a media lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Frames by key, in this order.
    Frames {
        /// The bucket of all of them.
        bucket: Bucket,
        /// 1 to [`OBJECTS_MAX`] objects.
        objects: Vec<ObjectRef>,
    },
    /// All objects below a prefix, in natural order (`frame-2` before `frame-10`).
    Prefix {
        /// The bucket.
        bucket: Bucket,
        /// The prefix; never empty, so that nobody submits a whole bucket by mistake.
        prefix: String,
    },
    /// A single picture.
    Image {
        /// The bucket.
        bucket: Bucket,
        /// The picture.
        object: ObjectRef,
    },
    /// A video; ends as NOT_APPLICABLE(UNSUPPORTED_MEDIA) where the worker has no video decoder.
    Video {
        /// The bucket.
        bucket: Bucket,
        /// The video.
        object: ObjectRef,
        /// At most this many frames are sampled.
        frames_max: u32,
    },
}

impl Source {
    /// Frames by key.
    pub fn frames(bucket: Bucket, objects: Vec<ObjectRef>) -> Result<Self, InvalidReference> {
        match objects.len() {
            0 => Err(InvalidReference::new("source.frames", "names no frame")),
            n if n > OBJECTS_MAX => {
                let why = format!("names {n} frames, the most is {OBJECTS_MAX}; use a prefix");
                Err(InvalidReference::new("source.frames", why))
            }
            _ => Ok(Self::Frames { bucket, objects }),
        }
    }

    /// All objects below `prefix`.
    pub fn prefix(bucket: Bucket, prefix: &str) -> Result<Self, InvalidReference> {
        if prefix.is_empty() {
            return Err(InvalidReference::new("source.prefix", "is empty; name a folder, such as frames/"));
        }
        check_path("source.prefix", prefix)?;
        Ok(Self::Prefix { bucket, prefix: prefix.to_owned() })
    }

    /// The bucket that is read.
    pub fn bucket(&self) -> &Bucket {
        match self {
            Self::Frames { bucket, .. }
            | Self::Prefix { bucket, .. }
            | Self::Image { bucket, .. }
            | Self::Video { bucket, .. } => bucket,
        }
    }
}

/// A request for one verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaReference {
    /// Who asks.
    pub tenant: Tenant,
    /// The platform's name of the media.
    pub media_id: MediaId,
    /// Where the pictures lie.
    pub source: Source,
    /// Whole scenes or crops.
    pub faces: FacesIn,
    /// How soon.
    pub lane: Lane,
    /// When an answer is worth most.
    pub due_at: Option<SystemTime>,
    /// The submitter's own labels, carried into the verdict; at most 32, each at most 256 bytes.
    pub labels: BTreeMap<String, String>,
    /// The submitter's idempotency key.
    pub request_id: Option<String>,
    /// When the front door took it; the record's timestamp stands in where a producer leaves it out.
    pub submitted_at: Option<SystemTime>,
    /// 0 at first; a redrive that shall replace an earlier verdict raises it.
    pub generation: u32,
}

/// Checks the submitter's labels.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), InvalidReference> {
    if labels.len() > 32 {
        return Err(InvalidReference::new("labels", format!("{} labels, the most is 32", labels.len())));
    }
    for (key, value) in labels {
        let ok = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
        if key.is_empty() || !ok(key) || !ok(value) {
            let why = format!("{} must be at most 256 bytes without control characters", quoted(key));
            return Err(InvalidReference::new("labels", why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grammar_refuses_what_could_reach_elsewhere() {
        for bad in ["", "/etc/passwd", "a/../b", "..", "a\nb", "http://169.254.169.254/x", &"x".repeat(1_025)]
        {
            assert!(ObjectKey::parse(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "a..b/c", "frames/0001.jpg", "ünïcode/日本.png"] {
            assert!(ObjectKey::parse(good).is_ok(), "{good:?} must be accepted");
        }
        for bad in ["", "ab", "Upper", "a_b", "-ab", "ab-", "a..b", "169.254.169.254/x", &"x".repeat(64)] {
            assert!(Bucket::parse(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(Tenant::parse("acme-2").is_ok());
        assert!(Tenant::parse("acme|x").is_err(), "the key's separator cannot occur in a tenant");
        assert!(Source::prefix(Bucket::parse("media").expect("valid"), "").is_err());
    }

    proptest! {
        #[test]
        fn a_lossy_media_id_is_always_valid(text in any::<String>()) {
            let id = MediaId::lossy(&text);
            prop_assert_eq!(MediaId::parse(id.as_str()), Ok(id));
        }

        #[test]
        fn errors_never_repeat_control_characters(text in any::<String>()) {
            if let Err(error) = ObjectKey::parse(&text) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
