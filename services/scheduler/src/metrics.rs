//! What the scheduler tells about itself.

use ops::metrics::{
    COUNT_BUCKETS, DURATION_BUCKETS, Error, Histogram, HistogramVec, IntCounterVec, IntGauge, Registry,
    counters, gauge, histogram, histograms,
};

#[derive(Clone)]
pub(crate) struct Metrics {
    /// By lane.
    pub(crate) accepted: IntCounterVec,
    /// By reason; `REPEATED` is an answer from memory.
    pub(crate) not_appended: IntCounterVec,
    pub(crate) batch: Histogram,
    pub(crate) duration: HistogramVec,
    pub(crate) request_ids: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            accepted: counters(
                registry,
                "touchstone_scheduler_accepted_total",
                "Media that the log has",
                &["lane"],
            )?,
            not_appended: counters(
                registry,
                "touchstone_scheduler_not_appended_total",
                "Media that were refused, or answered from memory, by reason",
                &["reason"],
            )?,
            batch: histogram(
                registry,
                "touchstone_scheduler_batch_size",
                "Media of one submission",
                COUNT_BUCKETS,
            )?,
            duration: histograms(
                registry,
                "touchstone_scheduler_request_duration_seconds",
                "From a request's arrival to its answer",
                &["method"],
                DURATION_BUCKETS,
            )?,
            request_ids: gauge(
                registry,
                "touchstone_scheduler_request_ids",
                "Request ids that are remembered",
            )?,
        })
    }
}
