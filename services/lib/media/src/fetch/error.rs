//! What can go wrong with an object, by what the caller does about it.

use std::fmt;

use forensics::{Bucket, FailureClass, FrameFinding};

use crate::{Disposition, SystemicCause};

/// Why an object could not be read or written. `Display` is for logs and names the object by its hash;
/// [`FetchError::detail`] names it in full, for the verdict.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// This object may be readable later: it was too slow.
    #[error("{0}")]
    Retry(Problem),
    /// The store is in trouble, not this object.
    #[error("{1}")]
    Pause(SystemicCause, Problem),
    /// It is this object.
    #[error("{1}")]
    Reject(FailureClass, Problem),
    /// A bug: a request that cannot be made.
    #[error("{0}")]
    Fatal(Problem),
}

impl FetchError {
    /// What to do next.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Retry(_) => Disposition::Retry,
            Self::Pause(cause, _) => Disposition::Pause(*cause),
            Self::Reject(class, _) => Disposition::Reject(*class),
            Self::Fatal(_) => Disposition::Fatal,
        }
    }

    /// What happened, with the object's name in full: for verdicts and people, never for logs.
    pub fn detail(&self) -> String {
        let problem = self.problem();
        format!("{} {}", problem.location(), problem.what)
    }

    /// What happened.
    pub fn problem(&self) -> &Problem {
        match self {
            Self::Retry(problem)
            | Self::Pause(_, problem)
            | Self::Reject(_, problem)
            | Self::Fatal(problem) => problem,
        }
    }

    /// What the frame's finding is where the object is at fault; `None` for the other dispositions.
    pub fn finding(&self) -> Option<FrameFinding> {
        match self {
            Self::Reject(class, _) => Some(FrameFinding::Unreadable(*class)),
            _ => None,
        }
    }
}

/// What happened to which object.
#[derive(Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened, without the object's name.
    pub what: String,
    /// The bucket.
    pub bucket: String,
    /// The object's key or the prefix; `None` where it is about the bucket.
    pub key: Option<String>,
}

impl Problem {
    pub(super) fn new(bucket: &Bucket, key: Option<&str>, what: impl Into<String>) -> Self {
        Self { what: what.into(), bucket: bucket.as_str().to_owned(), key: key.map(str::to_owned) }
    }

    fn location(&self) -> String {
        match &self.key {
            Some(key) => format!("s3://{}/{key}", self.bucket),
            None => format!("s3://{}", self.bucket),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "object {} in {} {}", ops::log_key(key), self.bucket, self.what),
            None => write!(f, "bucket {} {}", self.bucket, self.what),
        }
    }
}

// Errors are logged with `{:?}` too: the key stays out of that as well.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
