//! The breaker: while the object store as a whole is in trouble, nothing is judged.
//!
//! A systemic failure opens it. The intake stops admitting, and whoever wants an object waits here, while the
//! stopwatch of its job stands still. One of those waiting probes the store, with growing pauses, until it answers.
//!
//! Silence is either: one object that does not come, or a store that says nothing to anybody. Whoever waited in vain
//! asks here which it is, before the object is blamed.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forensics::Bucket;
use media::SystemicCause;
use ops::Gate;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// The breaker of one worker.
pub(crate) struct Breaker {
    state: watch::Sender<State>,
    /// The bucket that was last in trouble; held for a copy.
    troubled: Mutex<Option<Bucket>>,
    /// Whoever holds the permit probes.
    prober: Semaphore,
    /// When the latest probe that was answered had been sent; held for a copy.
    heard: Mutex<Option<Instant>>,
    pauses: Pauses,
    gate: Gate,
    metrics: Metrics,
}

/// How long to wait between probes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open,
}

impl Breaker {
    /// Closed; `gate` opens with the store's first answer.
    pub(crate) fn new(pauses: Pauses, gate: Gate, metrics: Metrics) -> Self {
        Self {
            state: watch::Sender::new(State::Closed),
            troubled: Mutex::default(),
            prober: Semaphore::new(1),
            heard: Mutex::default(),
            pauses,
            gate,
            metrics,
        }
    }

    /// The store has answered for the first time: unless somebody has found it in trouble meanwhile, it is well.
    pub(crate) fn greet(&self) {
        self.state.send_if_modified(|state| {
            if *state == State::Closed {
                self.gate.ready();
            }
            false
        });
    }

    /// The store is in trouble: it failed on this bucket.
    pub(crate) fn open(&self, cause: SystemicCause, bucket: &Bucket, why: &str) {
        *self.troubled.lock().unwrap_or_else(PoisonError::into_inner) = Some(bucket.clone());
        let opened = self.state.send_if_modified(|state| {
            self.gate.not_ready(format!("{cause}: {why}; {}", remedy(cause)));
            let closed = *state == State::Closed;
            if closed {
                *state = State::Open;
            }
            closed
        });
        if opened {
            self.metrics.breaker_open.set(1);
            self.metrics.breaker_opened.with_label_values(&[cause.as_str()]).inc();
            tracing::warn!(
                cause = cause.as_str(),
                "object store in trouble, nothing is judged meanwhile: {why}; {}",
                remedy(cause)
            );
        }
    }

    /// Whether the store is in trouble.
    pub(crate) fn is_open(&self) -> bool {
        *self.state.borrow() == State::Open
    }

    /// The bucket that was last in trouble: what to ask the store for.
    pub(crate) fn troubled(&self) -> Option<Bucket> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is closed. Cancel safe.
    pub(crate) async fn closed(&self) {
        // The sender lives in self: this only ends by the state.
        drop(self.state.subscribe().wait_for(|state| *state == State::Closed).await);
    }

    /// Waits until it is open. Cancel safe.
    pub(crate) async fn opened(&self) {
        drop(self.state.subscribe().wait_for(|state| *state == State::Open).await);
    }

    /// Waits until it is closed; one of those who wait calls `probe` until it answers true, which closes it.
    /// Cancel safe: if the prober goes away, another takes its place.
    pub(crate) async fn pass<F: Future<Output = bool>>(&self, probe: impl Fn() -> F) {
        if !self.is_open() {
            return;
        }
        tokio::select! {
            biased;
            () = self.closed() => {}
            permit = self.prober.acquire() => {
                let _permit = permit.expect("the semaphore is never closed");
                let mut pause = self.pauses.first;
                while self.is_open() {
                    tokio::time::sleep(pause).await;
                    if probe().await {
                        self.close();
                    }
                    pause = (pause * 2).min(self.pauses.longest);
                }
            }
        }
    }

