//! The store at size: how fast the projector's transactions fill it, and how fast it answers when full; on SQLite,
//! then on PostgreSQL.
//!
//! `cargo bench -p query --profile dev --bench query -- [--rows N]`, 20,000 rows by default. What is wanted at
//! 1,000,000 is named in each line of SQLite; those of PostgreSQL name SQLite's own number of the same run.
#![allow(clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use forensics::{Tenant, VerdictId};
use prost::Message;
use proto::v1;
use query::store::{Address, Filter, PageBounds, PostgresConfig, Row, Seat, SqliteConfig, Store, Stretch};
use testbed::Postgres;

/// Records of one transaction: what the projector gathers while it is behind.
const BATCH: u64 = 2_048;

const QUESTIONS: u64 = 2_000;

/// Rows a second that are wanted, and milliseconds that are allowed.
const PROJECT_WANTED: f64 = 10_000.0;
const GET_ALLOWED_MS: f64 = 5.0;
const LIST_ALLOWED_MS: f64 = 20.0;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--rows").skip(1);
    let rows = arguments.next().map_or(20_000, |rows| rows.parse().expect("--rows takes a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(both(rows));
}

async fn both(rows: u64) {
    let tasks = ops::Tasks::new(ops::Shutdown::new(Duration::ZERO));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = SqliteConfig { file: folder.path().join("store.db"), readers: 2, waiting_max: 64 };
    let store = Store::open_sqlite(&config, "verdicts", &tasks).expect("a new store");
    let mut sqlite = BTreeMap::from([("project".to_owned(), fill(&store, rows).await)]);
    sqlite.append(&mut ask(&store, rows).await);
    for (name, measured) in &sqlite {
        let ratio = measured.against(measured.wanted);
        let Measured { value, unit, wanted, .. } = measured;
        println!("BENCH query_{name} {value:.3} {unit} ratio {ratio:.2} against {wanted} {unit} wanted");
    }
    drop(folder);

    // As on a server of its own, small: the memory that its documentation begins with, and a disk that is waited for.
    let server = Postgres::builder().setting("fsync", "on").setting("shared_buffers", "512MB");
    let server = server.setting("max_wal_size", "4GB").start().expect("PostgreSQL starts");
    let config = PostgresConfig {
        address: Address::parse(&server.url("postgres")).expect("valid"),
        password_file: None,
        readers: 2,
        waiting_max: 64,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(30),
    };
    let store = Store::open_postgres(&config, "verdicts", &tasks).await.expect("a new store");
    let mut postgres = BTreeMap::from([("project".to_owned(), fill(&store, rows).await)]);
    // What the server does by itself in the minutes after so many rows, and would do beside the questions.
    server.query("postgres", "VACUUM (ANALYZE) touchstone.verdicts, touchstone.labels").expect("tidied");
    server.query("postgres", "CHECKPOINT").expect("written");
    postgres.append(&mut ask(&store, rows).await);
    for (name, measured) in postgres {
        let ratio = measured.against(sqlite[&name].value);
        let (Measured { value, unit, wanted, .. }, sqlite) = (measured, sqlite[&name].value);
        println!(
            "BENCH query_postgres_{name} {value:.3} {unit} ratio {ratio:.2} against {sqlite:.3} {unit} on SQLite, \
             {wanted} {unit} wanted"
        );
    }
}

/// A number, and whether more of it is better.
struct Measured {
    value: f64,
    unit: &'static str,
    wanted: f64,
}

impl Measured {
    fn rate(value: f64) -> Self {
        Self { value, unit: "rows/s", wanted: PROJECT_WANTED }
    }

    fn p99(mut took: Vec<Duration>, wanted: f64) -> Self {
        took.sort_unstable();
        Self { value: took[took.len() * 99 / 100].as_secs_f64() * 1e3, unit: "ms", wanted }
    }

    /// How many times better than another: a higher rate, or a shorter time.
    fn against(&self, other: f64) -> f64 {
        if self.unit == "ms" { other / self.value } else { self.value / other }
    }
}

async fn fill(store: &Store, rows: u64) -> Measured {
    let (mut took, mut next) = (Duration::ZERO, 0);
    while next < rows {
        let end = rows.min(next + BATCH);
        let records: Vec<(u64, Bytes)> = (next..end).map(|n| (n, record(n))).collect();
        // From here on it is the projector's work: decode, then one transaction.
        let began = Instant::now();
        let decoded = records
            .iter()
            .map(|(n, record)| Row::decode(Seat::new(0, *n as i64), Some(record)).expect("a verdict").0);
        let stretch = Stretch {
            partition: 0,
            expected: (next > 0).then_some(next as i64),
            next_offset: end as i64,
            rows: decoded.collect(),
        };
        store.apply(vec![stretch]).await.expect("room on the disk");
        took += began.elapsed();
        next = end;
    }
    Measured::rate(rows as f64 / took.as_secs_f64())
}

async fn ask(store: &Store, rows: u64) -> BTreeMap<String, Measured> {
    let tenant = Tenant::default_tenant();
    let mut measured = BTreeMap::new();
    let mut took = Vec::new();
    for n in 0..QUESTIONS {
        let media_id = format!("media-{}", scatter(n) % rows);
        let began = Instant::now();
        let found = store.newest(&tenant, vec![media_id]).await.expect("an answer");
        took.push(began.elapsed());
        assert_eq!(found.len(), 1);
    }
    measured.insert("get_p99".to_owned(), Measured::p99(took, GET_ALLOWED_MS));

    for (name, filter) in filters() {
        let mut took = Vec::new();
        let mut after = None;
        for _ in 0..QUESTIONS / 10 {
            let bounds = PageBounds { rows_max: 100, bytes_max: 3 << 20 };
            let began = Instant::now();
            let page = store.list(&tenant, filter.clone(), after, bounds).await.expect("an answer");
            took.push(began.elapsed());
            after = page.next;
        }
        measured.insert(format!("list_{name}_p99"), Measured::p99(took, LIST_ALLOWED_MS));
    }
    measured
}

fn filters() -> [(&'static str, Filter); 6] {
    [
        ("all", Filter::default()),
        ("outcome", Filter { outcomes: [2].into(), ..Filter::default() }),
        (
            "probability",
            Filter { probability_min: Some(0.33), probability_max: Some(0.34), ..Filter::default() },
        ),
        ("label", Filter { labels: [("shelf".to_owned(), "7".to_owned())].into(), ..Filter::default() }),
        // Nothing meets both: the page ends at its bound of candidates.
        (
            "contradiction",
            Filter {
                outcomes: [1].into(),
                labels: [("even".to_owned(), "yes".to_owned())].into(),
                ..Filter::default()
            },
        ),
        ("model", Filter { model_name: Some("two-stream".to_owned()), ..Filter::default() }),
    ]
}

fn record(n: u64) -> Bytes {
    let mut id = [0; 32];
    id.chunks_exact_mut(8).zip(0..).for_each(|(part, k)| {
        part.copy_from_slice(&scatter(n.wrapping_mul(4).wrapping_add(k)).to_be_bytes());
    });
    let face = v1::FaceVerdict {
        score: 0.5,
        landmarks: vec![v1::Point { x: 1.0, y: 2.0 }; 5],
        ..Default::default()
    };
    let labels = [
        ("shelf", (n % 100).to_string()),
        ("even", if n.is_multiple_of(2) { "yes" } else { "no" }.to_owned()),
    ];
    let verdict = v1::Verdict {
        verdict_id: VerdictId::from_bytes(id).to_string(),
        tenant: "default".to_owned(),
        media_id: format!("media-{n}"),
        // Odd rows have odd outcomes.
        outcome: 1 + (n % 4) as i32 / 2 * 2 + i32::from(n.is_multiple_of(2)),
        probability: Some((scatter(n) % 10_000) as f32 / 10_000.0),
        model: Some(v1::ModelIdentity {
            name: "two-stream".to_owned(),
            sha256: "ab".repeat(32),
            ..Default::default()
        }),
        faces: vec![face; 3],
        timeline: vec![v1::FrameVerdict { key: "frames/0001.jpg".to_owned(), ..Default::default() }; 8],
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        created_at: Some((UNIX_EPOCH + Duration::from_millis(1_795_485_600_000 + n)).into()),
        ..Default::default()
    };
    verdict.encode_to_vec().into()
}

/// SplitMix64's finaliser: ids are as scattered as hashes.
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
