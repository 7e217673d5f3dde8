//! Query on PostgreSQL: several replicas on one database, and a database that goes away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::v1::watch_verdicts_response::Event;
use proto::v1::{self, WatchVerdictsRequest};
use query::store::{Address, PostgresConfig, StoreConfig};
use testbed::Postgres;
use tonic::Code;

use crate::support::{Service, of, until, verdict};

fn on(postgres: &Postgres, database: &str) -> StoreConfig {
    StoreConfig::Postgres(PostgresConfig {
        address: Address::parse(&postgres.url(database)).unwrap(),
        password_file: None,
        readers: 2,
        waiting_max: 64,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(20),
    })
}

fn by_media(id: &str) -> v1::GetVerdictRequest {
    v1::GetVerdictRequest { by: Some(v1::get_verdict_request::By::MediaId(id.to_owned())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_on_one_database_both_follow_and_each_verdict_is_one_row() {
    let postgres = Postgres::shared();
    let database = postgres.create_database().unwrap();
    let mut one = Service::with(|config| config.store = on(postgres, &database)).await;
    let mut other = one.replica().await;
    let watch = async |service: &Service| {
        let request = of("default", WatchVerdictsRequest { from_start: true, ..Default::default() });
        service.verdicts().watch_verdicts(request).await.unwrap().into_inner()
    };
    let watches = [watch(&one).await, watch(&other).await];

    const ROUNDS: u64 = 60;
    const EACH: u64 = 40;
    for round in 0..ROUNDS {
        let batch: Vec<_> =
            (0..EACH).map(|n| verdict("default", &format!("m-{n}"), round * EACH + n)).collect();
        one.publish(&batch).await;
    }
    one.projected().await;
    other.projected().await;
    let all = ROUNDS * EACH;
    let counted = "SELECT count(*), count(DISTINCT verdict_id) FROM touchstone.verdicts";
    assert_eq!(postgres.query(&database, counted).unwrap(), format!("{all}|{all}"));
    let total = |name: &str| one.metric(name) + other.metric(name);
    assert_eq!(total("touchstone_query_projected_total"), all as f64, "each by one of them");
    assert_eq!(total("touchstone_query_verdict_duplicates_total"), 0.0);
    assert_eq!(total("touchstone_query_projector_failures_total"), 0.0, "none had to pause");
    assert!(one.ops.readiness.is_ready() && other.ops.readiness.is_ready());

    for (mut watch, which) in watches.into_iter().zip(["one", "other"]) {
        let mut seen = BTreeMap::new();
        while (seen.len() as u64) < all {
            let next = tokio::time::timeout(Duration::from_secs(20), watch.message()).await;
            match next.expect(which).unwrap().unwrap().event.unwrap() {
                Event::Verdict(verdict) => {
                    assert_eq!(seen.insert(verdict.verdict_id, ()), None, "{which}: twice")
                }
                Event::Heartbeat(_) => {}
                Event::Gap(gap) => panic!("{which}: {gap:?}"),
            }
        }
    }
    let newest = other.verdicts().get_verdict(of("default", by_media("m-0"))).await.unwrap().into_inner();
    assert_eq!(newest, verdict("default", "m-0", (ROUNDS - 1) * EACH));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_at_once_and_nothing_is_lost() {
    let mut postgres = Postgres::start().unwrap();
    let mut service = Service::with(|config| {
        config.store = on(&postgres, "postgres");
        config.pauses = (Duration::from_millis(10), Duration::from_millis(100));
    })
    .await;
    service.publish(&[verdict("default", "before", 1)]).await;
    service.projected().await;
    assert!(service.ops.readiness.is_ready());

    postgres.kill().unwrap();
    service.publish(&[verdict("default", "meanwhile", 2)]).await;
    until("it is not ready", || !service.ops.readiness.is_ready()).await;
    assert!(service.metric("touchstone_query_projector_failures_total") > 0.0);
    for _ in 0..10 {
        let began = Instant::now();
        let status = service.verdicts().get_verdict(of("default", by_media("before"))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    postgres.restart().unwrap();
    service.projected().await;
    until("it is ready again", || service.ops.readiness.is_ready()).await;
    for media in ["before", "meanwhile"] {
        let got = service.verdicts().get_verdict(of("default", by_media(media))).await.unwrap().into_inner();
        assert_eq!(got.media_id, media);
    }
    let rows = postgres.query("postgres", "SELECT count(*) FROM touchstone.verdicts").unwrap();
    assert_eq!(rows, "2");
}
