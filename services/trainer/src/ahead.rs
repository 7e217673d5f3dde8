//! Work done ahead on threads of its own, and handed over in its order.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// Makes one thing for each number of a range; dropped, it waits until its threads have ended what they are at.
pub(crate) struct Ahead<T> {
    /// Thread i makes every number that is i, counted from the first, modulo their count.
    threads: Vec<Worker<T>>,
    taken: usize,
    waited: Duration,
}

struct Worker<T> {
    made: Receiver<Result<T>>,
    thread: JoinHandle<()>,
}

/// Finished things that wait for each thread's turn.
const AHEAD: usize = 2;

impl<T: Send + 'static> Ahead<T> {
    /// `make` for each of `numbers`, on so many threads (at least one).
    pub(crate) fn start(
        numbers: Range<u64>,
        threads: usize,
        make: impl Fn(u64) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Self> {
        let threads = threads.max(1);
        let start = |thread: usize| -> Result<_> {
            let (send, receive) = sync_channel(AHEAD);
            let (numbers, make) = (numbers.clone(), make.clone());
            let work = move || {
                for number in numbers.skip(thread).step_by(threads) {
                    let made = make(number);
                    let failed = made.is_err();
                    if send.send(made).is_err() || failed {
                        return;
                    }
                }
            };
            let named = thread::Builder::new().name(format!("forge-{thread}"));
            let thread = named.spawn(work).context("a thread for the forge")?;
            Ok(Worker { made: receive, thread })
        };
        let threads = (0..threads).map(start).collect::<Result<_>>()?;
        Ok(Self { threads, taken: 0, waited: Duration::ZERO })
    }

    /// The next number's; an error after the last.
    pub(crate) fn next(&mut self) -> Result<T> {
        let thread = self.taken % self.threads.len();
        let asked = Instant::now();
        let ended = || anyhow!("a thread of the forge has ended: it had made all, or its panic stands above");
        let made = self.threads[thread].made.recv().map_err(|_| ended())?;
        self.waited += asked.elapsed();
        self.taken += 1;
        made
    }

    /// How long the caller had to wait so far.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        for Worker { made, thread } in self.threads.drain(..) {
            // It ends with what it is at: there is nobody to hand it to.
            drop(made);
            // Its panic was told when it happened.
            drop(thread.join());
        }
    }
}
