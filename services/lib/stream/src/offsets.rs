//! Which finished work may be committed: the contiguous finished prefix of a partition.
//!
//! Jobs finish out of order, but a committed offset covers everything below it. If a result were published while
//! an older job of the partition still ran, its input would lie above the committed offset and a crash would
//! publish it twice. So only the longest run of finished jobs from the oldest one on enters a transaction.
//!
//! Contiguous means: in the order in which jobs were *started*. Offsets have gaps (transaction markers, compacted
//! records), so nothing here computes `offset + 1` to find a job. Pure: no clock, no lock, no I/O.

use std::collections::VecDeque;

/// The jobs in flight of one partition under one assignment. A new assignment starts with a new one.
#[derive(Clone, Debug)]
pub struct InFlight<T> {
    jobs: VecDeque<Job<T>>,
    finished: usize,
    /// The largest offset ever started: starts must grow.
    newest: Option<i64>,
}

#[derive(Clone, Debug)]
struct Job<T> {
    offset: i64,
    outcome: Option<T>,
}

/// A run of finished jobs, taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedPrefix<T> {
    /// The outcomes with their offsets, oldest first, at least one.
    pub outcomes: Vec<(i64, T)>,
    /// What to commit: the last offset + 1.
    pub next_offset: i64,
}

