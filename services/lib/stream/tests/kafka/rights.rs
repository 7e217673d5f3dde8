//! The rights that `defaults.toml` lists suffice, each for what its service asks of the log; and what is said where
//! one is lacking.

use std::sync::Arc;
use std::time::Duration;

use stream::kafka::{KafkaLog, KafkaSettings};
use stream::{
    AbortReason, Commit, Disposition, Log, ReadEnd, StreamError, TopicPartition, TopicPolicy, TopicSpec,
    missing_topics,
};
use testbed::{May, On};

use super::access::{guarded, login};
use super::support::{DEADLINE, all, append, commit, connect, membership, name, records, soon, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_listed_suffice() {
    let kafka = guarded();
    let (media, verdicts, letters) = (name("media"), name("verdicts"), name("dead-letters"));
    let (group, slot) = (name("workers"), name("worker"));
    let ours = [&*media, &*verdicts, &*letters];
    let [on_media, on_verdicts, on_letters] = ours.map(On::Topic);
    let (admin, _) = connect(login(&kafka, "admin", "root")).await;
    // Anybody may see this one, and nobody its settings: no service may stumble over it.
    let foreign = topic(&admin, "foreign", 1).await;
    let seen = (On::Topic(&foreign), May::Describe);

    let operator =
        ours.map(On::Topic).map(|on| [(on, May::Create), (on, May::Describe), (on, May::DescribeConfigs)]);
    kafka.allow("operator", &[operator.as_flattened(), &[seen]].concat()).unwrap();
    let operator = log_of(&kafka, "operator", &[&foreign]).await;
    let policy = TopicPolicy::delete_after(Duration::from_hours(24));
    let spec = |name: &Arc<str>| TopicSpec { name: Arc::clone(name), partitions: 1, policy };
    let specs = [&media, &verdicts, &letters].map(spec);
    operator.create_topics(&specs).await.unwrap();

    let scheduler = [
        (on_media, May::Read),
        (on_media, May::Write),
        (on_media, May::DescribeConfigs),
        (on_verdicts, May::DescribeConfigs),
        (on_letters, May::DescribeConfigs),
        (on_verdicts, May::Describe),
        (on_letters, May::Describe),
        seen,
    ];
    kafka.allow("scheduler", &scheduler).unwrap();
    let scheduler = log_of(&kafka, "scheduler", &ours).await;
    assert_eq!(missing_topics(&scheduler, ours).await.unwrap(), [""; 0]);
    let described = scheduler.describe(&ours).await.unwrap();
    assert!(specs.iter().all(|spec| described.contains(spec)), "{described:?}");
    append(&scheduler, &media, 3).await;
    let place = TopicPartition::new(Arc::clone(&media), 0);
    assert_eq!(scheduler.offset_at(&place, 0).await.unwrap(), 0);
    assert_eq!(all(&scheduler, &media, 1).await.len(), 3);
    let error = scheduler.describe(&[&foreign]).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Fatal);
    let message = error.to_string();
    assert!(message.contains("DESCRIBE_CONFIGS") && message.contains(&*foreign), "{message}");

    let worker = [
        (On::Group(&group), May::Read),
        (On::TransactionalId(&slot), May::Write),
        (on_media, May::Read),
        (on_verdicts, May::Write),
        (on_letters, May::Write),
        seen,
    ];
    kafka.allow("worker", &worker).unwrap();
    let worker = log_of(&kafka, "worker", &ours).await;
    assert_eq!(missing_topics(&worker, ours).await.unwrap(), [""; 0]);
    let mut member = worker.join(membership(&group, &slot, std::slice::from_ref(&media))).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 3).await;
    let committer = member.committer();
    for (output, inputs) in [(&verdicts, &inputs[..2]), (&letters, &inputs[2..])] {
        let answer = commit(&*committer, output, inputs, &offsets).await;
        assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");
    }
    let lag = stream::lag(&worker, &group, std::slice::from_ref(&place)).await.unwrap();
    assert_eq!(lag, [(place.clone(), 0)]);
    // Another slot is another's.
    let joined = worker.join(membership(&group, &name("slot"), std::slice::from_ref(&media))).await;
    let error = joined.err().expect("no right on this transactional id");
    assert_eq!(error.disposition(), Disposition::Fatal);
    assert!(error.to_string().contains("transactional id"), "{error}");
    // So is another group.
    let mut stranger =
        worker.join(membership(&name("group"), &slot, std::slice::from_ref(&media))).await.unwrap();
    let error = soon("the end", async {
        while stranger.next().await.is_ok() {}
        stranger.next().await
    })
    .await;
    assert!(error.unwrap_err().to_string().contains("READ right on the group"));

    let query = [
        (On::Group(&group), May::Describe),
        (on_verdicts, May::DescribeConfigs),
        (on_letters, May::DescribeConfigs),
        (on_media, May::DescribeConfigs),
        (on_media, May::Read),
        (on_verdicts, May::Read),
        (on_letters, May::Read),
        seen,
    ];
    kafka.allow("query", &query).unwrap();
    let query = log_of(&kafka, "query", &ours).await;
    assert_eq!(missing_topics(&query, ours).await.unwrap(), [""; 0]);
    let from = vec![(TopicPartition::new(Arc::clone(&verdicts), 0), 0)];
    let mut tail = query.read(from, ReadEnd::Tail).await.unwrap();
    assert_eq!(soon("verdicts", tail.next()).await.unwrap().unwrap().records.len(), 2);
    assert_eq!(query.committed(&group, std::slice::from_ref(&place)).await.unwrap(), [Some(3)]);
    // Who has no right on the group hears so when the time is up.
    let hasty =
        KafkaSettings { request_timeout: Duration::from_secs(3).into(), ..login(&kafka, "query", "q") };
    let (hasty, _) = connect(hasty).await;
    let error = hasty.committed(&name("group"), std::slice::from_ref(&place)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Fatal);
    assert!(error.to_string().contains("right on the group"), "{error}");
    for (topic, count) in [(&media, 3), (&letters, 1)] {
        assert_eq!(all(&query, topic, 1).await.len(), count);
    }
    let described = query.describe(&ours).await.unwrap();
    assert!(specs.iter().all(|spec| described.contains(spec)), "{described:?}");
}

