//! Metrics without globals: a struct per room, registered on the registry it is handed.
//!
//! Every function makes a metric and registers it, or says why it cannot (a second registration of one
//! name, a malformed name): both are bugs and end the start-up. Label values are closed sets, never a key,
//! a tenant or a media id.

pub use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry,
};
use prometheus::{HistogramOpts, Opts};

/// Buckets in seconds for one hop: 100 µs (a scripted hop) to 30 s (a fetch at its deadline), three a decade. Chosen.
pub const DURATION_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// Buckets in seconds for what spans a backlog: 10 ms to 1 h. Chosen.
pub const LONG_DURATION_BUCKETS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// Buckets for counts of things that come in batches: powers of two to 4,096. Chosen.
pub const COUNT_BUCKETS: &[f64] =
    &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// A counter.
pub fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A counter per label set.
pub fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A gauge of whole things.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A gauge of whole things per label set.
pub fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A gauge of fractions (seconds, ratios) per label set.
pub fn float_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A histogram over `buckets`.
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A histogram over `buckets` per label set.
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// `touchstone_<room>_queue_depth{stage}` beside `touchstone_<room>_queue_capacity{stage}`: every bounded
/// queue of a room shows how full it is.
#[derive(Clone)]
pub struct Queues {
    depth: IntGaugeVec,
    capacity: IntGaugeVec,
}

impl Queues {
    /// The pair of one room.
    pub fn register(registry: &Registry, room: &str) -> Result<Self, Error> {
        let name = |what: &str| format!("touchstone_{room}_queue_{what}");
        Ok(Queues {
            depth: gauges(registry, &name("depth"), "Items waiting before a stage.", &["stage"])?,
            capacity: gauges(registry, &name("capacity"), "Items that may wait before a stage.", &["stage"])?,
        })
    }

    /// The queue before `stage`, bounded at `capacity`.
    pub fn queue(&self, stage: &str, capacity: usize) -> Queue {
        let as_gauge = i64::try_from(capacity).unwrap_or(i64::MAX);
        self.capacity.with_label_values(&[stage]).set(as_gauge);
        Queue { depth: self.depth.with_label_values(&[stage]) }
    }
}

/// The depth of one queue.
#[derive(Clone)]
pub struct Queue {
    depth: IntGauge,
}

impl Queue {
    /// Sets the depth, for queues that know their length.
    pub fn set_depth(&self, items: usize) {
        self.depth.set(i64::try_from(items).unwrap_or(i64::MAX));
    }

    /// Counts one item in until the returned value is dropped: let it travel with the item.
    #[must_use]
    pub fn enter(&self) -> Queued {
        self.depth.inc();
        Queued { depth: self.depth.clone() }
    }
}

/// An item that stands in a [`Queue`].
pub struct Queued {
    depth: IntGauge,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.depth.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_registers_once() {
        let registry = Registry::new();
        counter(&registry, "touchstone_test_a_total", "a").unwrap();
        assert!(counter(&registry, "touchstone_test_a_total", "a").is_err());
        assert!(gauge(&registry, "not a name", "a").is_err());
    }

    #[test]
    fn a_queue_counts_what_stands_in_it() {
        let registry = Registry::new();
        let queues = Queues::register(&registry, "worker").unwrap();
        let queue = queues.queue("decode", 8);
        let item = queue.enter();
        assert_eq!(queues.depth.with_label_values(&["decode"]).get(), 1);
        drop(item);
        assert_eq!(queues.depth.with_label_values(&["decode"]).get(), 0);
        assert_eq!(queues.capacity.with_label_values(&["decode"]).get(), 8);
    }
}
