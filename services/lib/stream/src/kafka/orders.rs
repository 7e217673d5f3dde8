//! What the committing thread is asked to do: transactions, to look whether something waits, to end.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::member::{Commit, Transaction};

/// The committing thread's desk. The committer hands over one transaction at a time, so it never piles up.
#[derive(Default)]
pub(crate) struct Orders {
    /// Guards the desk; held for moments.
    desk: Mutex<Desk>,
    more: Condvar,
}

#[derive(Default)]
struct Desk {
    transactions: VecDeque<(Transaction, oneshot::Sender<Commit>)>,
    look: bool,
    ending: bool,
    ended: bool,
}

/// What to do next.
pub(crate) enum Order {
    Commit(Transaction, oneshot::Sender<Commit>),
    /// Something may wait.
    Look,
    /// What was handed over before is done.
    End,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a transaction over; `None` when nobody would do it.
    pub(crate) fn commit(&self, transaction: Transaction) -> Option<oneshot::Receiver<Commit>> {
        let (reply, answer) = oneshot::channel();
        let mut desk = self.lock();
        if desk.ending {
            return None;
        }
        desk.transactions.push_back((transaction, reply));
        drop(desk);
        self.more.notify_all();
        Some(answer)
    }

    pub(crate) fn look(&self) {
        self.lock().look = true;
        self.more.notify_all();
    }

    /// No more transactions; what is there is done first.
    pub(crate) fn end(&self) {
        self.lock().ending = true;
        self.more.notify_all();
    }

    /// The thread has let go of everything.
    pub(crate) fn set_ended(&self) {
        let mut desk = self.lock();
        (desk.ending, desk.ended) = (true, true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The next thing to do; [`Order::Look`] when the patience ends.
    pub(crate) fn next(&self, patience: Option<Duration>) -> Order {
        let mut desk = self.lock();
        loop {
            if let Some((transaction, reply)) = desk.transactions.pop_front() {
                return Order::Commit(transaction, reply);
            }
            if desk.ending {
                return Order::End;
            }
            if std::mem::take(&mut desk.look) {
                return Order::Look;
            }
            desk = match patience {
                None => self.more.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.more.wait_timeout(desk, patience);
                    let (desk, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && desk.transactions.is_empty() && !desk.ending {
                        return Order::Look;
                    }
                    desk
                }
            };
        }
    }
}
