//! What the caller does with an error: the corridor matches on this alone.

use forensics::FailureClass;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// This object may be readable later; the room's own quick attempts are spent.
    Retry,
    /// The store is in trouble, not this object: judge nothing, stop taking work, probe until it is well.
    Pause(SystemicCause),
    /// It is this object: its frame has failed, for good.
    Reject(FailureClass),
    /// The process cannot go on: a bug, or it is shutting down.
    Fatal,
}

/// What is wrong with the store as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemicCause {
    /// Refused or reset connections, names that do not resolve, broken TLS.
    Unreachable,
    /// The store asks for fewer requests.
    Throttled,
    /// 5xx.
    ServerError,
    /// Expired, unknown or missing credentials, or a signature that the store does not accept.
    Credentials,
    /// Our clock and the store's differ by more than it accepts.
    Clock,
}

impl SystemicCause {
    /// Every cause.
    pub const ALL: [Self; 5] =
        [Self::Unreachable, Self::Throttled, Self::ServerError, Self::Credentials, Self::Clock];

    /// The name in metrics, logs and `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
        }
    }
}

impl std::fmt::Display for SystemicCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
