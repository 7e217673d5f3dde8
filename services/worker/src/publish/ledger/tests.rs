use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use proptest::prelude::*;
use stream::NewRecord;

use super::*;
use crate::clerk::Tally;

const BOUNDS: Bounds = Bounds { records_max: 6, bytes_max: 100 };

fn partition(index: usize) -> TopicPartition {
    TopicPartition::new("t", i32::try_from(index).unwrap())
}

fn assignment(index: usize, epoch: u64) -> Assignment {
    Assignment { partition: partition(index), epoch: AssignmentEpoch(epoch), next_offset: 0 }
}

/// An outcome that names its input in its key.
fn written(partition: usize, offset: i64, size: usize) -> Box<Written> {
    let record = NewRecord::keyed("v", Bytes::from(format!("{partition}@{offset}")), vec![0; size]);
    Box::new(Written {
        bytes: size,
        records: vec![record],
        tally: Tally {
            outcome: None,
            dead_letter: None,
            lane: Lane::Standard,
            written_at: SystemTime::UNIX_EPOCH,
        },
        permit: None,
    })
}

fn keys(part: &Part) -> Vec<String> {
    let key = |record: &NewRecord| String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
    part.outcomes.iter().flat_map(|outcome| outcome.records.iter().map(key)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Assign(usize),
    Revoke(usize),
    Lose(usize),
    Start {
        partition: usize,
        gap: i64,
    },
    Finish {
        partition: usize,
        which: usize,
        size: usize,
    },
    /// A job of an older assignment ends.
    FinishStale {
        partition: usize,
    },
    Select,
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0usize..3;
    prop_oneof![
        2 => place.clone().prop_map(Step::Assign),
        1 => place.clone().prop_map(Step::Revoke),
        1 => place.clone().prop_map(Step::Lose),
        8 => (place.clone(), 1i64..4).prop_map(|(partition, gap)| Step::Start { partition, gap }),
        8 => (place.clone(), any::<usize>(), 1usize..60)
            .prop_map(|(partition, which, size)| Step::Finish { partition, which, size }),
        1 => place.prop_map(|partition| Step::FinishStale { partition }),
        3 => Just(Step::Select),
        1 => Just(Step::GiveUp),
    ]
}

/// One assignment of one partition, kept as plainly as possible.
#[derive(Default)]
struct Naive {
    epoch: u64,
    newest: i64,
    /// Offset → size once finished.
    jobs: BTreeMap<i64, Option<usize>>,
    committed: i64,
    /// Given up, and not taken in again.
    owed: Option<i64>,
}

impl Naive {
    fn oldest(&self) -> Option<i64> {
        self.jobs.keys().next().copied().or(self.owed)
    }
}

proptest! {
    #[test]
    fn only_finished_prefixes_of_current_assignments_are_selected_once(
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut ledger = Ledger::default();
        let mut model: BTreeMap<usize, Naive> = BTreeMap::new();
        let mut owed: BTreeMap<usize, i64> = BTreeMap::new();
        let mut epoch = 0;
        for step in steps {
            match step {
                Step::Assign(index) => {
                    epoch += 1;
                    ledger.apply(Note::Assigned(vec![assignment(index, epoch)])).unwrap();
                    model.insert(index, Naive { epoch, owed: owed.remove(&index), ..Naive::default() });
                    owed.clear();
                }
                Step::Revoke(index) => {
                    ledger.apply(Note::Revoked { partitions: vec![partition(index)], lost: false }).unwrap();
                    model.remove(&index);
                }
                Step::Lose(index) => {
                    ledger.apply(Note::Revoked { partitions: vec![partition(index)], lost: true }).unwrap();
                    model.remove(&index);
                    owed.remove(&index);
                }
                Step::Start { partition: index, gap } => {
                    let Some(naive) = model.get_mut(&index) else { continue };
                    naive.newest += gap;
                    naive.owed = None;
                    let epoch = AssignmentEpoch(naive.epoch);
                    ledger.apply(started(index, epoch, naive.newest..naive.newest + 1)).unwrap();
                    naive.jobs.insert(naive.newest, None);
                }
                Step::Finish { partition: index, which, size } => {
                    let Some(naive) = model.get_mut(&index) else { continue };
                    let open: Vec<i64> =
                        naive.jobs.iter().filter(|(_, size)| size.is_none()).map(|(at, _)| *at).collect();
                    let Some(&offset) = open.get(which % open.len().max(1)) else { continue };
                    let (partition, epoch) = (partition(index), AssignmentEpoch(naive.epoch));
                    let written = written(index, offset, size);
                    ledger.apply(Note::Finished { partition, epoch, offset, written }).unwrap();
                    naive.jobs.insert(offset, Some(size));
                }
                Step::FinishStale { partition: index } => {
                    let (partition, epoch) = (partition(index), AssignmentEpoch(0));
                    let written = written(index, 1, 1);
                    ledger.apply(Note::Finished { partition, epoch, offset: 1, written }).unwrap();
                }
                Step::GiveUp => {
                    ledger.give_up();
                    for (index, naive) in std::mem::take(&mut model) {
                        owed.extend(naive.oldest().map(|oldest| (index, oldest)));
                    }
                }
                Step::Select => {
                    let before = ledger.ready();
                    let parcel = ledger.select(BOUNDS);
                    let (mut records, mut bytes, mut outcomes) = (0, 0, 0);
                    for part in &parcel.parts {
                        let index = usize::try_from(part.partition.partition).unwrap();
                        let naive = model.get_mut(&index).expect("only what is assigned");
                        prop_assert_eq!(part.epoch, AssignmentEpoch(naive.epoch));
                        let prefix: Vec<(i64, usize)> = naive
                            .jobs
                            .iter()
                            .map_while(|(at, size)| size.map(|size| (*at, size)))
                            .take(part.outcomes.len())
                            .collect();
                        let expected: Vec<String> =
                            prefix.iter().map(|(at, _)| format!("{index}@{at}")).collect();
                        prop_assert_eq!(keys(part), expected);
                        prop_assert_eq!(part.next_offset, prefix.last().expect("not empty").0 + 1);
                        prop_assert!(part.next_offset > naive.committed, "offsets never go back");
                        naive.committed = part.next_offset;
                        for (at, size) in prefix {
                            naive.jobs.remove(&at);
                            records += 1;
                            bytes += size;
                            outcomes += 1;
                        }
                        ledger.committed(part);
                    }
                    prop_assert!(outcomes <= 1 || (records <= BOUNDS.records_max && bytes <= BOUNDS.bytes_max));
                    prop_assert_eq!(outcomes == 0, before.outcomes == 0, "something goes if something is ready");
                }
            }
            let ready: usize = model
                .values()
                .map(|naive| naive.jobs.values().take_while(|size| size.is_some()).count())
                .sum();
            prop_assert_eq!(ledger.ready().outcomes, ready);
            let idle = model.values().all(|naive| naive.jobs.values().all(Option::is_some));
            prop_assert_eq!(ledger.is_idle(), idle);
            let oldest = model.values().filter_map(Naive::oldest).chain(owed.values().copied()).min();
            prop_assert_eq!(ledger.oldest(Lane::Bulk), oldest.map(|offset| 10 * offset));
            prop_assert_eq!(ledger.oldest(Lane::Live), None);
        }
    }
}

/// Records of the bulk lane, written ten milliseconds apart.
fn started(index: usize, epoch: AssignmentEpoch, offsets: std::ops::Range<i64>) -> Note {
    let records = offsets.map(|offset| Begun { offset, written_ms: 10 * offset }).collect();
    Note::Started { partition: partition(index), epoch, lane: Lane::Bulk, records }
}

#[test]
fn a_busy_partition_does_not_starve_the_others() {
    let mut ledger = Ledger::default();
    let epoch = AssignmentEpoch(1);
    ledger.apply(Note::Assigned((0..2).map(|index| assignment(index, 1)).collect())).unwrap();
    for index in 0..2 {
        ledger.apply(started(index, epoch, 0..12)).unwrap();
        for offset in 0..12 {
            let (partition, written) = (partition(index), written(index, offset, 1));
            ledger.apply(Note::Finished { partition, epoch, offset, written }).unwrap();
        }
    }
    let served: Vec<i32> = (0..4).map(|_| ledger.select(BOUNDS).parts[0].partition.partition).collect();
    assert_eq!(served, [0, 1, 0, 1]);
    assert_eq!(ledger.ready(), Ready::default());
}

fn revoked(partitions: std::ops::Range<usize>, lost: bool) -> Note {
    Note::Revoked { partitions: partitions.map(partition).collect(), lost }
}

/// A broker that is away makes nothing younger.
#[test]
fn what_was_given_up_ages_until_it_comes_again_or_goes_elsewhere() {
    let oldest = |ledger: &Ledger| ledger.oldest(Lane::Bulk);
    let given_up = |partitions: usize| {
        let mut ledger = Ledger::default();
        ledger.apply(Note::Assigned((0..partitions).map(|index| assignment(index, 1)).collect())).unwrap();
        for index in 0..partitions {
            let first = 5 + i64::try_from(index).unwrap();
            ledger.apply(started(index, AssignmentEpoch(1), first..9)).unwrap();
        }
        ledger.give_up();
        ledger.apply(revoked(0..partitions, false)).unwrap();
        assert_eq!(oldest(&ledger), Some(50), "through the outage");
        ledger
    };
    let back = |next_offset| Note::Assigned(vec![Assignment { next_offset, ..assignment(0, 2) }]);

    let mut ledger = given_up(2);
    ledger.apply(back(5)).unwrap();
    assert_eq!(oldest(&ledger), Some(50), "back, and not yet read again");
    ledger.apply(started(0, AssignmentEpoch(2), 5..9)).unwrap();
    assert_eq!(oldest(&ledger), Some(50));
    let written = |offset| written(0, offset, 1);
    for offset in 5..9 {
        let (partition, epoch) = (partition(0), AssignmentEpoch(2));
        ledger.apply(Note::Finished { partition, epoch, offset, written: written(offset) }).unwrap();
    }
    let parcel = ledger.select(Bounds { records_max: 99, bytes_max: 999 });
    ledger.committed(&parcel.parts[0]);
    assert_eq!(oldest(&ledger), None, "the other partition is another worker's to tell of");

    let mut ledger = given_up(1);
    ledger.apply(back(9)).unwrap();
    assert_eq!(oldest(&ledger), None, "the log had taken the transaction after all");

    let mut ledger = given_up(1);
    ledger.apply(back(5)).unwrap();
    ledger.apply(revoked(0..1, false)).unwrap();
    assert_eq!(oldest(&ledger), None, "it went elsewhere");

    let mut ledger = given_up(1);
    ledger.apply(revoked(0..1, true)).unwrap();
    assert_eq!(oldest(&ledger), None, "it went elsewhere before it came back");
}

#[test]
fn a_job_that_ends_twice_is_a_mistake_that_is_told() {
    let mut ledger = Ledger::default();
    let (epoch, offset) = (AssignmentEpoch(1), 5);
    ledger.apply(Note::Assigned(vec![assignment(0, 1)])).unwrap();
    ledger.apply(started(0, epoch, 5..6)).unwrap();
    let finish = || Note::Finished { partition: partition(0), epoch, offset, written: written(0, 5, 1) };
    ledger.apply(finish()).unwrap();
    assert_eq!(ledger.apply(finish()), Err(OffsetsError::NotInFlight { offset }));
}
