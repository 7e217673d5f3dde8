use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use forensics::Lane;
use ops::metrics::Registry;
use stream::{Assignment, AssignmentEpoch, NewRecord, StreamError, TopicPartition, Transaction};

use super::*;
use crate::clerk::Written;

/// Answers as it is told, then with Committed, and remembers what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Commit>>,
    asked: Mutex<Vec<Transaction>>,
}

#[async_trait]
impl Committer for Scripted {
    async fn commit(&self, transaction: Transaction) -> Commit {
        self.asked.lock().unwrap().push(transaction);
        let next = self.answers.lock().unwrap().pop_front();
        next.unwrap_or(Commit::Committed { positions: vec![] })
    }
}

impl Scripted {
    /// Records and offsets of every transaction so far.
    fn asked(&self) -> Vec<(usize, Vec<i64>)> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|t| (t.records.len(), t.offsets.iter().map(|o| o.next_offset).collect())).collect()
    }
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("t", index)
}

fn finished(index: i32, offset: i64, lane: Lane) -> Note {
    let written = Written {
        records: vec![NewRecord::keyed("v", "k", Bytes::from_static(b"x"))],
        bytes: 2,
        tally: Tally { outcome: None, dead_letter: None, lane, written_at: SystemTime::UNIX_EPOCH },
        permit: None,
    };
    let (partition, epoch) = (partition(index), AssignmentEpoch(1));
    Note::Finished { partition, epoch, offset, written: Box::new(written) }
}

fn started(index: i32, offsets: std::ops::Range<i64>) -> Note {
    let records = offsets.map(|offset| Begun { offset, written_ms: 0 }).collect();
    Note::Started { partition: partition(index), epoch: AssignmentEpoch(1), lane: Lane::Bulk, records }
}

fn assigned() -> Note {
    Note::Assigned((0..2).map(|index| assignment(index, 1)).collect())
}

fn assignment(index: i32, epoch: u64) -> Assignment {
    Assignment { partition: partition(index), epoch: AssignmentEpoch(epoch), next_offset: 0 }
}

/// A publisher over these answers, and the two ends a test holds.
fn publisher(answers: Vec<Commit>) -> (Publisher, mpsc::Sender<Note>, Arc<Scripted>) {
    let committer = Arc::new(Scripted { answers: Mutex::new(answers.into()), asked: Mutex::default() });
    let (notes, receiver) = mpsc::channel(1024);
    let config = PublishConfig {
        window: Duration::from_millis(100),
        records_max: 512,
        bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
    };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let publisher =
        Publisher::new(receiver, Arc::clone(&committer) as Arc<dyn Committer>, config, ("w".into(), metrics));
    (publisher, notes, committer)
}

async fn tell(notes: &mpsc::Sender<Note>, all: impl IntoIterator<Item = Note>) {
    for note in all {
        assert!(notes.send(note).await.is_ok(), "the publisher listens");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_commits_at_once_and_a_busy_one_collects() {
    let (publisher, notes, committer) = publisher(vec![]);
    let begin = Instant::now();
    let test = async {
        tell(&notes, [assigned(), started(0, 0..1), finished(0, 0, Lane::Standard)]).await;
        while committer.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "nothing else is in flight: no waiting");
        tell(&notes, [started(0, 1..9), finished(0, 2, Lane::Standard), finished(0, 1, Lane::Standard)])
            .await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        tell(&notes, [finished(0, 4, Lane::Standard), finished(0, 3, Lane::Standard)]).await;
        while committer.asked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!((100..=102).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
        assert_eq!(committer.asked(), [(1, vec![1]), (4, vec![5])], "8 still run: only the prefix goes");
        tell(&notes, [finished(0, 5, Lane::Live)]).await;
        while committer.asked().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert!(begin.elapsed().as_millis() <= 102, "somebody waits for a live one");
        drop(notes);
    };
    let (ended, ()) = tokio::join!(publisher.run(), test);
    assert_eq!(ended, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_stale_partition_is_dropped_and_the_rest_committed() {
    let stale = Commit::Aborted { reason: AbortReason::StaleEpoch { partitions: vec![partition(0)] } };
    let (publisher, notes, committer) = publisher(vec![stale]);
    let both = |offset| [finished(0, offset, Lane::Bulk), finished(1, offset, Lane::Bulk)];
    tell(&notes, [assigned(), started(0, 0..2), started(1, 0..2)]).await;
    tell(&notes, both(0)).await;
    let test = async {
        while committer.asked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The older assignment's other job ends after all; nobody wants it.
        tell(&notes, both(1)).await;
        drop(notes);
    };
    let (ended, ()) = tokio::join!(publisher.run(), test);
    assert_eq!(ended, Ok(()));
    assert_eq!(committer.asked(), [(2, vec![1, 1]), (1, vec![1]), (1, vec![2])]);
}

#[tokio::test(start_paused = true)]
async fn after_an_abort_everything_in_flight_is_given_up() {
    let why = StreamError::Unavailable { why: "test".to_owned() };
    for answer in [
        Commit::Aborted { reason: AbortReason::Failed(why) },
        Commit::Unknown { reason: "timeout".to_owned() },
    ] {
        let (publisher, notes, committer) = publisher(vec![answer]);
        tell(&notes, [assigned(), started(0, 0..1), started(1, 0..2), finished(0, 0, Lane::Live)]).await;
        let test = async {
            while committer.asked().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tell(&notes, [finished(1, 0, Lane::Live)]).await;
            // The member has rewound.
            let again = Note::Assigned(vec![assignment(0, 2)]);
            let rewound = Note::Revoked { partitions: vec![partition(0), partition(1)], lost: false };
            tell(&notes, [rewound, again]).await;
            drop(notes);
        };
        let (ended, ()) = tokio::join!(publisher.run(), test);
        assert_eq!(ended, Ok(()));
        assert_eq!(committer.asked(), [(1, vec![1])], "nothing of the old assignments is committed");
    }
}

#[tokio::test]
async fn what_would_fail_for_ever_ends_the_worker() {
    let refused = StreamError::Refused { what: "topic v".to_owned(), why: "no right".to_owned() };
    let too_large = StreamError::Invalid { why: "topic v: max.message.bytes".to_owned() };
    for error in [refused, too_large] {
        let (publisher, notes, _) =
            publisher(vec![Commit::Aborted { reason: AbortReason::Failed(error.clone()) }]);
        tell(&notes, [assigned(), started(0, 0..1), finished(0, 0, Lane::Bulk)]).await;
        let exit = publisher.run().await.unwrap_err();
        assert!(exit.why.contains("topic v"), "{error}: {}", exit.why);
    }
}

#[tokio::test]
async fn a_fenced_worker_leaves_to_be_started_anew() {
    let (publisher, notes, _) = publisher(vec![Commit::Fenced { reason: "epoch 7".to_owned() }]);
    tell(&notes, [assigned(), started(0, 0..1), finished(0, 0, Lane::Bulk)]).await;
    let exit = publisher.run().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Temporary);
    assert!(exit.why.contains("slot w") && exit.why.contains("epoch 7"), "{}", exit.why);
}