/// A call that does not fit what was started: a mistake of the caller, not of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetsError {
    /// A job was started at or below an earlier one.
    #[error("offset {offset} started after offset {newest}")]
    NotGrowing {
        /// The offset that was started.
        offset: i64,
        /// The largest one before.
        newest: i64,
    },
    /// No unfinished job has this offset.
    #[error("offset {offset} is not in flight")]
    NotInFlight {
        /// The offset that was finished.
        offset: i64,
    },
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> InFlight<T> {
    /// Nothing in flight.
    pub fn new() -> Self {
        Self { jobs: VecDeque::new(), finished: 0, newest: None }
    }

    /// A job begins. Offsets grow from call to call.
    ///
    /// # Errors
    /// When this offset does not lie above every earlier one.
    pub fn start(&mut self, offset: i64) -> Result<(), OffsetsError> {
        if let Some(newest) = self.newest.filter(|newest| offset <= *newest) {
            return Err(OffsetsError::NotGrowing { offset, newest });
        }
        self.newest = Some(offset);
        self.jobs.push_back(Job { offset, outcome: None });
        Ok(())
    }

    /// A job ends, in whatever order.
    ///
    /// # Errors
    /// When no unfinished job has this offset.
    pub fn finish(&mut self, offset: i64, outcome: T) -> Result<(), OffsetsError> {
        let index = self
            .jobs
            .binary_search_by_key(&offset, |job| job.offset)
            .map_err(|_| OffsetsError::NotInFlight { offset })?;
        let job = &mut self.jobs[index];
        if job.outcome.is_some() {
            return Err(OffsetsError::NotInFlight { offset });
        }
        job.outcome = Some(outcome);
        self.finished += 1;
        Ok(())
    }

    /// Takes the contiguous finished prefix out, at most `max` jobs of it; `None` when the oldest job still runs.
    pub fn take_finished_prefix(&mut self, max: usize) -> Option<FinishedPrefix<T>> {
        let mut left = max;
        self.take_finished_while(|_, _| {
            let take = left > 0;
            left = left.saturating_sub(1);
            take
        })
    }

    /// Takes the contiguous finished prefix out as far as `fits` says yes, oldest first: bounds by bytes or kind.
    pub fn take_finished_while(
        &mut self,
        mut fits: impl FnMut(i64, &T) -> bool,
    ) -> Option<FinishedPrefix<T>> {
        let mut outcomes = Vec::new();
        while let Some(job) = self.jobs.front_mut() {
            let Some(outcome) = job.outcome.take_if(|outcome| fits(job.offset, outcome)) else {
                break;
            };
            outcomes.push((job.offset, outcome));
            self.jobs.pop_front();
        }
        self.finished -= outcomes.len();
        let next_offset = outcomes.last()?.0 + 1;
        Some(FinishedPrefix { outcomes, next_offset })
    }

    /// Whether the oldest job is finished, so that there is something to take.
    pub fn has_finished_prefix(&self) -> bool {
        self.jobs.front().is_some_and(|job| job.outcome.is_some())
    }

    /// The offset of the oldest job that still runs: what the partition waits for.
    pub fn oldest_unfinished(&self) -> Option<i64> {
        self.jobs.iter().find(|job| job.outcome.is_none()).map(|job| job.offset)
    }

    /// Jobs started and not taken yet.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no job is in flight.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Jobs finished and not taken yet, the prefix and those behind a running one.
    pub fn finished_len(&self) -> usize {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_contiguous_finished_prefix_is_given() {
        let mut jobs = InFlight::new();
        for offset in [3, 7, 8, 20] {
            jobs.start(offset).unwrap();
        }
        jobs.finish(7, "b").unwrap();
        jobs.finish(8, "c").unwrap();
        assert_eq!(jobs.take_finished_prefix(10), None);
        assert_eq!(jobs.oldest_unfinished(), Some(3));
        jobs.finish(3, "a").unwrap();
        let prefix = jobs.take_finished_prefix(2).unwrap();
        assert_eq!(prefix, FinishedPrefix { outcomes: vec![(3, "a"), (7, "b")], next_offset: 8 });
        assert_eq!(jobs.take_finished_prefix(10).unwrap().next_offset, 9);
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn mistakes_of_the_caller_are_told() {
        let mut jobs = InFlight::new();
        jobs.start(5).unwrap();
        assert_eq!(jobs.start(5), Err(OffsetsError::NotGrowing { offset: 5, newest: 5 }));
        assert_eq!(jobs.finish(6, ()), Err(OffsetsError::NotInFlight { offset: 6 }));
        jobs.finish(5, ()).unwrap();
        assert_eq!(jobs.finish(5, ()), Err(OffsetsError::NotInFlight { offset: 5 }));
        jobs.take_finished_prefix(1).unwrap();
        assert_eq!(jobs.start(4), Err(OffsetsError::NotGrowing { offset: 4, newest: 5 }));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Start the offset this far above the newest one.
        Start(i64),
        /// Finish the unfinished job of this index, modulo how many there are.
        Finish(usize),
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1i64..5).prop_map(Step::Start),
            3 => any::<usize>().prop_map(Step::Finish),
            1 => (0usize..6).prop_map(Step::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The model keeps every job in a map and recomputes the prefix from nothing each time.
        #[test]
        fn agrees_with_a_naive_model(steps in prop::collection::vec(step(), 0..120)) {
            let mut jobs = InFlight::new();
            let mut model: BTreeMap<i64, bool> = BTreeMap::new();
            let mut newest = -1;
            let mut committed = 0;
            for step in steps {
                match step {
                    Step::Start(gap) => {
                        newest += gap;
                        jobs.start(newest).unwrap();
                        model.insert(newest, false);
                    }
                    Step::Finish(index) => {
                        let open: Vec<i64> = model.iter().filter(|(_, done)| !**done).map(|(at, _)| *at).collect();
                        if let Some(offset) = open.get(index % open.len().max(1)).copied() {
                            jobs.finish(offset, offset * 10).unwrap();
                            model.insert(offset, true);
                        }
                    }
                    Step::Take(max) => {
                        let expected: Vec<i64> =
                            model.iter().take_while(|(_, done)| **done).map(|(at, _)| *at).take(max).collect();
                        let taken = jobs.take_finished_prefix(max);
                        let offsets: Vec<i64> =
                            taken.iter().flat_map(|prefix| prefix.outcomes.iter().map(|(at, _)| *at)).collect();
                        prop_assert_eq!(&offsets, &expected);
                        if let Some(prefix) = taken {
                            prop_assert!(prefix.outcomes.iter().all(|(at, outcome)| *outcome == at * 10));
                            prop_assert!(prefix.next_offset > committed, "a committed offset never goes back");
                            committed = prefix.next_offset;
                        }
                        for offset in expected {
                            model.remove(&offset);
                        }
                        // Nothing unfinished lies below what was committed.
                        prop_assert!(model.keys().all(|at| *at >= committed));
                    }
                }
                prop_assert_eq!(jobs.len(), model.len());
                prop_assert_eq!(jobs.finished_len(), model.values().filter(|done| **done).count());
                prop_assert_eq!(jobs.has_finished_prefix(), model.values().next().copied().unwrap_or(false));
                let oldest = model.iter().find(|(_, done)| !**done).map(|(at, _)| *at);
                prop_assert_eq!(jobs.oldest_unfinished(), oldest);
            }
        }
    }
}
