//! Nothing missing, nothing double: as the auditor finds it, and as the test's own reader counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use prost::Message;
use proto::topics::{Origin, origin};
use proto::v1;
use stream::{Log, ReadEnd, Record, TopicPartition};

use super::Fleet;

/// What the test's own reader found on the topics, and found to be in order.
#[derive(Debug, Clone, Default)]
pub struct Count {
    /// References.
    pub inputs: usize,
    /// Verdicts: as many.
    pub verdicts: usize,
}

/// Topic, partition, offset.
type Place = (String, i32, i64);

impl Fleet {
    /// Runs the auditor against every store, and counts for itself what a read_committed reader sees. Every service that
    /// was not asked to end runs.
    ///
    /// # Panics
    /// With what is missing or double, or who is gone.
    pub async fn verify(&mut self) -> Count {
        self.assert_alive();
        for (index, query) in self.queries.iter().enumerate() {
            let output = self.audit(index);
            let report = String::from_utf8_lossy(&output.stdout);
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "the auditor of {} found something:\n{report}\n{words}",
                query.name()
            );
        }
        self.count().await
    }

    /// Runs the auditor against the store of the query of this number.
    pub fn audit(&self, query: usize) -> Output {
        let mut command = Command::new(&self.programs.touchstone);
        let query = self.queries[query].grpc();
        command.args(["--endpoint", self.scheduler.grpc(), "--query", query, "verify"]);
        command.output().expect("touchstone runs")
    }

    /// Reads every topic from its beginning to its end and holds verdicts against references, position by position.
    ///
    /// # Panics
    /// With the first positions that have no verdict, or several, or a verdict of a reference that is not there.
    pub async fn count(&self) -> Count {
        let verdicts = self.records(&self.topics.verdicts).await;
        let dead = self.records(&self.topics.dead_letters).await;
        assert!(dead.is_empty(), "nothing here deserves a dead letter, but there are {}", dead.len());
        let mut inputs: BTreeMap<Place, String> = BTreeMap::new();
        for topic in self.topics.all_media() {
            for record in self.records(topic).await {
                let value = record.value.clone().unwrap_or_default();
                let reference = v1::MediaReference::decode(value).expect("the front door writes references");
                inputs.insert(place(&record), reference.media_id);
            }
        }
        let mut missing: BTreeSet<&Place> = inputs.keys().collect();
        let mut wrong = Vec::new();
        for record in &verdicts {
            let verdict = v1::Verdict::decode(record.value.clone().unwrap_or_default()).expect("a verdict");
            let Origin::Input(at) = origin(&record.headers) else {
                wrong.push(format!("{}: no origin", record.position));
                continue;
            };
            let at: Place = (at.topic, at.partition, at.offset);
            match inputs.get(&at) {
                Some(media) if *media == verdict.media_id => {}
                found => {
                    wrong.push(format!("{}: verdict of {at:?}, where {found:?} stands", record.position))
                }
            }
            if !missing.remove(&at) {
                wrong.push(format!("{}: a second verdict of {at:?}", record.position));
            }
            let judged =
                matches!(verdict.outcome(), v1::Outcome::LikelyForged | v1::Outcome::LikelyAuthentic);
            if !judged {
                wrong.push(format!("{}: {:?}: {}", record.position, verdict.outcome(), verdict.detail));
            }
        }
        wrong.extend(missing.iter().map(|at| format!("{at:?}: no verdict")));
        let known: BTreeSet<&str> = inputs.values().map(String::as_str).collect();
        let lost = self.ids.iter().filter(|id| !known.contains(id.as_str()));
        wrong.extend(lost.map(|id| format!("{id} was acknowledged and is not in the log")));
        assert!(wrong.is_empty(), "{} positions are wrong:\n  {}", wrong.len(), first(&wrong));
        Count { inputs: inputs.len(), verdicts: verdicts.len() }
    }

    /// What a read_committed reader sees of a topic now.
    pub async fn records(&self, topic: &str) -> Vec<Record> {
        let topics = self.log.topics().await.expect("the broker answers");
        let topic =
            topics.iter().find(|description| *description.name == *topic).expect("a topic of the fleet");
        let from = (0..topic.partitions).map(|index| (TopicPartition::new(&*topic.name, index), 0)).collect();
        let mut reader = self.log.read(from, ReadEnd::Watermark).await.expect("the broker answers");
        let mut records = Vec::new();
        while let Some(batch) = reader.next().await.expect("the broker answers") {
            records.extend(batch.records);
        }
        records
    }
}

fn place(record: &Record) -> Place {
    let at = &record.position;
    (at.topic.to_string(), at.partition, at.offset)
}

fn first(wrong: &[String]) -> String {
    wrong[..wrong.len().min(20)].join("\n  ")
}
