//! A stopwatch for deadlines that are about others: it runs while somebody or something else is waited for, and
//! stands still while there is no room with us. Our own backlog is nobody's failure.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The time that was taken by others, or by work that is the owner's own. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Stopwatch {
    state: Arc<watch::Sender<State>>,
    /// Runs and stands still together with this one.
    parent: Option<Arc<watch::Sender<State>>>,
}

#[derive(Debug, Default)]
struct State {
    /// So many run it at once; time passes once for all of them.
    runners: usize,
    /// Since when it runs.
    since: Option<Instant>,
    before: Duration,
}

/// Runs a [`Stopwatch`] until it is dropped.
#[derive(Debug)]
#[must_use = "the stopwatch runs as long as this lives"]
pub struct Running<'a>(&'a Stopwatch);

/// Takes one runner off a [`Stopwatch`] until it is dropped.
#[derive(Debug)]
#[must_use = "the stopwatch stands still as long as this lives"]
pub struct Paused<'a>(&'a Stopwatch);

impl Stopwatch {
    /// Stands still at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more at zero: while it runs, this one runs too.
    pub fn child(&self) -> Self {
        Self { state: Arc::default(), parent: Some(Arc::clone(&self.state)) }
    }

    /// What it shows.
    pub fn time(&self) -> Duration {
        self.state.borrow().time(Instant::now())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state.borrow().since.is_some()
    }

    /// Lets it run.
    pub fn run(&self) -> Running<'_> {
        self.change(State::start);
        Running(self)
    }

    /// For one who runs it and has to wait for room with us meanwhile.
    pub fn pause(&self) -> Paused<'_> {
        self.change(State::stop);
        Paused(self)
    }

    /// Puts it forward: the owner's share of work that was done for many at once.
    pub fn add(&self, time: Duration) {
        self.change(|state, _| state.before += time);
    }

    /// Puts it back to `time`, if it shows more.
    pub fn rewind(&self, time: Duration) {
        self.state.send_modify(|state| {
            let now = Instant::now();
            if state.time(now) > time {
                state.before = time;
                state.since = state.since.map(|_| now);
            }
        });
    }

    /// Puts it back to where it was when it began to run; nothing where it stands still.
    pub fn rewind_run(&self) {
        self.state.send_modify(|state| state.since = state.since.map(|_| Instant::now()));
    }

    /// Does `work` until the stopwatch shows `limit`; `None` when it is over. Cancel safe if the work is.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut state = self.state.subscribe();
        loop {
            let left = limit.checked_sub(self.time()).filter(|left| !left.is_zero())?;
            let passed = async {
                // The sender lives in self: this only ends by the state.
                drop(state.wait_for(|state| state.since.is_some()).await);
                tokio::time::sleep(left).await;
            };
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = passed => {}
            }
        }
    }

    fn change(&self, change: impl Fn(&mut State, Instant)) {
        let now = Instant::now();
        for state in [Some(&self.state), self.parent.as_ref()].into_iter().flatten() {
            state.send_modify(|state| change(state, now));
        }
    }
}

impl State {
    fn time(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn start(&mut self, now: Instant) {
        self.runners += 1;
        self.since.get_or_insert(now);
    }

    fn stop(&mut self, now: Instant) {
        self.runners -= 1;
        if self.runners == 0 {
            self.before = self.time(now);
            self.since = None;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(State::stop);
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.change(State::start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_while_somebody_runs_it_and_once_for_all_of_them() {
        let watch = Stopwatch::new();
        pass(1).await;
        let one = watch.run();
        pass(2).await;
        let two = watch.run();
        pass(4).await;
        drop(one);
        pass(8).await;
        {
            let _paused = watch.pause();
            assert!(!watch.is_running());
            pass(16).await;
        }
        pass(32).await;
        drop(two);
        pass(64).await;
        assert_eq!(watch.time().as_secs(), 2 + 4 + 8 + 32);
        watch.add(Duration::from_secs(128));
        assert_eq!(watch.time().as_secs(), 174);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_has_a_time_of_its_own_and_moves_its_parent() {
        let parent = Stopwatch::new();
        let children = [parent.child(), parent.child()];
        let running = children.each_ref().map(Stopwatch::run);
        pass(3).await;
        let paused = children[0].pause();
        pass(5).await;
        drop((paused, running));
        pass(7).await;
        assert_eq!([&children[0], &children[1], &parent].map(|watch| watch.time().as_secs()), [3, 8, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_can_be_taken_back() {
        let watch = Stopwatch::new();
        watch.add(Duration::from_secs(2));
        let before = watch.time();
        let running = watch.run();
        pass(30).await;
        watch.rewind(before);
        pass(1).await;
        watch.rewind(Duration::from_secs(20));
        assert_eq!(watch.time().as_secs(), 3, "never put forward");
        watch.rewind_run();
        drop(running);
        assert_eq!(watch.time().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_passes_only_while_it_runs() {
        let watch = Stopwatch::new();
        let (begin, limit) = (Instant::now(), Duration::from_secs(10));
        let work = async {
            pass(3_600).await;
            let _running = watch.run();
            pass(4).await;
            let _paused = watch.pause();
            pass(3_600).await;
            drop(_paused);
            std::future::pending::<()>().await;
        };
        assert_eq!(watch.within(limit, work).await, None);
        assert_eq!(begin.elapsed().as_secs(), 7_210);
        let watch = Stopwatch::new();
        let _running = watch.run();
        assert_eq!(watch.within(limit, pass(9)).await, Some(()));
    }
}
