//! What went wrong, what to do next, and the exit code that says so to scripts.

use std::fmt;
use std::process::ExitCode;

use tonic::Code;

/// Exit codes, after `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Wrong arguments or configuration.
    Usage = 64,
    /// The data are wrong: a reference is refused, or the auditor found a broken promise.
    Data = 65,
    /// A file or a verdict that is not there.
    NoInput = 66,
    /// A service cannot be reached.
    Unavailable = 69,
    /// A bug, here or there.
    Software = 70,
    /// A file cannot be read or written.
    Io = 74,
    /// Not now; the same command may work later.
    Temporary = 75,
    /// The service answers in a way that this version does not know.
    Protocol = 76,
    /// Not allowed.
    NoPermission = 77,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

/// An error for people: its cause, and where there is one, the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) cause: String,
    pub(crate) next: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: Status, cause: impl fmt::Display) -> Self {
        Self { status, cause: cause.to_string(), next: None }
    }

    /// With what to do about it.
    pub(crate) fn next(self, step: impl Into<String>) -> Self {
        Self { next: Some(step.into()), ..self }
    }

    /// A local file that cannot be used.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let status = if missing { Status::NoInput } else { Status::Io };
        Self::new(status, format_args!("{}: {error}", path.display()))
    }

    /// Whether whoever read our output has gone, as `head` does: no error, but the end.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.status == Status::Ok
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\n  next: {next}"))
    }
}

/// Writing answers to standard output failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self::new(if closed { Status::Ok } else { Status::Io }, format_args!("standard output: {error}"))
    }
}

impl From<ops::config::ConfigError> for Failure {
    fn from(error: ops::config::ConfigError) -> Self {
        Self::new(Status::Usage, error).next("`touchstone config show` prints every knob with its value")
    }
}

impl From<proto::json::NoJsonForm> for Failure {
    fn from(error: proto::json::NoJsonForm) -> Self {
        Self::new(Status::Protocol, error).next("leave --output json out: the table shows what can be shown")
    }
}

impl From<tonic::Status> for Failure {
    fn from(answer: tonic::Status) -> Self {
        let (status, next) = match answer.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => (Status::Data, None),
            Code::AlreadyExists => {
                (Status::Data, Some("give another --request-id, or send the very same request again"))
            }
            Code::NotFound => (Status::NoInput, None),
            Code::PermissionDenied | Code::Unauthenticated => {
                (Status::NoPermission, Some("check --tenant, and the buckets that the service allows it"))
            }
            Code::Unavailable => (
                Status::Unavailable,
                Some("see whether the service is ready: its admin port's /readyz says why"),
            ),
            Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => (
                Status::Temporary,
                Some("try again later; connection.call_deadline is how long a call may take"),
            ),
            Code::Unimplemented => (
                Status::Protocol,
                Some("client and service differ in version: compare `touchstone --version`"),
            ),
            _ => (Status::Software, Some("the service's log names the cause")),
        };
        let message = if answer.message().is_empty() { "no details" } else { answer.message() };
        let cause = format!("the service answers {}: {message}", name(answer.code()));
        Self { status, cause, next: next.map(str::to_owned) }
    }
}

/// The code's name in gRPC's own spelling.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_cause_next_step_and_exit_code() {
        let failure = Failure::from(tonic::Status::permission_denied("bucket \"other\" is not acme's"));
        assert_eq!(failure.status, Status::NoPermission);
        let text = failure.to_string();
        assert!(
            text.starts_with(
                "the service answers PERMISSION_DENIED: bucket \"other\" is not acme's\n  next: "
            )
        );
        assert_eq!(Failure::from(tonic::Status::unavailable("")).status as u8, 69);
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error() {
        let gone = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(gone.is_closed_pipe());
        assert!(!Failure::from(std::io::Error::other("disk")).is_closed_pipe());
    }
}
