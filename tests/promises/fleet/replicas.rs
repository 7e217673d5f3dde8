//! Several queries over one database: whichever is asked knows every verdict, and each is kept once.

use std::collections::BTreeSet;

use e2e::fleet::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_queries_share_one_database() {
    let mut fleet = Fleet::builder().workers(1).partitions(4).replicas(2).start().await;
    let watchers = [0, 1].map(|query| fleet.platform(query).clone().watch(200));
    let load = fleet.load(200);
    let [one, other] = watchers;
    let seen: [BTreeSet<String>; 2] = tokio::join!(one, other).into();
    load.done().await;
    let submitted: BTreeSet<String> = (0..200).map(|number| format!("media-{number}")).collect();
    assert!(seen.iter().all(|seen| *seen == submitted), "each watcher sees every verdict");
    // Each answers for every media.
    fleet.settled().await;

    // Each goes once and comes back; the other works on, and answers for all of it meanwhile.
    for query in 0..2 {
        let load = fleet.load(200);
        assert_eq!(fleet.query(query).drain().code, Some(0));
        load.done().await;
        fleet.known_to(1 - query).await;
        fleet.query(query).start();
        fleet.query(query).wait_ready();
        fleet.settled().await;
    }
    fleet.verify().await;
    let postgres = fleet.postgres().expect("a fleet with a database");
    let rows =
        postgres.query("touchstone_0", "SELECT count(*), count(DISTINCT media_id) FROM touchstone.verdicts");
    assert_eq!(rows.expect("the database answers"), "600|600");
}
