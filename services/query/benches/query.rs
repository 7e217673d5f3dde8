//! Query at size: how fast the projector fills its store from the embedded log, and how fast it answers over gRPC when
//! that is full; on SQLite, then on PostgreSQL.
//!
//! `cargo bench -p query --profile dev --bench query -- [--rows N]`, 20,000 rows by default. What is wanted at
//! 1,000,000 is named in each line of SQLite; those of PostgreSQL name SQLite's own number of the same run.
#![allow(clippy::print_stdout, missing_docs)]

mod served;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use forensics::VerdictId;
use prost::Message;
use proto::topics::key;
use proto::v1;
use proto::v1::verdict_service_client::VerdictServiceClient;
use served::Served;
use stream::{Log, NewRecord};
use testbed::Postgres;
use tonic::transport::Channel;

/// Records of one append.
const BATCH: usize = 4_096;

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
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ops = served::ops();
    let log = served::local(folder.path(), &ops);
    let file = folder.path().join("store.db").display().to_string();
    fill(&*log, rows).await;

    let sqlite = Served::open(Arc::clone(&log), ops, ("FILE", &file));
    let mut on_sqlite = measure(sqlite, rows, || {}).await;
    for (name, measured) in &mut on_sqlite {
        let ratio = measured.against(measured.wanted);
        let Measured { value, unit, wanted, .. } = measured;
        println!("BENCH query_{name} {value:.3} {unit} ratio {ratio:.2} against {wanted} {unit} wanted");
    }

    // As on a server of its own, small: the memory that its documentation begins with, and a disk that is waited for.
    let server = Postgres::builder().setting("fsync", "on").setting("shared_buffers", "512MB");
    let server = server.setting("max_wal_size", "4GB").start().expect("PostgreSQL starts");
    let url = server.url("postgres");
    let postgres = Served::open(log, served::ops(), ("URL", &url));
    // What the server does by itself in the minutes after so many rows, and would do beside the questions.
    let tidy = || {
        server.query("postgres", "VACUUM (ANALYZE) touchstone.verdicts, touchstone.labels").expect("tidied");
        server.query("postgres", "CHECKPOINT").expect("written");
    };
    for (name, measured) in measure(postgres, rows, tidy).await {
        let ratio = measured.against(on_sqlite[&name].value);
        let (Measured { value, unit, wanted, .. }, sqlite) = (measured, on_sqlite[&name].value);
        println!(
            "BENCH query_postgres_{name} {value:.3} {unit} ratio {ratio:.2} against {sqlite:.3} {unit} on SQLite, \
             {wanted} {unit} wanted"
        );
    }
}

/// From an empty store that the projector fills to the questions of an analyst.
async fn measure(
    opening: impl Future<Output = Served>,
    rows: u64,
    tidy: impl Fn(),
) -> BTreeMap<String, Measured> {
    let began = Instant::now();
    let served = opening.await;
    served.projected().await;
    let projected = Measured::rate(rows as f64 / began.elapsed().as_secs_f64());
    tidy();
    let client = VerdictServiceClient::new(served.channel().await);
    let mut measured = ask(client, rows).await;
    measured.insert("project".to_owned(), projected);
    // The next one's measurements are not disturbed by this one.
    served.ops.shutdown.request();
    measured
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

/// Every verdict, on the verdict topic.
async fn fill(log: &dyn Log, rows: u64) {
    let config = served::config(("FILE", "unused.db"));
    served::create_topics(log, &config).await;
    let topic: Arc<str> = config.topics.verdicts.as_str().into();
    for first in (0..rows).step_by(BATCH) {
        let records = (first..rows.min(first + BATCH as u64))
            .map(|n| NewRecord::keyed(Arc::clone(&topic), key("default", &format!("media-{n}")), record(n)));
        log.append(records.collect()).await.expect("room on the disk");
    }
}

async fn ask(mut client: VerdictServiceClient<Channel>, rows: u64) -> BTreeMap<String, Measured> {
    let mut measured = BTreeMap::new();
    let mut took = Vec::new();
    for n in 0..QUESTIONS {
        let media_id = format!("media-{}", scatter(n) % rows);
        let by = Some(v1::get_verdict_request::By::MediaId(media_id.clone()));
        let began = Instant::now();
        let found = client.get_verdict(v1::GetVerdictRequest { by }).await.expect("an answer");
        took.push(began.elapsed());
        assert_eq!(found.into_inner().media_id, media_id);
    }
    measured.insert("get_p99".to_owned(), Measured::p99(took, GET_ALLOWED_MS));

    for (name, filter) in filters(rows) {
        let mut took = Vec::new();
        let mut page_token = String::new();
        for _ in 0..QUESTIONS / 10 {
            let request =
                v1::ListVerdictsRequest { filter: Some(filter.clone()), page_size: 100, page_token };
            let began = Instant::now();
            let page = client.list_verdicts(request).await.expect("an answer").into_inner();
            took.push(began.elapsed());
            // After the last page the first one again.
            page_token = page.next_page_token;
        }
        measured.insert(format!("list_{name}_p99"), Measured::p99(took, LIST_ALLOWED_MS));
    }
    measured
}

fn filters(rows: u64) -> [(&'static str, v1::VerdictFilter); 7] {
    let all = v1::VerdictFilter::default;
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let at = |n: u64| Some((UNIX_EPOCH + made(n)).into());
    [
        ("all", all()),
        ("outcome", v1::VerdictFilter { outcomes: vec![2], ..all() }),
        (
            "probability",
            v1::VerdictFilter { probability_min: Some(0.33), probability_max: Some(0.34), ..all() },
        ),
        ("label", v1::VerdictFilter { labels: label("shelf", "7"), ..all() }),
        // Nothing meets both: the page ends at its bound of candidates.
        ("contradiction", v1::VerdictFilter { outcomes: vec![1], labels: label("even", "yes"), ..all() }),
        ("model", v1::VerdictFilter { model_name: "two-stream".to_owned(), ..all() }),
        // The middle tenth.
        (
            "time",
            v1::VerdictFilter { created_from: at(rows / 20 * 9), created_to: at(rows / 20 * 11), ..all() },
        ),
    ]
}

/// When the verdict of this number was made, since 1970.
fn made(n: u64) -> Duration {
    Duration::from_millis(1_795_485_600_000 + n)
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
        created_at: Some((UNIX_EPOCH + made(n)).into()),
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
