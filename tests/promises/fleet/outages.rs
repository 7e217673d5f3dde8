//! What the fleet stands on goes away under load and comes back: nothing is lost, nothing is judged wrongly meanwhile.

use std::time::{Duration, Instant};

use e2e::fleet::{Fleet, Load, Service, StoreKind};
use e2e::process::DEADLINE;
use stream::{FetchBounds, Log, Membership, StartAt};
use testbed::{KafkaVersion, VersityGateway, until, until_async};

/// So long the object store is away.
const OUTAGE: Duration = Duration::from_secs(60);

/// After a broker is up again verdicts come within this time.
const GAP: Duration = Duration::from_secs(5);

const STORES: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Postgres];

const LAG: &str = "touchstone_stream_kafka_lag_records";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_pause_the_work_and_lose_nothing() {
    let mut fleet = Fleet::builder().workers(2).partitions(4).start().await;
    an_object_store_that_is_away_judges_nothing(&mut fleet).await;
    a_fleet_that_is_asked_to_stop_finishes_what_it_began(&mut fleet).await;
    workers_with_wrong_settings_lose_nothing(&mut fleet).await;
}

/// Row 13 with the only broker there is: nothing works until it is back. (On Kafka 4.0: 4.3 and 4.4 forget the markers of
/// transactions while a partition has no leader.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_broker_may_die_under_load() {
    let mut fleet =
        Fleet::builder().workers(2).partitions(4).kafka(KafkaVersion::Kafka40).stores(&STORES).start().await;
    fleet.alone().await;
    for _ in 0..3 {
        let load = under_way(&mut fleet).await;
        fleet.kafka().kill().expect("it can be killed");
        for worker in fleet.workers() {
            worker.wait_unready("log");
        }
        let known = judged(&mut fleet);
        fleet.kafka().restart().expect("it comes back");
        works_on(&mut fleet, known).await;
        load.done().await;
        fleet.settled().await;
        fleet.verify().await;
    }
}

/// Row 13 with brokers that replicate each other: each dies once, and the others do its work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_of_three_brokers_may_die_under_load() {
    let mut fleet = Fleet::builder().workers(2).partitions(4).brokers(3).stores(&STORES).start().await;
    for broker in 0..fleet.kafka().brokers() {
        let load = under_way(&mut fleet).await;
        fleet.kafka().kill_broker(broker).expect("it can be killed");
        load.done().await;
        fleet.settled().await;
        let load = under_way(&mut fleet).await;
        fleet.kafka().restart_broker(broker).expect("it comes back");
        load.done().await;
        fleet.settled().await;
        fleet.verify().await;
    }
}

/// Media on their way, of which some are judged.
async fn under_way(fleet: &mut Fleet) -> Load {
    let before = judged(fleet);
    let load = fleet.load(1_000);
    until("some of it is judged", DEADLINE, || (judged(fleet) >= before + 50.0).then_some(()));
    load
}

/// Verdicts come again, beyond those that were known, soon after the broker's coordinators are back: it takes connections
/// long before that.
async fn works_on(fleet: &mut Fleet, known: f64) {
    let newcomer = Membership {
        group: "newcomers".into(),
        slot: "newcomer".into(),
        topics: vec![fleet.topics().dead_letters.as_str().into()],
        start: StartAt::Latest,
        fetch: FetchBounds::default(),
        session_timeout: None,
    };
    let up = Instant::now();
    let newcomers = until_async("a newcomer can begin", DEADLINE, || async {
        let log = fleet.fresh_log().await.ok()?;
        let member = log.join(newcomer.clone()).await.ok()?;
        Some((log, member))
    });
    let (_log, member) = newcomers.await;
    let back = Instant::now();
    member.leave().await.expect("it leaves");
    until("verdicts come again", DEADLINE, || (judged(fleet) > known).then_some(()));
    let gap = back.elapsed();
    eprintln!(
        "verdicts came {:.1} s after the broker was back (bound {GAP:?}), {:.1} s after it took connections",
        gap.as_secs_f64(),
        up.elapsed().as_secs_f64()
    );
    assert!(gap <= GAP, "the gap was {gap:?}");
}

