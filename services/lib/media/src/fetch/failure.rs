//! Reads the store's answers: whose fault a failure is, and whether trying again may help.

use std::error::Error;
use std::io;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;
use forensics::{Bucket, FailureClass};

use super::error::{FetchError, Problem};
use crate::SystemicCause;

/// One attempt's failure, before it is known whether it was the last.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection ended cleanly before the announced length: a cut network once, a cut file always.
    Short,
    /// No answer in time.
    Slow,
    /// The store as a whole; those that pass by themselves are tried again.
    Systemic(SystemicCause),
    /// This object, for good.
    Object(FailureClass),
    /// The request cannot be made.
    Bug,
}

impl Kind {
    /// The label in `retries_total` where another attempt may help.
    pub(super) fn retry_reason(self) -> Option<&'static str> {
        match self {
            Self::Short => Some("short_body"),
            Self::Slow => Some("timeout"),
            Self::Systemic(SystemicCause::Unreachable) => Some("connection"),
            Self::Systemic(SystemicCause::Throttled) => Some("throttled"),
            Self::Systemic(SystemicCause::ServerError) => Some("server_error"),
            Self::Systemic(SystemicCause::Credentials | SystemicCause::Clock) => None,
            Self::Object(_) | Self::Bug => None,
        }
    }
}

impl Failure {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    pub(super) fn object(class: FailureClass, what: impl Into<String>) -> Self {
        Self::new(Kind::Object(class), what)
    }

    /// The error of an operation that is given up with this failure. `always` says that every attempt there
    /// may be ended so: only then is a short body a cut file.
    pub(super) fn give_up(self, bucket: &Bucket, key: Option<&str>, always: bool) -> FetchError {
        let problem = Problem::new(bucket, key, self.what);
        match self.kind {
            Kind::Short if always => FetchError::Reject(FailureClass::Truncated, problem),
            Kind::Short => FetchError::Pause(SystemicCause::Unreachable, problem),
            Kind::Slow => FetchError::Retry(problem),
            Kind::Systemic(cause) => FetchError::Pause(cause, problem),
            Kind::Object(class) => FetchError::Reject(class, problem),
            Kind::Bug => FetchError::Fatal(problem),
        }
    }
}

/// What a request's error means.
pub(super) fn of_request<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let chain = || quoted(&DisplayErrorContext(error).to_string());
    match error {
        SdkError::ServiceError(answer) => {
            of_answer(answer.raw().status().as_u16(), answer.err().code(), answer.err().message())
        }
        // An answer that is not S3's: a proxy's page, a login form.
        SdkError::ResponseError(answer) => of_answer(answer.raw().status().as_u16(), None, None),
        SdkError::TimeoutError(_) => Failure::new(Kind::Slow, "did not answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            Failure::new(Kind::Slow, format!("did not answer in time: {}", chain()))
        }
        SdkError::DispatchFailure(failure) if failure.is_io() => {
            let kind = Kind::Systemic(SystemicCause::Unreachable);
            Failure::new(kind, format!("cannot be reached: {}", chain()))
        }
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            let text = chain();
            if text.to_ascii_lowercase().contains("credential") {
                let kind = Kind::Systemic(SystemicCause::Credentials);
                return Failure::new(kind, format!("cannot be asked for, no credentials: {text}"));
            }
            match error {
                SdkError::ConstructionFailure(_) => {
                    Failure::new(Kind::Bug, format!("cannot be asked for: {text}"))
                }
                _ => {
                    let kind = Kind::Systemic(SystemicCause::Unreachable);
                    Failure::new(kind, format!("cannot be reached: {text}"))
                }
            }
        }
        _ => Failure::new(Kind::Bug, format!("cannot be asked for: {}", chain())),
    }
}

