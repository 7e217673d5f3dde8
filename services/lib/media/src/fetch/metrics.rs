//! What the fetching costs and how it ends.

use ops::metrics::{self, Error, Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

pub(super) struct FetchMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) bytes: IntCounter,
    pub(super) retries: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) bytes_in_flight: IntGauge,
}

impl FetchMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: metrics::counters(
                registry,
                "touchstone_media_s3_requests_total",
                "Requests to the object store by HTTP status, or timeout, connection, other.",
                &["code"],
            )?,
            bytes: metrics::counter(
                registry,
                "touchstone_media_s3_bytes_total",
                "Bytes of objects read from the object store, those of failed attempts included.",
            )?,
            retries: metrics::counters(
                registry,
                "touchstone_media_retries_total",
                "Requests to the object store that were repeated, by what went wrong before.",
                &["reason"],
            )?,
            seconds: metrics::histogram(
                registry,
                "touchstone_media_fetch_duration_seconds",
                "Reading one object, its retries and its wait for memory included.",
                metrics::DURATION_BUCKETS,
            )?,
            bytes_in_flight: metrics::gauge(
                registry,
                "touchstone_media_bytes_in_flight",
                "Bytes of fetched objects in memory.",
            )?,
        })
    }

    /// Counts one request; `code` is one of a closed set.
    pub(super) fn request(&self, status: Option<u16>, otherwise: &'static str) {
        let code = match status {
            Some(200) => "200",
            Some(206) => "206",
            Some(301) => "301",
            Some(307) => "307",
            Some(400) => "400",
            Some(401) => "401",
            Some(403) => "403",
            Some(404) => "404",
            Some(412) => "412",
            Some(429) => "429",
            Some(500) => "500",
            Some(502) => "502",
            Some(503) => "503",
            Some(504) => "504",
            Some(_) => "other",
            None => otherwise,
        };
        self.requests.with_label_values(&[code]).inc();
    }
}
