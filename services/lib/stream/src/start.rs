//! The start of a process: a log that answers, and cannot do yet what is asked of it, is waited for.

use std::time::Duration;

use ops::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Disposition, StreamError};
use crate::log::LogHealth;

/// For so long. After its own start a Kafka coordinator loads what it coordinates, and a topic that was just made has
/// no leader yet: seconds mostly, tens of them on a busy machine. Chosen.
const WAIT: Duration = Duration::from_secs(60);
/// What could not be done is tried again after so long.
const AGAIN: Duration = Duration::from_millis(500);

/// Does what a process begins with, again while it fails with what passes and the log is ready all the same. A log
/// that does not answer is not waited for: the error is the caller's at once, and so it is after a minute or when the
/// process shall stop.
///
/// # Errors
/// The last one.
pub async fn at_start<R, F: Future<Output = Result<R, StreamError>>>(
    health: &watch::Receiver<LogHealth>,
    shutdown: &Shutdown,
    what: &str,
    mut work: impl FnMut() -> F,
) -> Result<R, StreamError> {
    let until = Instant::now() + WAIT;
    loop {
        let error = match work().await {
            Err(error) if error.disposition() == Disposition::Retry => error,
            done => return done,
        };
        if !health.borrow().is_ready() || shutdown.is_requested() || Instant::now() >= until {
            return Err(error);
        }
        tracing::warn!("the start waits for the log: {what}: {error}");
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.requested() => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing() -> StreamError {
        StreamError::Unavailable { why: "coordinator load in progress".to_owned() }
    }

    /// How it ended, after how many attempts and how long, where each attempt but the last ones fails so.
    async fn start(health: LogHealth, error: StreamError, failures: usize) -> (bool, usize, Duration) {
        let ((_sender, health), shutdown) = (watch::channel(health), Shutdown::new(Duration::ZERO));
        let (mut attempts, began) = (0, Instant::now());
        let done = at_start(&health, &shutdown, "a test", || {
            attempts += 1;
            std::future::ready(if attempts > failures { Ok(()) } else { Err(error.clone()) })
        });
        (done.await.is_ok(), attempts, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_while_the_log_answers_and_no_longer_than_a_minute() {
        assert_eq!(start(LogHealth::Ready, passing(), 3).await, (true, 4, 3 * AGAIN));
        let (is_done, _, took) = start(LogHealth::Ready, passing(), usize::MAX).await;
        assert!(!is_done && took == WAIT, "{took:?}");
        let away = LogHealth::NotReady { reason: "no broker answers".into() };
        assert_eq!(start(away, passing(), 3).await, (false, 1, Duration::ZERO));
        let unknown = StreamError::UnknownTopic { topic: "t".to_owned() };
        assert_eq!(start(LogHealth::Ready, unknown, 3).await, (false, 1, Duration::ZERO));
    }
}
