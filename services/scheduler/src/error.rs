//! Why a media was refused.

use std::collections::HashMap;
use std::time::Duration;

use forensics::{Bucket, InvalidReference};
use proto::v1;
use stream::{Disposition, StreamError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Who says the reason, in google.rpc.ErrorInfo.
const DOMAIN: &str = "touchstone";

/// When to ask again. Chosen: the log recovers in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a media was not accepted. Nothing of it is in the log, except possibly after [`SubmitError::Unavailable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("{}: {}", .0.field, .0.why)]
    Invalid(#[from] InvalidReference),
    #[error("tenant: the reference names {named}, the call is of {caller}")]
    ForeignTenant { named: String, caller: String },
    #[error("bucket {bucket}: this tenant may not have it read, or not there")]
    BucketNotAllowed { bucket: Bucket },
    #[error("request id {request_id:?} came with another request before")]
    OtherRequest { request_id: String },
    #[error("{why}; try again")]
    Unavailable { why: String },
    #[error("the log refused the reference: {why}")]
    Refused { why: String },
}

impl From<StreamError> for SubmitError {
    fn from(error: StreamError) -> Self {
        let why = error.to_string();
        match error.disposition() {
            Disposition::Retry | Disposition::Pause => Self::Unavailable { why },
            Disposition::Reject | Disposition::Restart | Disposition::Fatal => Self::Refused { why },
        }
    }
}

impl SubmitError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::ForeignTenant { .. } | Self::BucketNotAllowed { .. } => Code::PermissionDenied,
            Self::OtherRequest { .. } => Code::AlreadyExists,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Refused { .. } => Code::Internal,
        }
    }

    /// The reason, in google.rpc.ErrorInfo and as metrics label it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REFERENCE",
            Self::ForeignTenant { .. } => "FOREIGN_TENANT",
            Self::BucketNotAllowed { .. } => "BUCKET_NOT_ALLOWED",
            Self::OtherRequest { .. } => "REQUEST_ID_REUSED",
            Self::Unavailable { .. } => "LOG_UNAVAILABLE",
            Self::Refused { .. } => "LOG_REFUSED",
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.field,
            Self::ForeignTenant { .. } => "tenant",
            Self::BucketNotAllowed { .. } => "source.bucket",
            Self::OtherRequest { .. } => "request_id",
            Self::Unavailable { .. } | Self::Refused { .. } => "",
        }
    }
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        let mut details = ErrorDetails::new();
        match &error {
            SubmitError::Invalid(invalid) => {
                details.add_bad_request_violation(invalid.field, invalid.why.clone());
            }
            SubmitError::Unavailable { .. } => {
                details.set_retry_info(Some(RETRY_AFTER));
            }
            _ => {}
        }
        details.set_error_info(error.reason(), DOMAIN, HashMap::new());
        Status::with_error_details(error.code(), error.to_string(), details)
    }
}

impl From<SubmitError> for v1::SubmitRefusal {
    fn from(error: SubmitError) -> Self {
        Self { code: error.code().into(), message: error.to_string(), field: error.field().to_owned() }
    }
}
