//! How far this worker's partitions are behind: asked of the log every few seconds, one round at a time.

use std::sync::Arc;
use std::time::Duration;

use stream::{Log, TopicPartition};
use tokio::sync::watch;

/// A round asks the log once for each partition. Chosen: fresh enough for an autoscaler, cheap for hundreds of partitions.
const EVERY: Duration = Duration::from_secs(3);

/// Shows the lag of the partitions in hand.
pub(crate) struct LagWatch {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) metrics: stream::Metrics,
    pub(crate) group: Arc<str>,
    pub(crate) assigned: watch::Receiver<Vec<TopicPartition>>,
}

impl LagWatch {
    /// Runs until the intake is gone.
    pub(crate) async fn run(mut self) {
        let mut shown: Vec<TopicPartition> = Vec::new();
        loop {
            let partitions = self.assigned.borrow_and_update().clone();
            // Whoever holds the others now tells of them.
            self.metrics.forget_lag(shown.iter().filter(|partition| !partitions.contains(partition)));
            let round = async {
                match stream::lag(&*self.log, &self.group, &partitions).await {
                    Ok(lags) => self.metrics.set_lag(&lags),
                    Err(error) => {
                        tracing::debug!("the log does not say how far the group is behind: {error}")
                    }
                }
                tokio::time::sleep(EVERY).await;
            };
            let changed = tokio::select! {
                biased;
                changed = self.assigned.changed() => changed,
                () = round => Ok(()),
            };
            shown = partitions;
            if changed.is_err() {
                self.metrics.forget_lag(&shown);
                return;
            }
        }
    }
}
