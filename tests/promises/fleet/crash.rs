//! "Survives any crash": SIGKILL at random moments and at every named window, in a store of each kind.

use std::time::{Duration, Instant};

use e2e::fleet::{End, Fleet, StoreKind};
use e2e::moments::Moments;
use e2e::process::DEADLINE;
use testbed::until;

/// Where a crash could hurt: rows 1 to 7 of the fault matrix, from taking in to after the commit.
const WINDOWS: [&str; 8] = [
    "taken-in",
    "fetched",
    "decoded",
    "scoring",
    "before-begin",
    "after-send",
    "before-commit",
    "after-commit",
];

/// The broker's session timeout, and the transaction timeout with the broker's sweep: each 6 s in these fleets. The
/// rest is what the promise allows.
const RECOVERY: Duration = Duration::from_secs(6 + 5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_verdict_per_media_survives_kills_everywhere() {
    let mut fleet = Fleet::builder()
        .workers(2)
        .partitions(4)
        .stores(&[StoreKind::Sqlite, StoreKind::Postgres])
        .start()
        .await;
    let mut moments = Moments::new();

    // 2,000 media in five portions, a kill somewhere in each.
    for _ in 0..5 {
        let victim = moments.next(2) as usize;
        let death = Duration::from_millis(moments.next(500));
        // What the one before had is kept for it until its session is over.
        fleet.has_a_share(victim);
        let load = fleet.load(400);
        // The moment itself is what is random, as long as there is something in its hands.
        tokio::time::sleep(death).await;
        let mut more = Vec::new();
        until("it has media in its hands", DEADLINE, || {
            let in_hand = fleet.worker(victim).metric("touchstone_worker_uncommitted_media", "");
            if in_hand == 0.0 {
                more.push(fleet.load(100));
            }
            (in_hand > 0.0).then_some(())
        });
        fleet.worker(victim).kill();
        fleet.worker(victim).start();
        for load in more.into_iter().chain([load]) {
            load.done().await;
        }
    }
    fleet.settled().await;
    let count = fleet.verify().await;
    assert!(count.inputs >= 2_000, "{count:?}");

    for (number, window) in WINDOWS.into_iter().enumerate() {
        let victim = number % 2;
        fleet.has_a_share(victim);
        fleet.worker(victim).kill_at(window);
        fleet.submit(100).await;
        let end = fleet.worker(victim).ended();
        killed_at(window, &end);
        fleet.worker(victim).start();
    }
    fleet.settled().await;
    fleet.verify().await;

    // How long the others wait for the partitions and the open transaction of one that is gone for good.
    fleet.balanced();
    fleet.alone().await;
    fleet.worker(0).kill_at("after-send");
    let load = fleet.load(200);
    killed_at("after-send", &fleet.worker(0).ended());
    let killed = Instant::now();
    load.done().await;
    fleet.settled().await;
    let took = killed.elapsed();
    eprintln!(
        "recovered {:.1} s after a SIGKILL within a transaction (bound {RECOVERY:?})",
        took.as_secs_f64()
    );
    assert!(took <= RECOVERY, "recovery took {took:?}, promised are {RECOVERY:?}");
    fleet.verify().await;
}

/// By its own hand, there.
fn killed_at(window: &str, end: &End) {
    assert_eq!(end.signal, Some(9), "{window}: killed, not ended by itself:\n{}", end.log);
    let last = end.log.lines().last().unwrap_or_default();
    assert!(last.contains("failpoint") && last.contains(window), "{window}: its last words are {last}");
}
