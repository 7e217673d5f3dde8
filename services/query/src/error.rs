//! What a caller is told.

use std::time::Duration;

use forensics::InvalidReference;
use stream::{Disposition, StreamError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::store::StoreError;

/// Who says the reason, in google.rpc.ErrorInfo.
const DOMAIN: &str = "touchstone";

/// When to ask again. Chosen: log and store recover in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Everything that ends a request without its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("{}: {}", .0.field, .0.why)]
    Invalid(#[from] InvalidReference),
    #[error("no such verdict")]
    NotFound,
    #[error("{what} at once are the most there can be: {max}")]
    TooMany { what: &'static str, max: usize },
    #[error("the answer would be larger than {max} bytes: ask for fewer")]
    TooLarge { max: usize },
    #[error("the deadline of the stream has passed")]
    Deadline,
    #[error("this replica is leaving: go on at another one")]
    Leaving,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] StreamError),
}

impl QueryError {
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid(InvalidReference::new(field, why))
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        let mut details = ErrorDetails::new();
        let mut reason = |reason: &str| {
            details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
        };
        let code = match &error {
            QueryError::Invalid(invalid) => {
                details.add_bad_request_violation(invalid.field, invalid.why.clone());
                Code::InvalidArgument
            }
            QueryError::NotFound => {
                reason("VERDICT_NOT_FOUND");
                Code::NotFound
            }
            QueryError::TooMany { .. } => {
                reason("TOO_MANY");
                details.set_retry_info(Some(RETRY_AFTER));
                Code::ResourceExhausted
            }
            QueryError::TooLarge { .. } => {
                reason("ANSWER_TOO_LARGE");
                Code::ResourceExhausted
            }
            QueryError::Deadline => Code::DeadlineExceeded,
            QueryError::Leaving => {
                reason("LEAVING");
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Unavailable
            }
            QueryError::Store(StoreError::Refused { .. }) => {
                reason("STORE_REFUSED");
                Code::Internal
            }
            QueryError::Store(_) => {
                reason("STORE_UNAVAILABLE");
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Unavailable
            }
            QueryError::Log(log) if matches!(log.disposition(), Disposition::Retry | Disposition::Pause) => {
                reason("LOG_UNAVAILABLE");
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Unavailable
            }
            QueryError::Log(_) => {
                reason("LOG_REFUSED");
                Code::Internal
            }
        };
        if matches!(code, Code::Internal | Code::Unavailable) {
            tracing::warn!(?code, "a request failed: {message}");
        }
        Status::with_error_details(code, message, details)
    }
}