/// What an answer of the store means. Codes: Amazon S3 API reference, "Error responses".
fn of_answer(status: u16, code: Option<&str>, message: Option<&str>) -> Failure {
    let code = code.unwrap_or_default();
    let said = match (code, message) {
        ("", None) => format!("HTTP {status}"),
        (code, message) => format!("HTTP {status} {code}: {}", quoted(message.unwrap_or_default())),
    };
    let systemic = |cause, what: &str| Failure::new(Kind::Systemic(cause), format!("{what}: {said}"));
    let object = |class, what: &str| Failure::object(class, format!("{what}: {said}"));
    match (status, code) {
        // The last one is versitygw's, with status 404: as if every object were missing.
        (
            _,
            "ExpiredToken"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "XAdminUserNotFound",
        ) => systemic(SystemicCause::Credentials, "cannot be read, the credentials are refused"),
        (_, "SignatureDoesNotMatch" | "AuthorizationHeaderMalformed" | "UnauthorizedAccess") | (401, _) => {
            systemic(SystemicCause::Credentials, "cannot be read, the signature is refused")
        }
        (_, "RequestTimeTooSkewed" | "RequestExpired") => {
            systemic(SystemicCause::Clock, "cannot be read, the clocks differ")
        }
        (_, "RequestTimeout") => Failure::new(Kind::Slow, format!("was too slow: {said}")),
        (429 | 503, _) | (_, "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded") => {
            systemic(SystemicCause::Throttled, "was not served, the store asks for fewer requests")
        }
        (500.., _) => systemic(SystemicCause::ServerError, "was not served"),
        // 405: the newest version is a delete marker.
        (404 | 405, _) | (_, "NoSuchKey" | "NoSuchBucket" | "NoSuchVersion") => {
            object(FailureClass::ObjectNotFound, "does not exist")
        }
        // Of what a reference names, stores check version ids and the lengths of keys.
        (400, "InvalidArgument" | "KeyTooLongError" | "InvalidURI") => {
            object(FailureClass::InvalidReference, "cannot be as it is referenced")
        }
        (412 | 304, _) => object(FailureClass::ChangedWhileReading, "is no longer the pinned one"),
        (300..=399, _) => object(
            FailureClass::AccessDenied,
            "lies elsewhere and redirects are not followed; check endpoint and region",
        ),
        _ => object(FailureClass::AccessDenied, "is refused"),
    }
}

/// What a body's error means: cut, stalled, or reset.
pub(super) fn of_body(error: &ByteStreamError) -> Failure {
    let text = quoted(&DisplayErrorContext(error).to_string());
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::UnexpectedEof
        {
            return Failure::new(Kind::Short, format!("ended early: {text}"));
        }
        cause = current.source();
    }
    // The SDK's own length check and its stall detector have private types.
    if text.contains("Invalid Content-Length") {
        Failure::new(Kind::Short, format!("ended early: {text}"))
    } else if text.contains("throughput") {
        Failure::new(Kind::Slow, format!("stalled: {text}"))
    } else {
        Failure::new(Kind::Systemic(SystemicCause::Unreachable), format!("was cut off: {text}"))
    }
}

/// At most 300 characters without control characters: stores and proxies are not to be trusted with our logs.
fn quoted(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{AccessDenied, ChangedWhileReading, InvalidReference, ObjectNotFound};
    use SystemicCause::{Clock, Credentials, ServerError, Throttled};

    #[test]
    fn answers_are_told_apart_by_whose_fault_they_are() {
        for (status, code, kind) in [
            (403, "AccessDenied", Kind::Object(AccessDenied)),
            (403, "AllAccessDisabled", Kind::Object(AccessDenied)),
            (403, "InvalidObjectState", Kind::Object(AccessDenied)),
            (403, "", Kind::Object(AccessDenied)),
            (403, "InvalidAccessKeyId", Kind::Systemic(Credentials)),
            (404, "XAdminUserNotFound", Kind::Systemic(Credentials)),
            (403, "SignatureDoesNotMatch", Kind::Systemic(Credentials)),
            (403, "RequestTimeTooSkewed", Kind::Systemic(Clock)),
            (400, "ExpiredToken", Kind::Systemic(Credentials)),
            (400, "RequestTimeout", Kind::Slow),
            (404, "NoSuchKey", Kind::Object(ObjectNotFound)),
            (404, "NoSuchBucket", Kind::Object(ObjectNotFound)),
            (400, "InvalidArgument", Kind::Object(InvalidReference)),
            (405, "MethodNotAllowed", Kind::Object(ObjectNotFound)),
            (412, "PreconditionFailed", Kind::Object(ChangedWhileReading)),
            (301, "PermanentRedirect", Kind::Object(AccessDenied)),
            (503, "SlowDown", Kind::Systemic(Throttled)),
            (429, "", Kind::Systemic(Throttled)),
            (500, "InternalError", Kind::Systemic(ServerError)),
            (502, "", Kind::Systemic(ServerError)),
        ] {
            assert_eq!(of_answer(status, Some(code), None).kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn a_store_cannot_write_into_our_logs() {
        let failure = of_answer(403, Some("AccessDenied"), Some("no\n2026-01-01 INFO all is well\u{1b}[2J"));
        assert!(!failure.what.chars().any(char::is_control), "{}", failure.what);
    }
}
