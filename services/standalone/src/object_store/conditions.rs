//! `If-Match` and its three sisters (RFC 9110, section 13).

use std::time::{Duration, SystemTime};

use s3s::dto::{ETagCondition, Timestamp};

use super::blob::Metadata;
use super::disk::StoreError;

/// The conditions of one request.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// Of a write.
    pub(super) fn of_write(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> Self {
        Conditions { if_match, if_none_match, ..Conditions::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// Before a GET or HEAD of something that is there.
    pub(super) fn check_read(&self, present: &Metadata) -> Result<(), StoreError> {
        // HTTP dates have whole seconds.
        let modified = whole_seconds(present.modified());
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(wanted), _) if !holds(wanted, present) => return Err(StoreError::PreconditionFailed),
            (None, Some(date)) if modified > system_time(date) => return Err(StoreError::PreconditionFailed),
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(known), _) if holds(known, present) => Err(StoreError::NotModified),
            (None, Some(date)) if modified <= system_time(date) => Err(StoreError::NotModified),
            _ => Ok(()),
        }
    }

    /// Before a PUT over what is there, or not.
    pub(super) fn check_write(&self, present: Option<&Metadata>) -> Result<(), StoreError> {
        let matches = |condition: &ETagCondition| present.is_some_and(|present| holds(condition, present));
        if self.if_match.as_ref().is_some_and(|wanted| !matches(wanted)) {
            return Err(if present.is_none() {
                StoreError::NoSuchKey
            } else {
                StoreError::PreconditionFailed
            });
        }
        if self.if_none_match.as_ref().is_some_and(matches) {
            return Err(StoreError::PreconditionFailed);
        }
        Ok(())
    }
}

fn holds(condition: &ETagCondition, present: &Metadata) -> bool {
    condition.as_etag().is_none_or(|etag| etag.value() == present.etag)
}

fn system_time(timestamp: &Timestamp) -> SystemTime {
    let mut text = Vec::new();
    let seconds = timestamp
        .format(s3s::dto::TimestampFormat::EpochSeconds, &mut text)
        .ok()
        .and_then(|()| std::str::from_utf8(&text).ok()?.parse::<f64>().ok());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or(0.0).max(0.0) as u64)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
