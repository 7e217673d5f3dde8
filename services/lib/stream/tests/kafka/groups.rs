//! Members among members. Numbers are rows of the fault matrix.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stream::kafka::GroupProtocol;
use stream::{Commit, FetchBounds, Log, Membership, StartAt};
use testbed::{Kafka, KafkaVersion};

use super::support::{
    DEADLINE, Mode, append, assigned, audit, commit, connect, copy, membership, metric, name, records,
    settings, soon, topic, until_done,
};

/// Row 10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_with_one_slot_the_older_is_told_clearly() {
    let (log, registry) = connect(settings(&Kafka::shared().bootstrap())).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    let (group, slot) = (name("group"), name("slot"));
    append(&log, &input, 3).await;
    let mut older = log.join(membership(&group, &slot, std::slice::from_ref(&input))).await.unwrap();
    let (inputs, offsets) = records(&mut *older, 3).await;
    // Another process: a log of its own.
    let (other, _) = connect(settings(&Kafka::shared().bootstrap())).await;
    let elsewhere = name("elsewhere");
    let newer = other.join(membership(&elsewhere, &slot, std::slice::from_ref(&input))).await.unwrap();
    let answer = commit(&*older.committer(), &output, &inputs, &offsets).await;
    let Commit::Fenced { reason } = answer else { panic!("{answer:?}") };
    assert!(!reason.is_empty());
    let error = loop {
        if let Err(error) = soon("it is told", older.next()).await {
            break error;
        }
    };
    assert!(error.to_string().contains(&*slot) && error.to_string().contains("newer"), "{error}");
    assert_eq!(error.disposition(), stream::Disposition::Restart);
    assert_eq!(metric(&registry, "touchstone_stream_fenced_writes_total", None), 1.0);
    newer.leave().await.unwrap();
}

/// So many come and go.
const BYSTANDERS: u32 = 4;

