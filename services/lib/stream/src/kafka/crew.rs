//! The threads of one log: named, counted, asked to end and waited for. Whatever librdkafka blocks on happens here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::StreamError;

/// The threads of one log, and clients that are still there.
#[derive(Default)]
pub(crate) struct Crew {
    closing: AtomicBool,
    /// How many are still there; held to count.
    aboard: Mutex<usize>,
    gone: Condvar,
}

/// Somebody whom closing waits for.
pub(crate) struct Berth {
    crew: Arc<Crew>,
}

impl Crew {
    /// Starts a thread that looks at [`Crew::is_closing`] now and then.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StreamError> {
        let berth = self.berth();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _berth = berth;
            work();
        });
        // Nobody joins it: its berth says when it has ended.
        thread
            .map(drop)
            .map_err(|error| StreamError::Unavailable { why: format!("no thread {name}: {error}") })
    }

    /// Closing waits until the berth is dropped.
    pub(crate) fn berth(self: &Arc<Self>) -> Berth {
        *self.aboard.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Berth { crew: Arc::clone(self) }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Asks everyone to end.
    pub(crate) fn dismiss(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Waits until nobody is left. Blocks.
    pub(crate) fn wait(&self) {
        let mut aboard = self.aboard.lock().unwrap_or_else(PoisonError::into_inner);
        while *aboard > 0 {
            aboard = self.gone.wait(aboard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        *self.crew.aboard.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.crew.gone.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_waits_for_everyone() {
        let crew = Arc::new(Crew::default());
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, mark) = (Arc::clone(&crew), Arc::clone(&ended));
        let work = move || {
            while !theirs.is_closing() {
                std::thread::yield_now();
            }
            mark.store(true, Ordering::Release);
        };
        crew.start("a hand", work).expect("threads can be started");
        crew.dismiss();
        crew.wait();
        assert!(ended.load(Ordering::Acquire));
    }
}
