//! Named tasks and threads. Each has an owner that joins it; one that ends wrongly ends the process, loudly.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Exit, ExitReason, Shutdown};

/// Starts tasks and threads, and joins them. Clones share them.
///
/// A task that panics, ends with an error, or (unless started as *finite*) ends before a shutdown was
/// asked for, asks the whole process to stop; the first such end is its exit reason.
#[derive(Clone)]
pub struct Tasks {
    /// The shutdown of the service these tasks belong to: ending after it is no surprise.
    shutdown: Shutdown,
    prefix: String,
    family: Arc<Family>,
}

/// What a process's tasks share.
struct Family {
    /// The shutdown of the whole process.
    shutdown: Shutdown,
    /// Guards the list and the first failure; held for moments only, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: u64,
    running: BTreeMap<u64, Running>,
    failure: Option<Exit>,
}

struct Running {
    name: String,
    done: CancellationToken,
    abort: Option<tokio::task::AbortHandle>,
}

/// What a task may end with: `()` or `Result<(), Exit>`.
pub trait TaskEnd {
    /// As a result.
    fn into_result(self) -> Result<(), Exit>;
}

impl TaskEnd for () {
    fn into_result(self) -> Result<(), Exit> {
        Ok(())
    }
}

impl TaskEnd for Result<(), Exit> {
    fn into_result(self) -> Result<(), Exit> {
        self
    }
}

/// One task or thread, for an owner that wants to wait for just this one. Dropping it detaches nothing:
/// the task stays owned by [`Tasks`].
pub struct TaskHandle {
    done: CancellationToken,
    abort: Option<tokio::task::AbortHandle>,
}

impl TaskHandle {
    /// Waits until the task has ended, however it ended. Cancel safe.
    pub async fn ended(&self) {
        self.done.cancelled().await;
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.done.is_cancelled()
    }

    /// Cancels an async task at its next await; this is not a failure. A thread cannot be cancelled.
    pub fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    UntilShutdown,
    Finite,
}

impl Tasks {
    /// No tasks yet; what goes wrong requests `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        let family = Family { shutdown: shutdown.clone(), state: Mutex::default() };
        Tasks { shutdown, prefix: String::new(), family: Arc::new(family) }
    }

    pub(crate) fn child(&self, service: &str, shutdown: Shutdown) -> Self {
        let prefix = format!("{}{service}/", self.prefix);
        Tasks { shutdown, prefix, family: Arc::clone(&self.family) }
    }

    /// Starts a task that lives until shutdown: ending earlier, even well, is a bug.
    pub fn spawn<F>(&self, name: &str, future: F) -> TaskHandle
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        self.spawn_task(name, Life::UntilShutdown, future)
    }

    /// Starts a task that may end well at any time.
    pub fn spawn_finite<F>(&self, name: &str, future: F) -> TaskHandle
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        self.spawn_task(name, Life::Finite, future)
    }

    /// Starts a thread for blocking work that lives until shutdown: ending earlier, even well, is a bug.
    pub fn spawn_blocking_thread<F, R>(&self, name: &str, work: F) -> TaskHandle
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskEnd,
    {
        self.spawn_thread(name, Life::UntilShutdown, work)
    }

    /// Starts a thread for blocking work that may end well at any time.
    pub fn spawn_finite_thread<F, R>(&self, name: &str, work: F) -> TaskHandle
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskEnd,
    {
        self.spawn_thread(name, Life::Finite, work)
    }

    /// Ends the process with `exit`, unless something else already does.
    pub fn fail(&self, exit: Exit) {
        self.family.fail(exit);
    }

    /// The first thing that went wrong.
    pub fn failure(&self) -> Option<Exit> {
        self.family.state().failure.clone()
    }

    /// Names of this service's tasks and threads that have not ended.
    pub fn running(&self) -> Vec<String> {
        let state = self.family.state();
        state.running.values().filter(|task| task.name.starts_with(&self.prefix)).map(Running::name).collect()
    }

    /// Joins every task and thread of this service. At the deadline async tasks are cancelled, and the
    /// answer is `Temporary`, naming those that were late; threads can only be named.
    pub async fn join(&self, deadline: Instant) -> Result<(), Exit> {
        while let Some(done) = self.next_running() {
            if tokio::time::timeout_at(deadline, done.cancelled()).await.is_err() {
                let late = self.running();
                self.abort_all();
                let why = format!("still running at the drain deadline: {}", late.join(", "));
                return Err(ExitReason::Temporary.because(why));
            }
        }
        Ok(())
    }

    fn next_running(&self) -> Option<CancellationToken> {
        let state = self.family.state();
        state.running.values().find(|task| task.name.starts_with(&self.prefix)).map(|task| task.done.clone())
    }

    fn abort_all(&self) {
        let state = self.family.state();
        for task in state.running.values().filter(|task| task.name.starts_with(&self.prefix)) {
            if let Some(abort) = &task.abort {
                abort.abort();
            }
        }
    }

    #[allow(clippy::disallowed_methods)] // the one place where a task gets its name and its owner
    fn spawn_task<F>(&self, name: &str, life: Life, future: F) -> TaskHandle
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        let ending = self.enter(name, life);
        let (id, done) = (ending.id, ending.done.clone());
        let task = tokio::spawn(async move {
            // Dropped without `end` when the task is aborted: `Ending::drop` then still signs it off.
            let result = AssertUnwindSafe(future).catch_unwind().await;
            ending.end(result.map(TaskEnd::into_result));
        });
        let abort = Some(task.abort_handle());
        if let Some(running) = self.family.state().running.get_mut(&id) {
            running.abort.clone_from(&abort);
        }
        TaskHandle { done, abort }
    }

    fn spawn_thread<F, R>(&self, name: &str, life: Life, work: F) -> TaskHandle
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskEnd,
    {
        let ending = self.enter(name, life);
        let done = ending.done.clone();
        let family = Arc::clone(&self.family);
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            ending.end(result.map(TaskEnd::into_result));
        });
        if let Err(error) = thread {
            family.fail(ExitReason::Temporary.because(format_args!("cannot start thread `{name}`: {error}")));
        }
        TaskHandle { done, abort: None }
    }

    fn enter(&self, name: &str, life: Life) -> Ending {
        let name = format!("{}{name}", self.prefix);
        let done = CancellationToken::new();
        let mut state = self.family.state();
        state.started += 1;
        let id = state.started;
        state.running.insert(id, Running { name: name.clone(), done: done.clone(), abort: None });
        Ending { id, name, life, done, shutdown: self.shutdown.clone(), family: Arc::clone(&self.family) }
    }
}

