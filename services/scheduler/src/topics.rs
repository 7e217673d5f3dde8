//! The fleet's topics: how they are made, and whether those that exist are as they should be.

use std::time::Duration;

use ops::config::{HumanDuration, Problems};
use ops::{Exit, ExitReason, Shutdown};
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::{Cleanup, Log, StreamError, TopicDescription, TopicPolicy, TopicSpec};

/// The table `[scheduler.topics]`; each knob is explained in [`crate::DEFAULTS`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct TopicSettings {
    pub partitions: i32,
    pub media_retention: HumanDuration,
    pub verdicts_retention: HumanDuration,
    pub dead_letters_retention: HumanDuration,
}

impl TopicSettings {
    /// Notes what is wrong.
    pub(crate) fn check(&self, problems: &mut Problems) {
        let partitions_ok = (1..=1_024).contains(&self.partitions);
        problems.require(partitions_ok, "scheduler.topics.partitions", "must be 1 to 1024");
        for (key, retention) in [
            ("scheduler.topics.media_retention", self.media_retention),
            ("scheduler.topics.verdicts_retention", self.verdicts_retention),
            ("scheduler.topics.dead_letters_retention", self.dead_letters_retention),
        ] {
            problems.require(retention.get() >= Duration::from_secs(60), key, "must be at least 1m");
        }
    }

    /// The topics under their names in use.
    pub fn specs(&self, names: &Topics) -> Vec<TopicSpec> {
        let spec = |name: &str, retention: HumanDuration| TopicSpec {
            name: name.into(),
            partitions: self.partitions,
            policy: TopicPolicy::delete_after(retention.get()),
        };
        let media = names.all_media().map(|name| spec(name, self.media_retention));
        let others = [
            spec(&names.verdicts, self.verdicts_retention),
            spec(&names.dead_letters, self.dead_letters_retention),
        ];
        media.into_iter().chain(others).collect()
    }
}

/// Creates the topics that are missing and checks the others; a line for each says which.
///
/// # Errors
/// As [`require`]; whatever keeps the log from creating them.
pub async fn create(log: &dyn Log, wanted: &[TopicSpec], shutdown: &Shutdown) -> Result<String, Exit> {
    let there = described(log, wanted).await?;
    let is_there = |want: &TopicSpec| there.iter().any(|topic| topic.name == want.name);
    let missing: Vec<TopicSpec> = wanted.iter().filter(|want| !is_there(want)).cloned().collect();
    if !missing.is_empty() {
        log.create_topics(&missing).await?;
    }
    require(log, wanted, shutdown).await?;
    let line = |want: &TopicSpec| {
        let found = there.iter().find(|topic| topic.name == want.name);
        let what = if found.is_some() { "found  " } else { "created" };
        let TopicSpec { name, partitions, policy } = found.unwrap_or(want);
        format!("{what}  {name}: {partitions} partitions, {policy}\n")
    };
    Ok(wanted.iter().map(line).collect())
}

/// Refuses a log whose topics are missing, have another number of partitions than wanted, or would forget what is
/// not judged yet: with what to change.
///
/// # Errors
/// [`ExitReason::Refused`] with every topic that differs; [`ExitReason::Unavailable`] when the log does not answer.
pub async fn require(log: &dyn Log, wanted: &[TopicSpec], shutdown: &Shutdown) -> Result<(), Exit> {
    let look = async || {
        let missing = stream::missing_topics(log, wanted.iter().map(|spec| &*spec.name)).await?;
        Ok((missing, described(log, wanted).await?))
    };
    let (missing, there) = stream::at_start(&log.health(), shutdown, "the topics", look).await?;
    let mut differences = Vec::new();
    if !missing.is_empty() {
        differences.push(proto::topics::missing(&missing));
    }
    for topic in there {
        let want = wanted.iter().find(|want| want.name == topic.name);
        differences.extend(want.and_then(|want| difference(&topic, want)));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(ExitReason::Refused.because(differences.join("\n  ")))
}

async fn described(log: &dyn Log, wanted: &[TopicSpec]) -> Result<Vec<TopicDescription>, StreamError> {
    let names: Vec<&str> = wanted.iter().map(|spec| &*spec.name).collect();
    log.describe(&names).await
}

fn difference(topic: &TopicSpec, want: &TopicSpec) -> Option<String> {
    let name = &topic.name;
    if topic.partitions != want.partitions {
        return Some(format!(
            "topic {name} has {} partitions, scheduler.topics.partitions says {}: change the setting, or the topic",
            topic.partitions, want.partitions
        ));
    }
    match topic.policy.cleanup {
        Cleanup::Delete { .. } if topic.policy == want.policy => None,
        // An operator may keep records for longer or shorter; it is worth a word and no more.
        Cleanup::Delete { retention_ms } => {
            tracing::warn!(
                topic = &**name,
                retention_ms,
                "the topic's retention.ms is not that of [scheduler.topics]: change the one that is wrong"
            );
            None
        }
        Cleanup::Compact => Some(format!(
            "topic {name} is compacted, which forgets all but the last record of a media: \
             set its cleanup.policy to delete"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_forget_media_is_refused_and_what_keeps_them_otherwise_is_not() {
        let day = Duration::from_hours(24);
        let topic = |partitions, policy| TopicSpec { name: "media".into(), partitions, policy };
        let wanted = topic(4, TopicPolicy::delete_after(day));
        assert_eq!(difference(&wanted, &wanted), None);
        assert_eq!(
            difference(&topic(4, TopicPolicy::delete_after(2 * day)), &wanted),
            None,
            "an operator's choice"
        );
        let compacted = difference(&topic(4, TopicPolicy { cleanup: Cleanup::Compact }), &wanted);
        assert!(compacted.is_some_and(|why| why.contains("media") && why.contains("cleanup.policy")));
        let fewer = difference(&topic(2, wanted.policy), &wanted);
        assert!(fewer.is_some_and(|why| why.contains("scheduler.topics.partitions")));
    }
}
