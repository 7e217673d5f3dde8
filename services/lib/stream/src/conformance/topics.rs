//! Topics.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::Case;
use super::stage::Stage;
use crate::error::{Disposition, StreamError};
use crate::log::{TopicPolicy, TopicSize, TopicSpec};
use crate::member::{FetchBounds, Membership, StartAt};
use crate::record::{NewRecord, TopicPartition};

pub(crate) const CASES: &[Case] = &[
    Case { name: "topics-are-created-once-and-compared", run: |stage| created_once(stage).boxed_local() },
    Case { name: "unknown-topics-are-named", run: |stage| unknown(stage).boxed_local() },
];

async fn created_once(stage: &mut Stage) {
    let hours = TopicPolicy::delete_after(Duration::from_hours(5));
    let kept = TopicSpec { name: stage.name("kept"), partitions: 3, policy: hours };
    let state = TopicSpec { name: stage.name("state"), partitions: 1, policy: TopicPolicy::compact() };
    let both = [kept.clone(), state.clone()];
    let log = stage.log();
    stage.soon("create", log.create_topics(&both)).await.expect("new topics");
    stage.soon("create again", log.create_topics(&both)).await.expect("the same topics again");
    let nowhere = stage.name("nowhere");
    let names = [&*state.name, &*nowhere, &*kept.name];
    let mut described = stage.soon("describe", log.describe(&names)).await.expect("topics can be described");
    described.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(described, both, "the one that is not there is left out");
    let listed = stage.soon("list", log.topics()).await.expect("topics can be listed");
    for TopicSpec { name, partitions, .. } in &both {
        let size = TopicSize { name: Arc::clone(name), partitions: *partitions };
        assert!(listed.contains(&size), "{size:?} in {listed:?}");
    }

    let fresh = TopicSpec { name: stage.name("fresh"), partitions: 1, policy: hours };
    let wider = TopicSpec { partitions: 4, ..kept.clone() };
    let refused = log.create_topics(&[fresh.clone(), wider]).await.expect_err("other partitions are refused");
    assert!(matches!(&refused, StreamError::TopicMismatch { .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains(&*kept.name) && message.contains('3') && message.contains('4'), "{message}");
    let compacted = TopicSpec { policy: TopicPolicy::compact(), ..kept.clone() };
    let refused = log.create_topics(&[compacted]).await.expect_err("another policy is refused");
    assert!(refused.to_string().contains("compact"), "{refused}");
    let listed = log.topics().await.expect("topics can be listed");
    assert!(listed.iter().all(|topic| topic.name != fresh.name), "a refused request creates nothing");
}

async fn unknown(stage: &mut Stage) {
    let name = stage.name("nowhere");
    let topic = stage.topic(2).await;
    let log = stage.log();
    let refused =
        log.append(vec![NewRecord::keyed(Arc::clone(&name), "k", "v")]).await.expect_err("no topic");
    assert!(refused.to_string().contains(&*name), "{refused}");
    assert_eq!(refused.disposition(), Disposition::Fatal);
    let membership = Membership {
        group: stage.name("group"),
        slot: stage.name("slot"),
        topics: vec![name],
        start: StartAt::Earliest,
        fetch: FetchBounds::default(),
        session_timeout: None,
    };
    assert!(matches!(log.join(membership).await.err(), Some(StreamError::UnknownTopic { .. })));
    let beyond = TopicPartition::new(topic, 2);
    let refused = log.watermarks(&beyond).await.expect_err("no partition 2 of 2");
    assert!(matches!(refused, StreamError::UnknownPartition { partitions: 2, .. }), "{refused:?}");
}
