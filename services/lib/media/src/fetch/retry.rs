//! When to try again: at most so many attempts, after a random pause, and only while the budget lasts.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Retries are paid from what first attempts earn, so that a store in trouble sees at most `ratio` more load
/// from us, however many objects fail at once.
pub(super) struct RetryBudget {
    ratio: f64,
    reserve: f64,
    /// Guards one number; never held across an await.
    tokens: Mutex<f64>,
}

impl RetryBudget {
    pub(super) fn new(ratio: f64, reserve: u32) -> Self {
        let reserve = f64::from(reserve);
        Self { ratio, reserve, tokens: Mutex::new(reserve) }
    }

    /// A first attempt earns its share.
    pub(super) fn earn(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *tokens = (*tokens + self.ratio).min(self.reserve);
    }

    /// Whether one more retry may go out.
    pub(super) fn spend(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Ten shares of 0.1 are a little less than 1 in binary.
        let enough = *tokens > 1.0 - 1e-9;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}

/// Pauses with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    random: RandomState,
    draws: AtomicU64,
}

impl Backoff {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        // RandomState carries 128 random bits from the system: enough for jitter, no dependency.
        Self { base, max, random: RandomState::new(), draws: AtomicU64::new(0) }
    }

    /// The pause after failed attempt `attempt` (1 is the first).
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let ceiling = self.base.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.max);
        let draw = self.random.hash_one(self.draws.fetch_add(1, Ordering::Relaxed)) as f64 / u64::MAX as f64;
        ceiling.mul_f64(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retries_are_at_most_a_tenth_of_the_requests_beyond_the_reserve() {
        let budget = RetryBudget::new(0.1, 5);
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.earn();
            // Everything fails: each request wants three retries.
            retries += (0..3).filter(|_| budget.spend()).count();
        }
        assert!((100..=105).contains(&retries), "{retries} retries for 1,000 requests");
    }

    #[test]
    fn a_quiet_store_does_not_save_up_more_than_the_reserve() {
        let budget = RetryBudget::new(0.1, 3);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 3);
    }

    proptest! {
        #[test]
        fn pauses_stay_below_their_ceiling(attempt in 1u32..200) {
            let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            let pause = backoff.pause(attempt);
            prop_assert!(pause <= Duration::from_secs(2));
            prop_assert!(attempt > 1 || pause <= Duration::from_millis(50));
        }
    }

    #[test]
    fn callers_do_not_pause_in_step() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| backoff.pause(1)).collect();
        assert!(pauses.len() > 90);
    }
}
