//! Times as people write and read them.

use std::time::SystemTime;

use jiff::Timestamp;
use ops::config::HumanDuration;

use crate::failure::{Failure, Status};

/// A moment from RFC 3339 text, or from how long before `now` it was.
pub(crate) fn moment(text: &str, now: SystemTime) -> Result<SystemTime, Failure> {
    if let Ok(ago) = text.parse::<HumanDuration>() {
        return Ok(now.checked_sub(ago.get()).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    text.parse::<Timestamp>().and_then(SystemTime::try_from).map_err(|_| {
        Failure::new(Status::Usage, format_args!("{text:?} is neither a time nor how long ago"))
            .next("write a time as 2026-11-24T08:00:00Z, or how long ago as 90m, 2h or 7d")
    })
}

/// The moment that is so far ahead of `now`; an error where the calendar ends before.
pub(crate) fn ahead(now: SystemTime, far: HumanDuration) -> Result<SystemTime, Failure> {
    let at = now.checked_add(far.get()).filter(|&at| Timestamp::try_from(at).is_ok());
    at.ok_or_else(|| {
        Failure::new(Status::Usage, format_args!("{far} from now is after the year 9999"))
            .next("write how long from now as 90s, 10m or 2h")
    })
}

/// A moment on the wire as RFC 3339 to the second; `-` where there is none.
pub(crate) fn shown(at: Option<SystemTime>) -> String {
    let at = at.and_then(|at| Timestamp::try_from(at).ok());
    at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
}

/// A duration in milliseconds or seconds, whichever reads better.
pub(crate) fn span(duration: std::time::Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        assert_eq!(moment("90m", now).unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(4_600));
        let fixed = moment("1970-01-01T01:00:00+01:00", now).unwrap();
        assert_eq!(fixed, SystemTime::UNIX_EPOCH);
        assert_eq!(moment("yesterday", now).unwrap_err().status, Status::Usage);
        assert_eq!(shown(Some(fixed)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn nothing_lies_ahead_of_the_year_9999() {
        let now = SystemTime::UNIX_EPOCH;
        let ahead = |text: &str| ahead(now, text.parse().unwrap());
        assert_eq!(ahead("2h").unwrap(), now + Duration::from_secs(7_200));
        for far in ["3000000d", "200000000d"] {
            let refused = ahead(far).unwrap_err();
            assert_eq!(refused.status, Status::Usage, "{far}: {refused}");
        }
    }

    #[test]
    fn spans_are_short() {
        let shown = [1_234, 56_789, 2_500_000].map(|us| span(Duration::from_micros(us)));
        assert_eq!(shown, ["1.2 ms", "57 ms", "2.5 s"]);
    }
}
