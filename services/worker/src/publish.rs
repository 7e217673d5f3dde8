//! The end of the corridor: outcomes and the offsets that they cover, in one transaction.

mod ledger;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forensics::Lane;
use ops::{Exit, ExitReason};
use stream::{AbortReason, Commit, Committer, Disposition};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use ledger::{Begun, Note};

use crate::clerk::Tally;
use crate::config::PublishConfig;
use crate::metrics::Metrics;
use ledger::{Bounds, Ledger, Parcel};

/// Notes taken at once: as many as one transaction holds.
const NOTES_MAX: usize = 512;

/// The publish task.
pub(crate) struct Publisher {
    notes: mpsc::Receiver<Note>,
    committer: Arc<dyn Committer>,
    ledger: Ledger,
    config: PublishConfig,
    slot: Arc<str>,
    metrics: Metrics,
}

impl Publisher {
    /// Publishes what the notes tell of, through `committer`.
    pub(crate) fn new(
        notes: mpsc::Receiver<Note>,
        committer: Arc<dyn Committer>,
        config: PublishConfig,
        (slot, metrics): (Arc<str>, Metrics),
    ) -> Self {
        Self { notes, committer, ledger: Ledger::default(), config, slot, metrics }
    }

    /// Runs until nobody writes notes any more and everything that was ready is committed.
    pub(crate) async fn run(mut self) -> Result<(), Exit> {
        loop {
            let more = self.collect().await?;
            let parcel = self.ledger.select(self.bounds());
            if parcel.parts.is_empty() && !more {
                return Ok(());
            }
            self.commit(parcel).await?;
        }
    }

    /// Collects until a transaction is due; false when no more notes will come.
    async fn collect(&mut self) -> Result<bool, Exit> {
        let mut notes = Vec::with_capacity(NOTES_MAX);
        // What the last transaction had no room for has waited long enough.
        let mut due = (self.ledger.ready().outcomes > 0).then(Instant::now);
        loop {
            let ready = self.ledger.ready();
            let full = ready.records >= self.config.records_max || ready.bytes >= self.config.bytes_max;
            let wanted = ready.outcomes > 0 && (ready.live > 0 || self.ledger.is_idle());
            // Notes that are already there cost nothing to take along.
            if full || (wanted && self.notes.is_empty()) {
                return Ok(true);
            }
            if ready.outcomes > 0 {
                due.get_or_insert_with(|| Instant::now() + self.config.window);
            } else {
                due = None;
            }
            let expiry = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = expiry => return Ok(true),
                taken = self.notes.recv_many(&mut notes, NOTES_MAX) => {
                    if taken == 0 {
                        return Ok(false);
                    }
                }
            }
            for note in notes.drain(..) {
                let applied = self.ledger.apply(note);
                applied.map_err(|error| ExitReason::Bug.because(format_args!("publish: {error}")))?;
            }
            self.show_oldest();
        }
    }

    /// Commits a parcel, without the partitions that are somebody else's by now.
    async fn commit(&mut self, mut parcel: Parcel) -> Result<(), Exit> {
        while !parcel.parts.is_empty() {
            let timer = self.metrics.stages.publish.start_timer();
            let answer = self.committer.commit(parcel.transaction()).await;
            timer.observe_duration();
            match answer {
                Commit::Committed { .. } => {
                    parcel.parts.iter().for_each(|part| self.ledger.committed(part));
                    self.show_oldest();
                    self.tally(&parcel);
                    return Ok(());
                }
                Commit::Aborted {
                    reason: AbortReason::StaleEpoch { partitions } | AbortReason::Rewound { partitions },
                } => {
                    let before = parcel.parts.len();
                    parcel.parts.retain(|part| {
                        let stale = partitions.contains(&part.partition);
                        if stale {
                            self.metrics.dropped_jobs.inc_by(part.outcomes.len() as u64);
                            self.ledger.give_up_partition(&part.partition, part.epoch);
                        }
                        !stale
                    });
                    tracing::info!(
                        ?partitions,
                        "partitions went elsewhere or were sent back, their outcomes are dropped"
                    );
                    if parcel.parts.len() == before {
                        let why = "the log refused a transaction for partitions that it does not hold";
                        return Err(ExitReason::Bug.because(why));
                    }
                }
                Commit::Aborted { reason: AbortReason::Failed(error) }
                    if matches!(error.disposition(), Disposition::Fatal | Disposition::Reject) =>
                {
                    // A right or a topic is missing, or a record is too large for one: the next transaction would fail as
                    // this one did, and the partitions would stand still in silence.
                    return Err(error.into());
                }
                Commit::Aborted { reason: AbortReason::Failed(error) } => {
                    tracing::warn!("transaction aborted, its inputs will be taken in again: {error}");
                    self.ledger.give_up();
                    return Ok(());
                }
                Commit::Unknown { reason } => {
                    tracing::warn!("transaction unknown, its inputs will be taken in again: {reason}");
                    self.ledger.give_up();
                    return Ok(());
                }
                Commit::Fenced { reason } => return Err(fenced(&self.slot, &reason)),
            }
        }
        Ok(())
    }

    fn show_oldest(&self) {
        for lane in Lane::ALL {
            self.metrics.oldest.set(lane, self.ledger.oldest(lane));
        }
    }

    fn tally(&self, parcel: &Parcel) {
        let now = SystemTime::now();
        for written in parcel.parts.iter().flat_map(|part| &part.outcomes) {
            let Tally { outcome, dead_letter, lane, written_at } = written.tally;
            if let Some(class) = dead_letter {
                self.metrics.dead_letters.with_label_values(&[class]).inc();
            }
            if let Some(outcome) = outcome {
                // A producer's clock may be ahead of ours.
                let end_to_end = now.duration_since(written_at).unwrap_or(Duration::ZERO);
                self.metrics.committed(outcome, lane, end_to_end);
            }
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds { records_max: self.config.records_max, bytes_max: self.config.bytes_max }
    }
}

/// The exit of a worker whose slot has a newer holder.
pub(crate) fn fenced(slot: &str, reason: &str) -> Exit {
    ExitReason::Temporary.because(format_args!(
        "a newer worker holds the slot {slot} ({reason}): give every worker a slot of its own; this one leaves"
    ))
}

#[cfg(test)]
mod tests;
