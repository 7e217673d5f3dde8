//! What the log tells about itself.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::error::StreamError;
use crate::log::Log;
use crate::member::{AbortReason, Commit};
use crate::record::TopicPartition;

/// The log's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    transactions: IntCounterVec,
    transaction_duration: Histogram,
    rebalances: IntCounter,
    fenced_writes: IntCounter,
    refused_attempts: IntCounter,
    lag: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// When the registry already has one of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let transactions = IntCounterVec::new(
            Opts::new("touchstone_stream_transactions_total", "Transactions by what became of them"),
            &["result"],
        )?;
        for result in ["committed", "aborted", "rewound", "stale", "fenced", "unknown"] {
            transactions.with_label_values(&[result]);
        }
        // From a group commit on a fast disk to Kafka's transaction timeout (5 s).
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let transaction_duration = Histogram::with_opts(
            HistogramOpts::new(
                "touchstone_stream_transaction_duration_seconds",
                "Time from handing a transaction over to its answer",
            )
            .buckets(buckets),
        )?;
        let rebalances = IntCounter::new(
            "touchstone_stream_rebalances_total",
            "Times a group changed the partitions of a member of this process",
        )?;
        let fenced_writes = IntCounter::new(
            "touchstone_stream_fenced_writes_total",
            "Transactions refused because another owns the partitions or the slot by now",
        )?;
        let refused_attempts = IntCounter::new(
            "touchstone_stream_refused_attempts_total",
            "Attempts at a transaction that the group refused, those that were made again included",
        )?;
        let lag = IntGaugeVec::new(
            Opts::new(
                "touchstone_stream_kafka_lag_records",
                "Last stable offset minus committed offset, whichever log it is",
            ),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(transactions.clone()))?;
        registry.register(Box::new(transaction_duration.clone()))?;
        registry.register(Box::new(rebalances.clone()))?;
        registry.register(Box::new(fenced_writes.clone()))?;
        registry.register(Box::new(refused_attempts.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self { transactions, transaction_duration, rebalances, fenced_writes, refused_attempts, lag })
    }

    /// One transaction got its answer. For implementations of [`Log`].
    pub fn transaction(&self, answer: &Commit, took: Duration) {
        let result = match answer {
            Commit::Committed { .. } => "committed",
            Commit::Aborted { reason: AbortReason::StaleEpoch { .. } } => "stale",
            Commit::Aborted { reason: AbortReason::Rewound { .. } } => "rewound",
            Commit::Aborted { reason: AbortReason::Failed(_) } => "aborted",
            Commit::Fenced { .. } => "fenced",
            Commit::Unknown { .. } => "unknown",
        };
        if matches!(result, "stale" | "fenced") {
            self.fenced_writes.inc();
        }
        self.transactions.with_label_values(&[result]).inc();
        self.transaction_duration.observe(took.as_secs_f64());
    }

    /// The group did not know the member, or not in this generation. For implementations of [`Log`].
    pub fn refused_attempt(&self) {
        self.refused_attempts.inc();
    }

    /// A group changed the partitions of a member. For implementations of [`Log`].
    pub fn rebalance(&self) {
        self.rebalances.inc();
    }

    /// What a service found with [`lag`].
    pub fn set_lag(&self, lags: &[(TopicPartition, i64)]) {
        for (at, records) in lags {
            self.lag.with_label_values(&[&*at.topic, &at.partition.to_string()]).set(*records);
        }
    }

    /// These partitions are another's to tell about from now on.
    pub fn forget_lag<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for at in partitions {
            // Nothing was told about it yet.
            let _unknown = self.lag.remove_label_values(&[&*at.topic, &at.partition.to_string()]);
        }
    }
}

/// How far a group is behind, per partition: last stable offset minus committed offset. A group that never
/// committed is behind by all there is.
///
/// # Errors
/// Whatever keeps the log from answering.
pub async fn lag(
    log: &dyn Log,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<Vec<(TopicPartition, i64)>, StreamError> {
    let committed = log.committed(group, partitions).await?;
    let mut lags = Vec::with_capacity(partitions.len());
    for (partition, committed) in partitions.iter().zip(committed) {
        let ends = log.watermarks(partition).await?;
        lags.push((partition.clone(), ends.high - committed.unwrap_or(ends.low).clamp(ends.low, ends.high)));
    }
    Ok(lags)
}
