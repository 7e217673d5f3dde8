//! The wish to stop, and the time there is to do it in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The token that says "stop". Clones share it. Only intakes listen to it: every later room ends because
/// its input closed.
#[derive(Clone)]
pub struct Shutdown {
    token: CancellationToken,
    drain: Duration,
    requested_at: Arc<OnceLock<Instant>>,
    parent: Option<Box<Shutdown>>,
}

impl Shutdown {
    /// Not requested; once it is, `drain` is the time that rooms have to finish what they began.
    pub fn new(drain: Duration) -> Self {
        Shutdown { token: CancellationToken::new(), drain, requested_at: Arc::default(), parent: None }
    }

    /// A token that is requested with this one, and can be requested alone.
    pub fn child(&self) -> Self {
        Shutdown {
            token: self.token.child_token(),
            drain: self.drain,
            requested_at: Arc::default(),
            parent: Some(Box::new(self.clone())),
        }
    }

    /// Asks to stop. The first call starts the clock of the drain deadline; later ones do nothing.
    pub fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until stopping is asked for. Cancel safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// How long rooms have to drain once stopping was asked for.
    pub fn drain_time(&self) -> Duration {
        self.drain
    }

    /// The instant by which draining has to be over; `None` before stopping was asked for.
    pub fn deadline(&self) -> Option<Instant> {
        let own = self.requested_at.get().map(|at| *at + self.drain);
        own.or_else(|| self.parent.as_ref().and_then(|parent| parent.deadline()))
    }

    /// Waits until the drain deadline has passed; does not start before stopping is asked for. Cancel safe.
    pub async fn drain_expired(&self) {
        self.requested().await;
        // Between the token and the clock of a parent there is no gap: the clock is set first.
        let deadline = self.deadline().unwrap_or_else(|| Instant::now() + self.drain);
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_the_first_request() {
        let shutdown = Shutdown::new(Duration::from_secs(30));
        let child = shutdown.child();
        assert_eq!(child.deadline(), None);
        let begin = Instant::now();
        shutdown.request();
        tokio::time::advance(Duration::from_secs(10)).await;
        shutdown.request();
        child.drain_expired().await;
        assert_eq!(begin.elapsed().as_secs(), 30);
    }

    #[tokio::test]
    async fn a_child_stops_alone_or_with_its_parent() {
        let shutdown = Shutdown::new(Duration::ZERO);
        let (one, two) = (shutdown.child(), shutdown.child());
        one.request();
        one.requested().await;
        assert!(!shutdown.is_requested() && !two.is_requested());
        shutdown.request();
        two.requested().await;
    }
}
