//! A crash at any instruction leaves whole transactions: a process that writes without pause is killed, again and
//! again, and what it leaves is checked each time.

// A test that cannot go on says where.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use stream::local::{LocalConfig, LocalLog};
use stream::{
    Commit, CommitOffset, FetchBounds, Log, MemberEvent, Membership, Metrics, NewRecord, Position, ReadEnd,
    Record, StartAt, TopicPartition, TopicPolicy, TopicSpec, Transaction,
};

/// Names the folder to the process that is to be killed.
const FOLDER: &str = "STREAM_CRASH_TEST_FOLDER";
const PARTITIONS: i32 = 3;
const KILLS: u32 = 8;

fn open(folder: &Path) -> LocalLog {
    LocalLog::open(LocalConfig::new(folder), Metrics::register(&Registry::new()).unwrap()).unwrap()
}

/// The victim: appends inputs, and for each input commits one output and the input's offset. Says what was
/// acknowledged. Does nothing when it is run as an ordinary test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let log = open(&folder);
    let policy = TopicPolicy::delete_after(Duration::from_hours(24));
    let topic = |name: &str| TopicSpec { name: name.into(), partitions: PARTITIONS, policy };
    log.create_topics(&[topic("input"), topic("output")]).await.unwrap();
    let append = async {
        for round in 0u64.. {
            let records =
                (0..20).map(|index| NewRecord::keyed("input", format!("{round}-{index}"), vec![7u8; 200]));
            say("APPENDED", &log.append(records.collect()).await.unwrap());
        }
    };
    let work = async {
        let membership = Membership {
            group: "workers".into(),
            slot: "worker-0".into(),
            topics: vec!["input".into()],
            start: StartAt::Earliest,
            fetch: FetchBounds { records_max: 13, bytes_max: 100_000 },
            session_timeout: None,
        };
        let mut member = log.join(membership).await.unwrap();
        let committer = member.committer();
        loop {
            let MemberEvent::Records { partition, epoch, records } = member.next().await.unwrap() else {
                continue;
            };
            let next_offset = records.last().unwrap().position.offset + 1;
            let outputs = records.iter().map(|record| output(&record.position)).collect();
            let offsets = vec![CommitOffset { partition, epoch, next_offset }];
            match committer.commit(Transaction { records: outputs, offsets }).await {
                Commit::Committed { positions } => say("COMMITTED", &positions),
                other => panic!("{other:?}"),
            }
        }
    };
    let tidy = async {
        // Deletes and vacuums are writes too.
        loop {
            log.maintain(0).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(append, work, tidy);
}

fn output(input: &Position) -> NewRecord {
    NewRecord::keyed("output", format!("{}", input.partition), vec![1u8; 100])
        .with_header("input-partition", input.partition.to_string())
        .with_header("input-offset", input.offset.to_string())
}

fn say(word: &str, positions: &[Position]) {
    let mut text = String::from("\n");
    for position in positions {
        text.push_str(&format!("{word} {} {} {}\n", position.topic, position.partition, position.offset));
    }
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_leaves_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs_before = 0;
    for kill in 0..KILLS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed after some number of lines: each time elsewhere in its work.
        let lines_to_live = 40 + (kill * 397) as usize % 1500;
        let mut acknowledged: BTreeMap<(String, i32), i64> = BTreeMap::new();
        let mut seen = 0;
        let said = BufReader::new(victim.stdout.take().unwrap());
        for line in said.lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["APPENDED" | "COMMITTED", topic, partition, offset] = words[..] {
                let place = acknowledged.entry((topic.to_owned(), partition.parse().unwrap())).or_default();
                *place = (*place).max(offset.parse().unwrap());
                seen += 1;
            }
            if seen == lines_to_live {
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        assert!(seen >= lines_to_live, "the victim ended by itself after {seen} lines");
        let inputs = check(folder.path(), &acknowledged).await;
        assert!(inputs > inputs_before, "it goes on where it was");
        inputs_before = inputs;
    }
}

/// What was acknowledged is there; each input below the committed offset has one output, each other one none.
async fn check(folder: &Path, acknowledged: &BTreeMap<(String, i32), i64>) -> usize {
    let log = open(folder);
    for ((topic, partition), offset) in acknowledged {
        let high = log.watermarks(&TopicPartition::new(topic.as_str(), *partition)).await.unwrap().high;
        assert!(high > *offset, "{topic}/{partition}@{offset} was acknowledged, the log ends at {high}");
    }
    let mut outputs: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    for record in all(&log, "output").await {
        let number = |name| text(record.header(name).unwrap()).parse::<i64>().unwrap();
        let input = (i32::try_from(number("input-partition")).unwrap(), number("input-offset"));
        *outputs.entry(input).or_default() += 1;
    }
    let inputs = all(&log, "input").await;
    let partitions: Vec<_> = (0..PARTITIONS).map(|index| TopicPartition::new("input", index)).collect();
    let committed = log.committed("workers", &partitions).await.unwrap();
    for input in &inputs {
        let Position { partition, offset, .. } = input.position;
        let done = committed[partition as usize].is_some_and(|next_offset| offset < next_offset);
        let count = outputs.remove(&(partition, offset)).unwrap_or(0);
        assert_eq!(count, u32::from(done), "input {partition}@{offset}, committed {committed:?}");
    }
    assert_eq!(outputs, BTreeMap::new(), "outputs without input");
    inputs.len()
}

async fn all(log: &LocalLog, topic: &str) -> Vec<Record> {
    let from = (0..PARTITIONS).map(|index| (TopicPartition::new(topic, index), 0)).collect();
    let mut reader = log.read(from, ReadEnd::Watermark).await.unwrap();
    let mut records = Vec::new();
    while let Some(batch) = reader.next().await.unwrap() {
        // Offsets of a partition have no holes here: a hole would be a lost record.
        for record in batch.records {
            records.push(record);
        }
    }
    records
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
