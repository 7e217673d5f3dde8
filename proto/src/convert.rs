//! Between the wire and the vocabulary. Reading checks everything once; writing cannot fail, and what is written has
//! a JSON form.

mod reference;
mod verdict;

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use verdict::InvalidVerdict;

/// From 0001-01-01T00:00:00Z to the last moment of 9999, in seconds since 1970: what `google/protobuf/timestamp.proto`
/// allows. A time outside of it has no JSON form, and whoever writes JSON would stumble over it.
const TIMES: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The longest duration that `google/protobuf/duration.proto` allows: 10,000 years.
const LONGEST: Duration = Duration::from_secs(315_576_000_000);

/// A wall-clock time on the wire; the nearest that it can say.
pub fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    let first = UNIX_EPOCH - Duration::from_secs(TIMES.start().unsigned_abs());
    let last = UNIX_EPOCH + Duration::new(TIMES.end().unsigned_abs(), 999_999_999);
    prost_types::Timestamp::from(time.clamp(first, last))
}

/// A wall-clock time from the wire; `None` outside the years 1 to 9999.
pub fn system_time(timestamp: &prost_types::Timestamp) -> Option<SystemTime> {
    let timestamp = timestamp.normalized();
    TIMES.contains(&timestamp.seconds).then(|| SystemTime::try_from(timestamp).ok()).flatten()
}

/// A duration on the wire; at most the longest that it can say.
pub fn duration(duration: Duration) -> prost_types::Duration {
    let duration = duration.min(LONGEST);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::JsonWriter;
    use crate::v1;

    fn has_json_form(verdict: &v1::Verdict) -> bool {
        JsonWriter::new().verdict(verdict).is_ok()
    }

    fn anywhen() -> impl Strategy<Value = SystemTime> {
        let seconds = prop_oneof![any::<u64>(), 0..400_000_000_000u64].prop_map(Duration::from_secs);
        let time = |seconds, nanos, before| {
            let distance = seconds + Duration::from_nanos(nanos);
            let at = if before { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
            at.unwrap_or(UNIX_EPOCH)
        };
        (seconds, 0..1_000_000_000u64, any::<bool>()).prop_map(move |(s, n, before)| time(s, n, before))
    }

    proptest! {
        #[test]
        fn what_we_write_has_a_json_form(
            at in anywhen(), took in prop_oneof![any::<u64>(), 0..400_000_000_000u64], nanos in 0..1_000_000_000u32,
        ) {
            let wire = v1::Verdict {
                due_at: Some(timestamp(at)),
                device_time: Some(duration(Duration::new(took, nanos))),
                ..Default::default()
            };
            prop_assert!(has_json_form(&wire), "{:?}", wire);
        }

        #[test]
        fn what_we_read_can_be_written_again(
            seconds in prop_oneof![any::<i64>(), -400_000_000_000..400_000_000_000i64], nanos in any::<i32>(),
        ) {
            let wire = prost_types::Timestamp { seconds, nanos };
            if let Some(at) = system_time(&wire) {
                prop_assert_eq!(timestamp(at), wire.normalized());
                let verdict = v1::Verdict { created_at: Some(wire), ..Default::default() };
                prop_assert!(has_json_form(&verdict), "{:?}", verdict);
            }
        }
    }

    #[test]
    fn times_go_from_the_year_1_to_the_year_9999() {
        let at = |seconds, nanos| system_time(&prost_types::Timestamp { seconds, nanos });
        for (seconds, nanos) in [(-62_135_596_800, 0), (253_402_300_799, 999_999_999), (0, -1)] {
            assert!(at(seconds, nanos).is_some(), "{seconds} s {nanos} ns");
        }
        for (seconds, nanos) in [
            (-62_135_596_800, -1),
            (253_402_300_799, 1_000_000_000),
            (259_200_000_000, 0),
            (i64::MIN, i32::MIN),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(at(seconds, nanos), None, "{seconds} s {nanos} ns");
        }
    }
}
