//! Between the wire and the vocabulary. Reading checks everything once; writing cannot fail.

mod reference;
mod verdict;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use verdict::InvalidVerdict;

/// A wall-clock time on the wire.
pub fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

/// A wall-clock time from the wire; `None` outside what this machine can represent.
pub fn system_time(timestamp: &prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(*timestamp).ok()
}

/// A duration on the wire.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration from the wire; negative ones become zero.
pub fn std_duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default()
}

/// Milliseconds since 1970, as records carry them.
pub fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
