use std::sync::LazyLock;
use std::time::Instant;

use testbed::{Postgres as Server, Signal};

use super::connection::Connection;
use super::*;
use crate::store::{Row, Store, conformance};
use crate::testing::{row, tenant, verdict};

const TOPIC: &str = "verdicts";

fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        address: Address::parse(url).unwrap(),
        password_file: None,
        readers: 2,
        waiting_max: 64,
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(20),
    }
}

/// In an empty database of the shared server.
fn empty() -> (PostgresConfig, String) {
    let database = Server::shared().create_database().unwrap();
    (config(&Server::shared().url(&database)), database)
}

fn tasks() -> ops::Tasks {
    ops::Tasks::new(ops::Shutdown::new(Duration::ZERO))
}

async fn open(config: &PostgresConfig) -> Result<Store, StoreError> {
    Store::open_postgres(config, TOPIC, &tasks()).await
}

fn refused<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Refused { why, .. }) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

fn unavailable<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable { why, .. }) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was there"),
    }
}

fn stretch(expected: Option<i64>, rows: Vec<Row>) -> Stretch {
    let next_offset = rows.last().map_or(0, |row| row.seat.offset() + 1);
    Stretch { partition: 0, expected, next_offset, rows }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::suite(async || open(&empty().0).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_may_open_it_at_once_and_it_keeps_everything() {
    let (config, database) = empty();
    let (a, b, c, d) = tokio::join!(open(&config), open(&config), open(&config), open(&config));
    let rows = vec![row(0, 0, &verdict("default", "m", 1))];
    a.unwrap().apply(vec![stretch(None, rows)]).await.unwrap();
    for store in [b, c, d, open(&config).await] {
        let store = store.unwrap();
        assert_eq!(store.offsets().await, Ok(vec![(0, 1)]));
        assert_eq!(store.newest(&tenant("default"), vec!["m".to_owned()]).await.unwrap().len(), 1);
    }
    let meta = Server::shared().query(&database, "SELECT * FROM touchstone.meta ORDER BY 1").unwrap();
    assert_eq!(meta, "schema|1\ntopic|verdicts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_ours_is_refused_with_what_to_do() {
    let (config, database) = empty();
    drop(open(&config).await.unwrap());
    let another = refused(Store::open_postgres(&config, "another", &tasks()).await);
    assert!(another.contains("follows topic verdicts, not another"), "{another}");
    let server = Server::shared();
    server.query(&database, "UPDATE touchstone.meta SET value = '99' WHERE name = 'schema'").unwrap();
    let newer = refused(open(&config).await);
    assert!(newer.contains("schema 99, this build knows 1: run the newer build"), "{newer}");
    server.query(&database, "DROP TABLE touchstone.meta").unwrap();
    let theirs = refused(open(&config).await);
    assert!(theirs.contains("another program") && theirs.contains("database of its own"), "{theirs}");
    let missing = refused(open(&self::config(&server.url("no_such_database"))).await);
    assert!(missing.contains("no_such_database"), "{missing}");
}

#[tokio::test]
async fn tables_that_somebody_took_away_are_told_of() {
    let (config, database) = empty();
    let store = open(&config).await.unwrap();
    Server::shared().query(&database, "DROP TABLE touchstone.verdicts").unwrap();
    let gone = refused(store.newest(&tenant("default"), vec!["m".to_owned()]).await);
    assert!(gone.contains("drop its schema touchstone"), "{gone}");
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let config = PostgresConfig { readers: 1, waiting_max: 1, ..empty().0 };
    let postgres = Postgres::open(&config, TOPIC, &tasks()).await.unwrap();
    let held = postgres.readers.lease().await.unwrap();
    let waiting = postgres.offsets();
    let busy = async {
        let busy = postgres.offsets().await;
        drop(held);
        busy
    };
    let (waited, busy) = tokio::join!(biased; waiting, busy);
    assert_eq!(busy, Err(StoreError::Busy { waiting: 1 }));
    assert_eq!(waited, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_made_anew() {
    let (config, database) = empty();
    let store = open(&config).await.unwrap();
    store.apply(vec![stretch(None, vec![row(0, 0, &verdict("default", "m", 1))])]).await.unwrap();
    assert_eq!(store.offsets().await, Ok(vec![(0, 1)]));
    let ended = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    assert_eq!(Server::shared().query(&database, &ended).unwrap(), "2", "a reader and the writer");
    let found = async || match store.offsets().await {
        Ok(offsets) => Some(offsets),
        // It may be met before its end is known here.
        Err(StoreError::Unavailable { .. }) => None,
        Err(other) => panic!("{other}"),
    };
    let offsets = testbed::until_async("it is connected again", Duration::from_secs(20), found).await;
    assert_eq!(offsets, [(0, 1)]);
}

#[tokio::test]
async fn nothing_is_waited_for_without_end() {
    let server = Server::start().unwrap();
    let mut config = config(&server.url("postgres"));
    config.statement_timeout = Duration::from_secs(1);
    let postgres = Postgres::open(&config, TOPIC, &tasks()).await.unwrap();
    let mut lease = postgres.readers.lease().await.unwrap();
    let slow = lease.connection().query("SELECT pg_sleep(600)", &[]).await.map(drop);
    let slow = unavailable(slow.map_err(|failure| lease.at(failure)));
    assert!(slow.contains("statement timeout"), "{slow}");
    drop(lease);
    assert_eq!(postgres.offsets().await, Ok(vec![]), "on another connection");

    // It takes connections no more, nor refuses them.
    server.signal(Signal::Stop).unwrap();
    config.connect_timeout = Duration::from_millis(100);
    let began = Instant::now();
    let silent = unavailable(Postgres::open(&config, TOPIC, &tasks()).await);
    assert!(silent.contains("did not answer within 100ms"), "{silent}");
    assert!(began.elapsed() < Duration::from_secs(10));
    server.signal(Signal::Continue).unwrap();
}

#[tokio::test]
async fn a_secured_server_is_known_by_its_certificate_and_asks_for_the_password() {
    static SECURED: LazyLock<Server> = LazyLock::new(|| Server::builder().secured().start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let url = SECURED.url("postgres");
    let config = PostgresConfig { password_file: Some(file.clone()), ..config(&url) };
    let missing = refused(open(&config).await);
    assert!(missing.contains("query.store.password_file") && missing.contains("password:"), "{missing}");
    std::fs::write(&file, "not-it-s3cret\n").unwrap();
    let wrong = refused(open(&config).await);
    assert!(wrong.contains("password authentication failed") && !wrong.contains("s3cret"), "{wrong}");
    std::fs::write(&file, format!("{}\n", Server::PASSWORD)).unwrap();
    let store = open(&config).await.unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'touchstone-query' AND ssl";
    assert_eq!(store.offsets().await, Ok(vec![]));
    assert_eq!(SECURED.query("postgres", encrypted).unwrap(), "1");

    // Another authority, and another name than the certificate's.
    let stranger = Server::builder().secured().start().unwrap();
    let roots =
        |of: &Server| url.replace(SECURED.authority().to_str().unwrap(), of.authority().to_str().unwrap());
    let unknown = unavailable(
        open(&PostgresConfig { address: Address::parse(&roots(&stranger)).unwrap(), ..config.clone() }).await,
    );
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    let elsewhere = Address::parse(&url.replace("localhost", "127.0.0.1")).unwrap();
    let misnamed = unavailable(open(&PostgresConfig { address: elsewhere, ..config }).await);
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
}

#[tokio::test]
async fn a_connection_in_the_middle_of_something_is_not_used_again() {
    let postgres = Postgres::open(&empty().0, TOPIC, &tasks()).await.unwrap();
    let process = async |connection: &mut Connection| {
        let rows = connection.query("SELECT pg_backend_pid()", &[]).await.unwrap();
        rows[0].get::<_, i32>(0)
    };
    let mut lease = postgres.writer.lease().await.unwrap();
    let first = process(lease.connection()).await;
    drop(lease);
    let mut lease = postgres.writer.lease().await.unwrap();
    assert_eq!(process(lease.connection()).await, first, "it came back");
    lease.connection().begin().await.unwrap();
    drop(lease);
    let mut lease = postgres.writer.lease().await.unwrap();
    assert_ne!(process(lease.connection()).await, first, "its transaction was open");
}