/// Row 12: others come and go, this member's share stays, and so do its commits.
async fn generations(bootstrap: &str, group_protocol: GroupProtocol) {
    let settings = stream::kafka::KafkaSettings { group_protocol, ..settings(bootstrap) };
    let (log, registry) = connect(settings).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    let (group, slot) = (name("group"), name("slot"));
    append(&log, &input, 1).await;
    let mut member = log.join(membership(&group, &slot, std::slice::from_ref(&input))).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 1).await;
    let committer = member.committer();
    let churn = async {
        for _ in 0..BYSTANDERS {
            let bystander = name("bystander");
            let membership = membership(&group, &bystander, std::slice::from_ref(&input));
            let other = soon("a bystander", log.join(membership)).await.unwrap();
            // It stays until the broker has counted it in and the group has moved on.
            let stay = Instant::now() + Duration::from_millis(1500);
            tokio::time::sleep_until(stay.into()).await;
            soon("leave", other.leave()).await.unwrap();
        }
    };
    let work = async {
        let mut commits = 0;
        loop {
            let answer = commit(&*committer, &output, &inputs, &offsets).await;
            assert!(matches!(&answer, Commit::Committed { .. }), "commit {commits}: {answer:?}");
            commits += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = churn => {}
        () = work => {}
    }
    let committed = metric(&registry, "touchstone_stream_transactions_total", Some("committed"));
    assert!(committed > 20.0, "only {committed} commits in all that time");
    assert_eq!(metric(&registry, "touchstone_stream_fenced_writes_total", None), 0.0);
    // A commit may meet the change itself, and is made again at once.
    let met = metric(&registry, "touchstone_stream_refused_attempts_total", None);
    assert!(met <= f64::from(2 * BYSTANDERS), "{met} attempts were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_bump_fences_nobody_with_the_consumer_protocol() {
    generations(&Kafka::shared().bootstrap(), GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_bump_fences_nobody_with_the_classic_protocol() {
    generations(&Kafka::shared().bootstrap(), GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_bump_fences_nobody_on_kafka_4_0() {
    let kafka = Kafka::builder().version(KafkaVersion::Kafka40).start().unwrap();
    generations(&kafka.bootstrap(), GroupProtocol::Consumer).await;
}

/// So often a third member comes and goes.
const HANDOVERS: u32 = 6;
const PARTITIONS: i32 = 12;

/// The group is shared out anew again and again, each time in several steps, since whoever gives partitions up does so with a
/// heartbeat of its own: what a member has meanwhile is read on. (It was not always: see the top of `polling.rs`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_is_read_on_while_others_come_and_go() {
    let (log, _) = connect(Mode::Newest.settings(&Kafka::shared().bootstrap())).await;
    let (input, output) = (topic(&log, "input", PARTITIONS).await, topic(&log, "output", PARTITIONS).await);
    let (group, copied) = (name("group"), Arc::new(AtomicUsize::new(0)));
    let join = || async {
        let membership = membership(&group, &name("slot"), std::slice::from_ref(&input));
        soon("joining", log.join(membership)).await.unwrap()
    };
    let mut staying = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (mut member, output, copied) = (join().await, Arc::clone(&output), Arc::clone(&copied));
        staying.spawn(async move { copy(&mut *member, &output, &copied).await });
    }
    let all_of = |count: usize| {
        let copied = Arc::clone(&copied);
        testbed::until_async("every record is copied", DEADLINE, move || {
            let done = (copied.load(Ordering::Relaxed) >= count).then_some(());
            async move { done }
        })
    };
    let mut appended = 0;
    for handover in 0..HANDOVERS {
        let mut third = join().await;
        assigned(&mut *third).await;
        append(&log, &input, 120).await;
        appended += 120;
        tokio::select! {
            () = all_of(appended) => {}
            ended = copy(&mut *third, &output, &copied) => panic!("hand-over {handover}: {ended}"),
        }
        soon("leave", third.leave()).await.unwrap();
        append(&log, &input, 120).await;
        appended += 120;
        all_of(appended).await;
    }
    assert!(staying.try_join_next().is_none(), "both are there");
    until_done(&log, &group, &input, &output, PARTITIONS).await;
    assert_eq!(audit(&log, &group, &input, &output, PARTITIONS).await, appended);
}

/// A slow intake makes the member pause, again and again; every record comes, in order, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_intake_loses_nothing() {
    slow_intake(Mode::Newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_intake_loses_nothing_with_the_classic_protocol() {
    slow_intake(Mode::Classic).await;
}

async fn slow_intake(mode: Mode) {
    let (log, _) = connect(mode.settings(&Kafka::shared().bootstrap())).await;
    let input = topic(&log, "input", 2).await;
    let positions = append(&log, &input, 3000).await;
    let membership = Membership {
        fetch: FetchBounds { records_max: 20, bytes_max: 1024 * 1024 },
        start: StartAt::Earliest,
        ..membership(&name("group"), &name("slot"), std::slice::from_ref(&input))
    };
    let mut member = log.join(membership).await.unwrap();
    let mut read = Vec::new();
    for _ in 0..2 {
        let (some, _) = records(&mut *member, 100).await;
        read.extend(some);
        // The slowness itself: longer than the second after which partitions are paused.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let (rest, _) = records(&mut *member, 3000 - read.len()).await;
    read.extend(rest);
    let mut read: Vec<_> = read.into_iter().map(|record| record.position).collect();
    let in_order = |partition: i32| {
        let offsets: Vec<_> =
            read.iter().filter(|at| at.partition == partition).map(|at| at.offset).collect();
        offsets.is_sorted() && !offsets.is_empty()
    };
    assert!(in_order(0) && in_order(1));
    read.sort();
    let mut positions = positions;
    positions.sort();
    assert_eq!(read, positions);
}

/// A session of its own is only to be had by the classic protocol, whatever the log's setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_may_have_a_session_of_its_own() {
    let (log, _) = connect(settings(&Kafka::shared().bootstrap())).await;
    let control = topic(&log, "control", 1).await;
    let (group, slot) = (name("leaders"), name("slot"));
    let topics = [Arc::clone(&control)];
    let leader =
        Membership { session_timeout: Some(Duration::from_secs(6)), ..membership(&group, &slot, &topics) };
    let mut first = log.join(leader.clone()).await.unwrap();
    append(&log, &control, 1).await;
    let (_, offsets) = records(&mut *first, 1).await;
    let answer = commit(&*first.committer(), &control, &[], &offsets).await;
    assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");
    soon("leave", first.leave()).await.unwrap();
    let mut second = log.join(Membership { slot: name("slot"), ..leader }).await.unwrap();
    let new = assigned(&mut *second).await;
    assert_eq!(new[0].next_offset, offsets[0].next_offset);
}
