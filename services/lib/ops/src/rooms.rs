//! `Ops`: what a service is handed when it starts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::Registry;
use prometheus::proto::MetricFamily;

use crate::{Exit, Failpoints, Readiness, Shutdown, Tasks, process};

/// What a service is handed: one per process, or one per service where several share a process.
/// Cloning shares everything.
#[derive(Clone)]
pub struct Ops {
    /// Asks the service to stop; only its intake listens.
    pub shutdown: Shutdown,
    /// Where the service's rooms register their metrics.
    pub registry: Registry,
    /// What has to hold before traffic is welcome.
    pub readiness: Readiness,
    /// Where tasks and threads are started, and joined.
    pub tasks: Tasks,
    /// Where a test may end or freeze this process.
    pub failpoints: Failpoints,
    /// Registries of the services below; the lock guards the list alone, never a scrape.
    children: Arc<Mutex<Vec<Registry>>>,
    /// Where the process's admin server listens, once it does.
    admin: Arc<OnceLock<SocketAddr>>,
}

impl Ops {
    /// A process's own. `service` and the version of the caller become `touchstone_build_info`.
    pub fn new(service: &str, drain: Duration) -> Result<Self, Exit> {
        let shutdown = Shutdown::new(drain);
        let registry = Registry::new();
        process::register(&registry, service)?;
        Ok(Ops {
            readiness: Readiness::new(shutdown.clone()),
            tasks: Tasks::new(shutdown.clone()),
            shutdown,
            registry,
            failpoints: Failpoints::default(),
            children: Arc::default(),
            admin: Arc::default(),
        })
    }

    /// Where the process's admin server listens; `None` before it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.get().copied()
    }

    pub(crate) fn set_admin_address(&self, address: SocketAddr) {
        self.admin.get_or_init(|| address);
    }

    /// For a service within this process: its own registry (every series carries `service`), gates and
    /// tasks named `service/…`, and a shutdown that can be asked for alone. What goes wrong in it ends the
    /// whole process; `/metrics` shows all services together.
    pub fn child(&self, service: &str) -> Result<Self, Exit> {
        let labels = HashMap::from([("service".to_string(), service.to_string())]);
        let registry = Registry::new_custom(None, Some(labels))?;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(registry.clone());
        let shutdown = self.shutdown.child();
        Ok(Ops {
            readiness: self.readiness.child(service),
            tasks: self.tasks.child(service, shutdown.clone()),
            shutdown,
            registry,
            failpoints: self.failpoints.clone(),
            children: Arc::clone(&self.children),
            admin: Arc::clone(&self.admin),
        })
    }

    /// All metrics of this process; series of one name from several services are one family.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let registries = self.children.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut families = self.registry.gather();
        for mut family in registries.iter().flat_map(Registry::gather) {
            match families.iter_mut().find(|known| known.name() == family.name()) {
                Some(known) => known.mut_metric().extend(family.take_metric()),
                None => families.push(family),
            }
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    #[test]
    fn two_services_of_one_kind_live_in_one_process() {
        let ops = Ops::new("standalone", Duration::ZERO).unwrap();
        for worker in ["worker-0", "worker-1"] {
            let child = ops.child(worker).unwrap();
            metrics::counter(&child.registry, "touchstone_test_things_total", "things").unwrap().inc();
        }
        let families = ops.gather();
        let things: Vec<_> =
            families.iter().filter(|family| family.name() == "touchstone_test_things_total").collect();
        assert_eq!(things.len(), 1, "one family");
        let services: Vec<_> =
            things[0].get_metric().iter().map(|metric| metric.get_label()[0].value().to_string()).collect();
        assert_eq!(services, ["worker-0", "worker-1"]);
    }
}
