//! Who shares the machine with whom: fleets side by side, and alone whoever measures how long something takes.

use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Whether nobody is left is looked at so often.
const LOOK: Duration = Duration::from_millis(200);

static MACHINE: RwLock<()> = RwLock::const_new(());

/// A place on the machine.
#[derive(Debug)]
pub(super) enum Turn {
    /// None: between two others.
    None,
    /// With others.
    Shared(#[allow(dead_code, reason = "it is held")] RwLockReadGuard<'static, ()>),
    /// With nobody.
    Alone(#[allow(dead_code, reason = "it is held")] RwLockWriteGuard<'static, ()>),
}

impl Turn {
    /// Waits until nobody measures.
    pub(super) async fn shared() -> Self {
        Self::Shared(MACHINE.read().await)
    }

    /// Waits until all others have ended, or wait as well. Others still begin meanwhile: in the lock's own queue they would
    /// stand behind whoever waits to be alone, and the machine would idle until the slowest fleet has ended.
    pub(super) async fn alone(&mut self) {
        // Two that kept their places would wait for each other.
        *self = Self::None;
        loop {
            if let Ok(guard) = MACHINE.try_write() {
                *self = Self::Alone(guard);
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives the machine to the others as well.
    pub(super) async fn in_company(&mut self) {
        *self = Self::None;
        *self = Self::shared().await;
    }
}
