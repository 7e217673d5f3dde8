//! Members that join, leave, vanish, take each other's slots, publish late and meet failing disks, all at once: at
//! the end each input has exactly one output.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::super::faults::Fault;
use super::*;
use crate::error::Disposition;
use crate::member::Committer;

const PARTITIONS: i32 = 5;
const INPUTS: usize = 1000;

/// A small generator, so that a seed replays its choices (the interleaving is the scheduler's).
struct Choices(u64);

impl Choices {
    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

async fn finished(fixture: &Fixture, inputs: &[TopicPartition]) -> bool {
    let committed = fixture.log.committed("group", inputs).await.unwrap();
    let mut done = true;
    for (partition, committed) in inputs.iter().zip(committed) {
        done &= committed == Some(fixture.log.watermarks(partition).await.unwrap().high);
    }
    done
}

/// One member's life: some work, some of it published late, then it leaves or is just dropped.
async fn life(fixture: &Fixture, choices: &mut Choices, inputs: &[TopicPartition]) {
    let membership = Membership {
        group: "group".into(),
        // Fewer slots than members: now and then one fences another.
        slot: format!("slot-{}", choices.below(4)).into(),
        topics: vec!["input".into()],
        start: StartAt::Earliest,
        fetch: FetchBounds { records_max: 1 + choices.below(20) as usize, bytes_max: 1 << 20 },
        session_timeout: None,
    };
    let mut member = fixture.log.join(membership).await.unwrap();
    let mut kept: Vec<Transaction> = Vec::new();
    for _ in 0..choices.below(40) {
        if finished(fixture, inputs).await {
            break;
        }
        // Somebody else may own everything: then there is nothing to wait for.
        let patience = Duration::from_millis(20);
        let Ok(event) = tokio::time::timeout(patience, member.next()).await else { break };
        match event {
            Ok(MemberEvent::Records { partition, epoch, records }) => {
                let next_offset = records.last().unwrap().position.offset + 1;
                let outputs = records.iter().map(|input| {
                    let origin = format!("{}/{}", input.position.partition, input.position.offset);
                    record(&TopicPartition::new("output", input.position.partition), &origin, &origin)
                });
                let mut outputs: Vec<_> = outputs.collect();
                if choices.below(8) == 0 {
                    // This one will fail, and those kept behind it must not happen either.
                    outputs.push(record(&TopicPartition::new("output", PARTITIONS), "no", "such partition"));
                }
                let offsets = vec![CommitOffset { partition, epoch, next_offset }];
                kept.push(Transaction { records: outputs, offsets });
            }
            Ok(MemberEvent::Assigned(_)) => {}
            // What was revoked is published all the same, later, by a publisher that does not listen.
            Ok(MemberEvent::Revoked { .. }) => {}
            Err(error) if error.disposition() == Disposition::Restart => break,
            Err(error) => panic!("{error}"),
        }
        if choices.below(150) == 0 {
            fixture.log.core.shared.faults.set(match choices.below(2) {
                0 => Fault::FsyncFailedBefore,
                _ => Fault::FsyncFailedAfter,
            });
        }
        if choices.below(3) == 0 {
            publish(&*member.committer(), &mut kept).await;
        }
    }
    let committer = member.committer();
    if choices.below(2) == 0 {
        member.leave().await.unwrap();
    } else {
        drop(member);
    }
    // A zombie.
    for transaction in kept {
        let late = soon(committer.commit(transaction)).await;
        assert!(
            !matches!(late, Commit::Committed { .. }) || fixture.log.health().borrow().is_ready(),
            "{late:?}"
        );
    }
}

/// In order, and without drawing conclusions: what follows a transaction that did not happen must not happen either
/// (the prefix would have a hole), and it is the log that sees to it.
async fn publish(committer: &dyn Committer, kept: &mut Vec<Transaction>) {
    for transaction in kept.drain(..) {
        drop(soon(committer.commit(transaction)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_input_has_one_output_whatever_the_members_do() {
    let fixture = Fixture::new();
    let inputs = fixture.topic("input", PARTITIONS, day()).await;
    let outputs = fixture.topic("output", PARTITIONS, day()).await;
    for partition in &inputs {
        let texts: Vec<String> = (0..INPUTS / inputs.len()).map(|index| index.to_string()).collect();
        fixture.append(partition, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let members = (1u64..=6).map(|seed| {
        let (fixture, inputs) = (&fixture, &inputs);
        async move {
            let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            while !finished(fixture, inputs).await {
                life(fixture, &mut choices, inputs).await;
            }
        }
    });
    tokio::time::timeout(3 * DEADLINE, join_all(members)).await.expect("the storm ends");

    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for partition in &outputs {
        for origin in fixture.values(partition).await {
            *found.entry(origin).or_default() += 1;
        }
    }
    for partition in &inputs {
        for record in fixture.all(partition).await {
            let origin = format!("{}/{}", record.position.partition, record.position.offset);
            assert_eq!(found.remove(&origin), Some(1), "{origin}");
        }
    }
    assert_eq!(found, BTreeMap::new(), "outputs without input");
    assert!(fixture.metric("touchstone_stream_fenced_writes_total") > 0.0, "nobody was refused: no storm");
}