/// The breaker: not ready, nothing judged, nothing dead-lettered, and the lag tells the truth.
async fn an_object_store_that_is_away_judges_nothing(fleet: &mut Fleet) {
    fleet.submit(100).await;
    fleet.settled().await;
    fleet.store().kill().expect("it can be killed");
    let gone = Instant::now();
    let before = fleet.count().await;
    fleet.submit(400).await;
    for worker in fleet.workers() {
        worker.wait_unready("object-store");
    }
    until("the lag is what was submitted", DEADLINE, || {
        let lags = fleet.workers().iter().map(|worker| worker.metric(LAG, ""));
        (lags.sum::<f64>() == 400.0).then_some(())
    });
    until("a minute is over", DEADLINE, || (gone.elapsed() >= OUTAGE).then_some(()));
    let verdicts = fleet.topics().verdicts.clone();
    assert_eq!(fleet.records(&verdicts).await.len(), before.verdicts, "nothing is judged meanwhile");

    fleet.store().restart().expect("it comes back");
    for worker in fleet.workers() {
        worker.wait_ready();
    }
    fleet.settled().await;
    until("nothing lags", DEADLINE, || {
        let lags = fleet.workers().iter().map(|worker| worker.metric(LAG, ""));
        (lags.sum::<f64>() == 0.0).then_some(())
    });
    fleet.verify().await;
}

/// An operator's mistakes: what is submitted meanwhile waits in the log, and is judged once the setting is mended.
async fn workers_with_wrong_settings_lose_nothing(fleet: &mut Fleet) {
    let nobody = format!("http://127.0.0.1:{}", testbed::free_port().expect("a free port"));
    let right = [fleet.store().endpoint(), VersityGateway::SECRET_KEY.to_owned()];
    let wrong = [nobody, "another-secret".to_owned()];
    for (setting, (right, wrong)) in
        ["s3.endpoint", "s3.secret_access_key"].into_iter().zip(right.iter().zip(&wrong))
    {
        set_again(fleet, right, wrong);
        let before = fleet.count().await.verdicts;
        fleet.submit(60).await;
        for worker in fleet.workers() {
            worker.wait_unready(setting);
        }
        let verdicts = fleet.topics().verdicts.clone();
        assert_eq!(fleet.records(&verdicts).await.len(), before, "nothing is judged with a wrong {setting}");
        set_again(fleet, wrong, right);
        for worker in fleet.workers() {
            worker.wait_ready();
        }
        fleet.settled().await;
        fleet.verify().await;
    }
}

/// Every worker starts once more, with `new` where its settings had `old`.
fn set_again(fleet: &mut Fleet, old: &str, new: &str) {
    for worker in fleet.workers() {
        let end = worker.drain();
        assert_eq!(end.code, Some(0), "{}", end.log);
        worker.change(&format!("{old:?}"), &format!("{new:?}"));
        worker.start();
    }
}

/// SIGTERM under load: exit 0, and what was begun is committed, so that nobody does it again.
async fn a_fleet_that_is_asked_to_stop_finishes_what_it_began(fleet: &mut Fleet) {
    // Begun afresh, so that their last words speak of this chapter alone.
    for number in 0..2 {
        assert_eq!(fleet.worker(number).drain().code, Some(0));
    }
    let before = fleet.count().await.verdicts;
    for number in 0..2 {
        fleet.worker(number).start();
        fleet.worker(number).wait_ready();
    }
    fleet.balanced();
    let load = fleet.load(1_500);
    until("work is under way", DEADLINE, || (judged(fleet) > 50.0).then_some(()));
    // Together: of one that goes alone, the other would take over, and be counted twice.
    fleet.workers().iter_mut().for_each(Service::ask_to_stop);
    let mut begun = 0;
    for worker in fleet.workers() {
        let end = worker.ended();
        assert_eq!(end.code, Some(0), "{}", end.log);
        begun += begun_by(&end.log);
    }
    let verdicts = fleet.topics().verdicts.clone();
    let done = fleet.records(&verdicts).await.len() - before;
    assert_eq!(begun, done, "what was begun is committed");
    assert!(done > 50, "they were at work");
    load.done().await;
    for number in 0..2 {
        fleet.worker(number).start();
    }
    fleet.settled().await;
    fleet.verify().await;
}

/// Media that the workers of this life have judged.
fn judged(fleet: &mut Fleet) -> f64 {
    fleet.workers().iter().map(|worker| worker.metric("touchstone_worker_media_total", "")).sum()
}

/// How many media a life began, by its last words.
fn begun_by(log: &str) -> usize {
    // The process says the same after it, without the number.
    let is_farewell = |line: &&str| line.contains("worker drained") && line.contains("jobs");
    let words = log.lines().rev().find(is_farewell).expect("it says farewell");
    let words: serde_json::Value = serde_json::from_str(words).expect("it logs JSON");
    usize::try_from(words["jobs"].as_u64().expect("a number")).expect("few")
}