/// Both sides of a member hear which right it is, and nobody waits for a broker that is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_lost_on_the_way_is_told() {
    let kafka = guarded();
    let (admin, _) = connect(login(&kafka, "admin", "root")).await;
    let (input, output) = (topic(&admin, "input", 1).await, topic(&admin, "output", 1).await);
    let (group, slot) = (name("group"), name("slot"));
    let on_slot = (On::TransactionalId(&slot), May::Write);
    let rights = [(On::Group(&group), May::Read), on_slot, (On::Topic(&output), May::Write)];
    kafka.allow("worker", &[&rights[..], &[(On::Topic(&input), May::Read)]].concat()).unwrap();
    let worker = log_of(&kafka, "worker", &[&input, &output]).await;
    append(&admin, &input, 1).await;
    let mut member = worker.join(membership(&group, &slot, std::slice::from_ref(&input))).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 1).await;
    let committer = member.committer();
    let answer = commit(&*committer, &output, &inputs, &offsets).await;
    assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");

    kafka.forbid("worker", &[on_slot]).unwrap();
    let is_told = |error: &StreamError| {
        assert_eq!(error.disposition(), Disposition::Fatal, "{error}");
        assert!(error.to_string().contains("transactional id"), "{error}");
    };
    let refused = || async {
        match commit(&*committer, &output, &inputs, &[]).await {
            Commit::Committed { .. } => None,
            Commit::Aborted { reason: AbortReason::Failed(error) } => Some(error),
            other => panic!("{other:?}"),
        }
    };
    is_told(&testbed::until_async("the loss has arrived", DEADLINE, refused).await);
    is_told(&refused().await.expect("it stays lost"));
    let heard = async {
        loop {
            if let Err(error) = member.next().await {
                return error;
            }
        }
    };
    is_told(&soon("the intake hears it", heard).await);
}

/// This user's log, once the broker shows it these topics: rights take a moment to arrive, in their order.
async fn log_of(kafka: &testbed::Kafka, user: &str, shown: &[&str]) -> KafkaLog {
    let (log, _) = connect(login(kafka, user, &user[..1])).await;
    let are_shown = || async {
        let topics = log.topics().await.ok()?;
        shown.iter().all(|name| topics.iter().any(|topic| *topic.name == **name)).then_some(())
    };
    testbed::until_async("the rights have arrived", DEADLINE, are_shown).await;
    log
}
