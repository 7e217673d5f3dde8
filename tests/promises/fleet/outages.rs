//! What the fleet stands on goes away under load and comes back: nothing is lost, nothing is judged wrongly meanwhile.

use std::time::{Duration, Instant};

use e2e::fleet::{End, Fleet, Load, Service, StoreKind};
use e2e::process::DEADLINE;
use testbed::{KafkaVersion, VersityGateway, until};

/// So long the object store is away.
const OUTAGE: Duration = Duration::from_secs(60);

/// After a broker takes connections again verdicts come within this time.
const GAP: Duration = Duration::from_secs(5);

const STORES: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Postgres];

const MEDIA: &str = "touchstone_worker_media_total";
const LAG: &str = "touchstone_stream_kafka_lag_records";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_pause_the_work_and_lose_nothing() {
    let mut fleet = Fleet::builder().workers(2).partitions(4).start().await;
    an_object_store_that_is_away_judges_nothing(&mut fleet).await;
    workers_that_are_asked_to_stop_finish_what_they_began(&mut fleet).await;
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
        works_on(&mut fleet, known);
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

/// Verdicts come again, beyond those that were known, soon after the broker is up. (Its coordinators come back later than
/// it takes connections: with the controller's session.)
fn works_on(fleet: &mut Fleet, known: f64) {
    let up = Instant::now();
    fleet.kafka().wait_back(proto::topics::WORKER_GROUP).expect("it comes back");
    let back = Instant::now();
    until("verdicts come again", DEADLINE, || (judged(fleet) > known).then_some(()));
    let (gap, in_all) = (back.elapsed(), up.elapsed());
    eprintln!(
        "verdicts came {:.1} s after the broker took connections (bound {GAP:?}), {:.1} s after its coordinators were back",
        in_all.as_secs_f64(),
        gap.as_secs_f64()
    );
    assert!(in_all <= GAP, "verdicts came {in_all:?} after connections were taken");
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

/// SIGTERM under load, to both and to one of them: exit 0, and what was begun is committed, so that nobody does it again.
async fn workers_that_are_asked_to_stop_finish_what_they_began(fleet: &mut Fleet) {
    let before = afresh(fleet).await;
    let load = busy(fleet);
    // Together: of those that go one by one, each leaves work to the next.
    fleet.workers().iter_mut().for_each(Service::ask_to_stop);
    let begun = begun_by(&fleet.worker(0).ended()) + begun_by(&fleet.worker(1).ended());
    let done = verdicts(fleet).await - before;
    assert_eq!(begun, done, "what was begun is committed");
    assert!(done > 50, "they were at work");
    load.done().await;

    let before = afresh(fleet).await;
    let load = busy(fleet);
    let begun = begun_by(&fleet.worker(0).drain());
    assert!(begun > 25, "it was at work");
    load.done().await;
    fleet.settled().await;
    let taken_over = begun_by(&fleet.worker(1).drain());
    assert_eq!(
        begun + taken_over,
        verdicts(fleet).await - before,
        "what one began the other did not do again"
    );
    for number in 0..2 {
        fleet.worker(number).start();
    }
    fleet.verify().await;
}

/// New lives of both workers, whose last words speak of what follows alone, with nothing left to judge; how many verdicts
/// there are.
async fn afresh(fleet: &mut Fleet) -> usize {
    for number in 0..2 {
        if !fleet.worker(number).is_running() {
            fleet.worker(number).start();
        }
    }
    fleet.settled().await;
    for number in 0..2 {
        assert_eq!(fleet.worker(number).drain().code, Some(0));
        fleet.worker(number).start();
        fleet.worker(number).wait_ready();
    }
    fleet.balanced();
    verdicts(fleet).await
}

/// Media on their way, of which each worker has judged some.
fn busy(fleet: &mut Fleet) -> Load {
    let load = fleet.load(1_500);
    until("both are at work", DEADLINE, || {
        fleet.workers().iter().all(|worker| worker.metric(MEDIA, "") > 25.0).then_some(())
    });
    load
}

async fn verdicts(fleet: &Fleet) -> usize {
    fleet.records(&fleet.topics().verdicts).await.len()
}

/// Media that the workers of this life have judged.
fn judged(fleet: &mut Fleet) -> f64 {
    fleet.workers().iter().map(|worker| worker.metric(MEDIA, "")).sum()
}

/// How many media a life began that ended as it should, by its last words.
fn begun_by(end: &End) -> usize {
    assert_eq!(end.code, Some(0), "{}", end.log);
    // The process says the same after it, without the number.
    let is_farewell = |line: &&str| line.contains("worker drained") && line.contains("jobs");
    let words = end.log.lines().rev().find(is_farewell).expect("it says farewell");
    let words: serde_json::Value = serde_json::from_str(words).expect("it logs JSON");
    usize::try_from(words["jobs"].as_u64().expect("a number")).expect("few")
}
