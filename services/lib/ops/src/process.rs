//! What the kernel knows of this process, and which build it is.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// Registers `process_*` (Prometheus' conventional names) and `touchstone_build_info`.
pub(crate) fn register(registry: &Registry, service: &str) -> Result<(), prometheus::Error> {
    registry.register(Box::new(ProcessMetrics::new()?))?;
    let build = IntGaugeVec::new(
        Opts::new("touchstone_build_info", "Always 1; the labels say which build runs."),
        &["component", "version"],
    )?;
    build.with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))
}

/// Read from `/proc/self` at each scrape; where there is none the values stay 0.
struct ProcessMetrics {
    resident: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    start: Gauge,
}

impl ProcessMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let start = Gauge::new("process_start_time_seconds", "When this process began, Unix time.")?;
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64()));
        Ok(ProcessMetrics {
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
            threads: IntGauge::new("process_threads", "Threads of this process.")?,
            cpu: Counter::new("process_cpu_seconds_total", "CPU time spent, user and system.")?,
            start,
        })
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.resident.desc(), self.threads.desc(), self.cpu.desc(), self.start.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.resident.set(status_field(&status, "VmRSS:") * 1024);
        self.threads.set(status_field(&status, "Threads:"));
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let spent = cpu_seconds(&stat) - self.cpu.get();
        if spent > 0.0 {
            self.cpu.inc_by(spent);
        }
        [self.resident.collect(), self.threads.collect(), self.cpu.collect(), self.start.collect()].concat()
    }
}

fn status_field(status: &str, name: &str) -> i64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Fields 14 and 15 of `/proc/self/stat` (proc(5)), in ticks of 1/100 s (the kernel's USER_HZ, fixed for
/// user space on every architecture we run on). The command in field 2 may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> f64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        assert_eq!(status_field("Name:\tx\nVmRSS:\t   12 kB\nThreads:\t7\n", "VmRSS:"), 12);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert!((cpu_seconds(stat) - 3.0).abs() < 1e-9);
        let collected = ProcessMetrics::new().unwrap().collect();
        assert!(collected[0].get_metric()[0].get_gauge().get_value() > 100_000.0);
    }
}