    /// Whether the store answers others, now that it was too slow for the caller; `probe` asks it, and opens the
    /// breaker where it does not answer. Many who ask at once cost one probe: an answer that was given meanwhile
    /// is everybody's. Cancel safe.
    pub(crate) async fn still_answers<F: Future<Output = bool>>(&self, probe: impl FnOnce() -> F) -> bool {
        let asked = Instant::now();
        let _permit = tokio::select! {
            biased;
            () = self.opened() => return false,
            permit = self.prober.acquire() => permit.expect("the semaphore is never closed"),
        };
        let heard = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard().is_some_and(|sent| sent >= asked) {
            return true;
        }
        let sent = Instant::now();
        if probe().await {
            *heard() = Some(sent);
        }
        !self.is_open()
    }

    fn close(&self) {
        self.state.send_if_modified(|state| {
            *state = State::Closed;
            self.gate.ready();
            true
        });
        self.metrics.breaker_open.set(0);
        tracing::info!("object store is well again");
    }
}

/// What an operator looks at first.
fn remedy(cause: SystemicCause) -> &'static str {
    match cause {
        SystemicCause::Unreachable => "look at s3.endpoint",
        SystemicCause::Throttled => "lower s3.connections_max, or give the store more",
        SystemicCause::ServerError => "look at the store's own log",
        SystemicCause::Credentials => "look at s3.access_key_id and s3.secret_access_key",
        SystemicCause::Clock => "set this machine's clock or the store's",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use ops::metrics::Registry;
    use ops::{Readiness, Shutdown};

    use super::*;

    fn breaker() -> (Arc<Breaker>, Readiness) {
        let readiness = Readiness::new(Shutdown::new(Duration::ZERO));
        let pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        (Arc::new(Breaker::new(pauses, readiness.gate("object-store"), metrics)), readiness)
    }

    fn bucket() -> Bucket {
        Bucket::parse("media").unwrap()
    }

    #[test]
    fn it_is_ready_with_the_first_good_answer() {
        let (breaker, readiness) = breaker();
        assert_eq!(readiness.obstacles(), [("object-store".to_owned(), "starting".to_owned())]);
        breaker.greet();
        assert!(readiness.is_ready());
        breaker.open(SystemicCause::Unreachable, &bucket(), "down");
        breaker.greet();
        assert!(!readiness.is_ready(), "an old answer does not cover new trouble");
        assert_eq!(breaker.troubled(), Some(bucket()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probes_and_all_go_on() {
        let (breaker, readiness) = breaker();
        breaker.open(SystemicCause::Unreachable, &bucket(), "connection refused");
        let (gate, why) = readiness.obstacles().remove(0);
        assert_eq!((&*gate, &*why), ("object-store", "unreachable: connection refused; look at s3.endpoint"));
        let probes = AtomicU32::new(0);
        let probe = || async { probes.fetch_add(1, Ordering::Relaxed) == 4 };
        tokio::join!(breaker.pass(probe), breaker.pass(probe), breaker.pass(probe));
        assert_eq!(probes.load(Ordering::Relaxed), 5);
        assert!(readiness.is_ready() && !breaker.is_open());
        breaker.pass(|| async { panic!("a closed breaker is not probed") }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_answers_for_all_who_were_kept_waiting() {
        let (breaker, _) = breaker();
        let probes = AtomicU32::new(0);
        let answered = || async {
            probes.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            true
        };
        let ask = || breaker.still_answers(answered);
        assert_eq!(tokio::join!(ask(), ask(), ask(), ask()), (true, true, true, true));
        // Sent before the others asked, the first probe's answer may be too old for them; the second's is not.
        assert!(probes.load(Ordering::Relaxed) <= 2);
        let silent = || async {
            breaker.open(SystemicCause::Unreachable, &bucket(), "did not answer in time");
            false
        };
        assert_eq!(tokio::join!(breaker.still_answers(silent), ask()), (false, false));
        assert!(!ask().await, "nobody is asked while it is open");
    }

    #[tokio::test(start_paused = true)]
    async fn a_prober_that_goes_away_is_replaced() {
        let (breaker, _) = breaker();
        breaker.open(SystemicCause::ServerError, &bucket(), "500");
        let gone = tokio::time::timeout(Duration::from_millis(50), breaker.pass(|| async { true })).await;
        assert!(gone.is_err() && breaker.is_open());
        breaker.pass(|| async { true }).await;
    }
}
