//! Readiness: named conditions, all of which must hold before traffic is welcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Shutdown;

/// The conditions of one process (or of one service in it; see [`crate::Ops::child`]).
/// Ready means: every gate is ready and no shutdown was requested. Cloning shares the conditions.
#[derive(Clone)]
pub struct Readiness {
    gates: Arc<watch::Sender<Gates>>,
    prefix: String,
    shutdown: Shutdown,
}

/// Name → `None` when ready, or why not.
type Gates = BTreeMap<String, Option<String>>;

impl Readiness {
    /// No conditions yet; not ready as soon as `shutdown` is requested.
    pub fn new(shutdown: Shutdown) -> Self {
        Readiness { gates: Arc::new(watch::Sender::new(Gates::new())), prefix: String::new(), shutdown }
    }

    /// The same conditions, with gates named `service/…`.
    pub(crate) fn child(&self, service: &str) -> Self {
        Readiness {
            gates: Arc::clone(&self.gates),
            prefix: format!("{}{service}/", self.prefix),
            shutdown: self.shutdown.clone(),
        }
    }

    /// A condition called `name`; not ready ("starting") until its owner says so.
    /// Asking again for a name gives another handle on the same condition, reset to "starting".
    pub fn gate(&self, name: &str) -> Gate {
        let gate = Gate { gates: Arc::clone(&self.gates), name: format!("{}{name}", self.prefix) };
        gate.not_ready("starting");
        gate
    }

    /// What stands in the way, as `(gate, reason)`; empty when ready.
    pub fn obstacles(&self) -> Vec<(String, String)> {
        let mut found: Vec<_> = self
            .gates
            .borrow()
            .iter()
            .filter_map(|(name, state)| Some((name.clone(), state.clone()?)))
            .collect();
        if self.shutdown.is_requested() {
            found.insert(0, ("shutdown".into(), "draining".into()));
        }
        found
    }

    /// Whether nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        self.obstacles().is_empty()
    }

    /// Waits until every gate is ready. Never resolves once a shutdown was requested.
    pub async fn ready(&self) {
        let mut changes = self.gates.subscribe();
        loop {
            changes.borrow_and_update();
            if self.is_ready() {
                return;
            }
            changes.changed().await.expect("the sender lives in self");
        }
    }
}

/// One condition, held by the room that knows whether it is true.
#[derive(Clone)]
pub struct Gate {
    gates: Arc<watch::Sender<Gates>>,
    name: String,
}

impl Gate {
    /// The condition holds.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The condition does not hold, and why.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Whether the condition holds.
    pub fn is_ready(&self) -> bool {
        self.holds(&self.gates.borrow())
    }

    /// Waits until the condition is other than `known`, and gives what it is then. Cancel safe.
    pub async fn changed(&self, known: bool) -> bool {
        let mut gates = self.gates.subscribe();
        drop(gates.wait_for(|gates| self.holds(gates) != known).await.expect("the sender lives in self"));
        !known
    }

    fn holds(&self, gates: &Gates) -> bool {
        gates.get(&self.name).is_some_and(Option::is_none)
    }

    /// The condition no longer exists: the service behind it left in good order.
    pub fn remove(&self) {
        self.gates.send_if_modified(|gates| gates.remove(&self.name).is_some());
    }

    fn set(&self, state: Option<String>) {
        self.gates.send_if_modified(|gates| {
            if gates.get(&self.name) == Some(&state) {
                return false;
            }
            gates.insert(self.name.clone(), state);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn ready_only_when_every_gate_is() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let readiness = Readiness::new(shutdown.clone());
        let model = readiness.gate("model");
        let log = readiness.child("worker-0").gate("log");
        assert_eq!(
            readiness.obstacles(),
            [("model".into(), "starting".into()), ("worker-0/log".into(), "starting".into())]
        );
        model.ready();
        log.not_ready("disk full: /data");
        assert_eq!(readiness.obstacles(), [("worker-0/log".to_string(), "disk full: /data".to_string())]);
        let waiting = readiness.clone();
        let (_, ()) = tokio::join!(waiting.ready(), async { log.ready() });
        assert!(readiness.is_ready());
        shutdown.request();
        assert_eq!(readiness.obstacles(), [("shutdown".to_string(), "draining".to_string())]);
    }
}
