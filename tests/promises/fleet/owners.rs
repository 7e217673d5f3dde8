//! Who owns a partition: workers join, hang, come back, and claim each other's slots. On two versions of Kafka, whose
//! checks of a group's epoch differ.

use std::time::Instant;

use e2e::fleet::{Fleet, Service, StoreKind};
use e2e::process::DEADLINE;
use stream::{FetchBounds, Log, MemberEvent, Membership, StartAt};
use testbed::{KafkaVersion, until};

const STORES: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Postgres];

const FENCED: &str = "touchstone_stream_fenced_writes_total";
const TRANSACTIONS: &str = "touchstone_stream_transactions_total";
const REFUSED_ATTEMPTS: &str = "touchstone_stream_refused_attempts_total";
const LAG: &str = "touchstone_stream_kafka_lag_records";
const MEDIA: &str = "touchstone_worker_media_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_has_one_owner_whatever_workers_do() {
    owners(KafkaVersion::Newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_has_one_owner_on_kafka_4_0_too() {
    owners(KafkaVersion::Kafka40).await;
}

/// How often somebody joins the group and leaves it again.
const COMINGS: u32 = 3;

async fn owners(version: KafkaVersion) {
    let mut fleet = Fleet::builder().workers(2).partitions(4).kafka(version).stores(&STORES).start().await;
    // A commit that meets the change itself is refused, and done again: the less often, the quicker it is.
    fleet.alone().await;
    a_group_that_changes_around_them_disturbs_nobody(&mut fleet).await;
    fleet.in_company().await;
    a_third_worker_takes_its_share(&mut fleet).await;
    a_worker_that_hung_too_long_publishes_nothing(&mut fleet).await;
    the_older_of_two_with_one_slot_leaves(&mut fleet).await;
    let count = fleet.verify().await;
    assert_eq!(count.inputs, count.verdicts);
}

/// Row 12: the group's epoch moves, nobody's partitions do. No commit may be refused for that.
async fn a_group_that_changes_around_them_disturbs_nobody(fleet: &mut Fleet) {
    let elsewhere = Membership {
        group: proto::topics::WORKER_GROUP.into(),
        slot: "bystander".into(),
        // No worker reads this topic, so the bystander takes nothing from anybody.
        topics: vec![fleet.topics().dead_letters.as_str().into()],
        start: StartAt::Latest,
        fetch: FetchBounds::default(),
        session_timeout: None,
    };
    let before = refused_attempts(fleet);
    for _ in 0..COMINGS {
        let load = fleet.load(300);
        let mut member = fleet.log().join(elsewhere.clone()).await.expect("it joins");
        while !matches!(member.next().await.expect("the broker answers"), MemberEvent::Assigned(_)) {}
        member.leave().await.expect("it leaves");
        load.done().await;
    }
    fleet.settled().await;
    for worker in fleet.workers() {
        let of = |result: &str| worker.metric(TRANSACTIONS, &format!("result=\"{result}\""));
        let refused: f64 = ["stale", "fenced", "aborted", "rewound", "unknown"].into_iter().map(of).sum();
        assert_eq!(refused, 0.0, "{}", worker.name());
        assert!(of("committed") > 0.0, "{} was at work", worker.name());
    }
    // A commit may meet the change itself, and is made again at once; each change can meet one of each worker.
    let met = refused_attempts(fleet) - before;
    let most = f64::from(2 * COMINGS) * fleet.workers().len() as f64;
    eprintln!("{met} attempts at a commit met a change of the group (bound {most})");
    assert!(met <= most, "{met} attempts were refused");
}

fn dropped_jobs(fleet: &mut Fleet) -> f64 {
    fleet.workers()[..2].iter().map(|worker| worker.metric("touchstone_worker_dropped_jobs_total", "")).sum()
}

fn refused_attempts(fleet: &mut Fleet) -> f64 {
    fleet.workers().iter().map(|worker| worker.metric(REFUSED_ATTEMPTS, "")).sum()
}

/// A rebalance under load: partitions change hands with work in flight.
async fn a_third_worker_takes_its_share(fleet: &mut Fleet) {
    let before = dropped_jobs(fleet);
    let third = fleet.add_worker();
    for coming in 1.. {
        let began = Instant::now();
        while fleet.worker(third).metrics(LAG, "").is_empty() {
            assert!(began.elapsed() < DEADLINE, "the third has no share");
            fleet.submit(300).await;
        }
        // Those that two workers gave up in the midst of it.
        let dropped = dropped_jobs(fleet) - before;
        eprintln!("{dropped} media were under examination when their partitions went to a third worker");
        if dropped > 0.0 {
            break;
        }
        assert!(coming < 5, "no partition ever went with work in flight");
        fleet.worker(third).drain();
        fleet.settled().await;
        fleet.worker(third).start();
    }
    fleet.balanced();
    fleet.submit(300).await;
    fleet.settled().await;
    let judged = |worker: &Service| worker.metric(MEDIA, "");
    assert!(judged(fleet.worker(third)) > 0.0, "the third judges, too");
    fleet.verify().await;
}

/// Row 8: with outcomes in hand it stands still until others have done its work; then it goes on.
async fn a_worker_that_hung_too_long_publishes_nothing(fleet: &mut Fleet) {
    for window in ["before-begin", "before-commit"] {
        fleet.balanced();
        let known = fleet.worker(0).metric(FENCED, "");
        let partitions = fleet.worker(0).metrics(LAG, "").len() as f64;
        fleet.worker(0).stop_at(window);
        fleet.submit(300).await;
        fleet.worker(0).wait_stopped();
        // Its session ends, the others take its partitions and its work.
        fleet.settled().await;
        fleet.worker(0).cont();
        if window == "before-begin" {
            // Its group does not know it any more: it joins again.
            until("the zombie knows what it is", DEADLINE, || {
                (fleet.worker(0).metric(FENCED, "") > known).then_some(())
            });
            // It may have had two commits in hand, but none for a partition that it had lost already.
            let refused = fleet.worker(0).metric(FENCED, "") - known;
            assert!(refused <= partitions, "{refused} commits were refused, for {partitions} partitions");
        } else {
            // The broker has ended its transaction, as a newer holder of the slot would have: it leaves.
            let end = fleet.worker(0).ended();
            assert_eq!(end.code, Some(75), "{}", end.log);
            fleet.worker(0).start();
        }
        // Back in the group, and of use there.
        fleet.balanced();
        let judged = |fleet: &mut Fleet| fleet.worker(0).metric(MEDIA, "");
        let before = judged(fleet);
        fleet.submit(300).await;
        fleet.settled().await;
        assert!(judged(fleet) > before, "after {window}: it judges again");
        fleet.verify().await;
    }
}

/// Row 10: a mistake of an operator, who must be told which.
async fn the_older_of_two_with_one_slot_leaves(fleet: &mut Fleet) {
    fleet.balanced();
    let twin = fleet.add_twin(0);
    fleet.worker(twin).wait_ready();
    fleet.submit(300).await;
    let end = fleet.worker(0).ended();
    assert_eq!(end.code, Some(75), "{}", end.log);
    assert!(end.log.contains("a newer worker holds the slot worker-0"), "{}", end.log);
    fleet.settled().await;
    assert!(fleet.worker(twin).has_ended().is_none(), "the newer one stays");
}