impl Running {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Family {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, exit: Exit) {
        tracing::error!(reason = ?exit.reason, "{}", exit.why);
        self.state().failure.get_or_insert(exit);
        self.shutdown.request();
    }
}

/// Signs a task off exactly once, however it ends.
struct Ending {
    id: u64,
    name: String,
    life: Life,
    done: CancellationToken,
    shutdown: Shutdown,
    family: Arc<Family>,
}

impl Ending {
    fn end(self, result: Result<Result<(), Exit>, Box<dyn Any + Send>>) {
        let name = &self.name;
        match result {
            Ok(Ok(())) if self.life == Life::UntilShutdown && !self.shutdown.is_requested() => {
                self.family.fail(ExitReason::Bug.because(format_args!("task `{name}` ended early")));
            }
            Ok(Ok(())) => {}
            Ok(Err(exit)) => {
                self.family.fail(exit.reason.because(format_args!("task `{name}`: {}", exit.why)))
            }
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                self.family.fail(ExitReason::Bug.because(format_args!("task `{name}` panicked: {text}")));
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.family.state().running.remove(&self.id);
        self.done.cancel();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn tasks() -> Tasks {
        Tasks::new(Shutdown::new(Duration::from_secs(5)))
    }

    async fn broken() {
        panic!("index {} out of range", 7)
    }

    #[tokio::test]
    async fn a_panic_stops_the_process_and_names_the_task() {
        let tasks = tasks();
        tasks.spawn("publish", broken());
        tasks.shutdown.requested().await;
        tasks.join(soon()).await.unwrap();
        let why = "task `publish` panicked: index 7 out of range";
        assert_eq!(tasks.failure(), Some(ExitReason::Bug.because(why)));
    }

    #[tokio::test]
    async fn an_early_end_is_a_bug_unless_the_task_is_finite() {
        let tasks = tasks();
        tasks.spawn_finite("warm-up", async {}).ended().await;
        assert_eq!(tasks.failure(), None);
        tasks.spawn("intake", async {});
        tasks.shutdown.requested().await;
        assert_eq!(tasks.failure(), Some(ExitReason::Bug.because("task `intake` ended early")));
        tasks.spawn("late", async {}).ended().await;
        assert_eq!(tasks.running(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_first_failure_is_the_reason() {
        let tasks = tasks();
        let fenced = tasks.child("worker-0", tasks.shutdown.child());
        let first =
            fenced.spawn_blocking_thread("device", || Err(ExitReason::Temporary.because("out of memory")));
        first.ended().await;
        tasks.spawn("intake", async { Err(ExitReason::Bug.because("a consequence")) }).ended().await;
        let expected = ExitReason::Temporary.because("task `worker-0/device`: out of memory");
        assert_eq!(tasks.failure(), Some(expected));
        assert!(tasks.shutdown.is_requested(), "a child's failure ends the whole process");
    }

    #[tokio::test]
    async fn a_child_that_is_stopped_alone_ends_well() {
        let tasks = tasks();
        let shutdown = tasks.shutdown.child();
        let worker = tasks.child("worker-0", shutdown.clone());
        let intake = shutdown.clone();
        worker.spawn("intake", async move { intake.requested().await });
        shutdown.request();
        worker.join(soon()).await.unwrap();
        assert!(tasks.failure().is_none() && !tasks.shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_deadline_names_who_is_late() {
        let tasks = tasks();
        let stuck = tasks.spawn("stuck", std::future::pending::<()>());
        tasks.spawn_finite("quick", async {});
        tasks.shutdown.request();
        let late = tasks.join(tasks.shutdown.deadline().unwrap()).await;
        let why = "still running at the drain deadline: stuck";
        assert_eq!(late, Err(ExitReason::Temporary.because(why)));
        stuck.ended().await;
        assert!(tasks.failure().is_none(), "being cancelled is not the task's failure");
    }
}
