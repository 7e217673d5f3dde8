//! Waiting for a condition with a deadline: the only way a test lets time pass.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value; panics with `what` after `deadline`.
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// As [`until`], for a condition that has to be awaited.
pub async fn until_async<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
