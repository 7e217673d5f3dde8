//! What query tells about itself.

use std::time::Instant;

use ops::metrics::{
    DURATION_BUCKETS, Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, counter, counters, gauge, gauges, histogram, histograms,
};
use tonic::{Code, Status};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) projected: IntCounter,
    pub(crate) duplicates: IntCounter,
    pub(crate) divergence: IntCounter,
    pub(crate) undecodable: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) apply_duration: Histogram,
    pub(crate) lag: IntGaugeVec,
    pub(crate) watchers: IntGauge,
    pub(crate) watch_missed: IntCounter,
    pub(crate) audit_missing: IntCounter,
    pub(crate) audit_violations: IntCounterVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let one = |name: &str, help: &str| counter(registry, &format!("touchstone_query_{name}"), help);
        Ok(Self {
            projected: one("projected_total", "Verdicts that became rows")?,
            duplicates: one("verdict_duplicates_total", "Verdicts whose id had a row that says the same")?,
            divergence: one(
                "verdict_divergence_total",
                "Verdicts whose id had a row that says something else; the first stays",
            )?,
            undecodable: one(
                "verdict_undecodable_total",
                "Records of the verdict topic that are no verdict",
            )?,
            failures: one("projector_failures_total", "Times the projector had to begin anew")?,
            apply_duration: histogram(
                registry,
                "touchstone_query_apply_duration_seconds",
                "One transaction of rows and offset",
                DURATION_BUCKETS,
            )?,
            lag: gauges(
                registry,
                "touchstone_query_projector_lag_records",
                "Verdict topic's end minus the projector's offset",
                &["partition"],
            )?,
            watchers: gauge(registry, "touchstone_query_watchers", "Open WatchVerdicts streams")?,
            watch_missed: one("watch_missed_total", "Verdicts that slow watchers were told they missed")?,
            audit_missing: one(
                "audit_missing_total",
                "Committed inputs that audits found without an outcome",
            )?,
            audit_violations: counters(
                registry,
                "touchstone_query_audit_violations_total",
                "Broken promises that audits found",
                &["kind"],
            )?,
            requests: counters(
                registry,
                "touchstone_query_requests_total",
                "Answered requests; of streams, their beginning",
                &["method", "code"],
            )?,
            request_duration: histograms(
                registry,
                "touchstone_query_request_duration_seconds",
                "From a request's arrival to its answer",
                &["method"],
                DURATION_BUCKETS,
            )?,
        })
    }

    /// Notes one request's answer.
    pub(crate) fn answered<T>(&self, method: &str, began: Instant, answer: &Result<T, Status>) {
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        self.requests.with_label_values(&[method, &format!("{code:?}")]).inc();
        self.request_duration.with_label_values(&[method]).observe(began.elapsed().as_secs_f64());
    }
}
