//! The auditor at size: the memory it takes beyond what the service holds anyway, and how fast it reads.
//!
//! `cargo bench -p query --profile dev --bench audit -- [--records N] [--doubled N] [--kafka] [--folder DIR]`, 200,000
//! references on the embedded log by default; a folder that is filled already is audited as it is, and stays. With
//! `--doubled`, so many references (of the first partition) have a second verdict. One process fills log and store, each
//! reference with its verdict and its row; another one opens them and audits, asked over gRPC, so that what the one has
//! taken from the system is not counted as the other's.
#![allow(clippy::print_stdout, missing_docs)]

mod served;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use forensics::{InputPosition, VerdictId};
use prost::Message;
use proto::topics::{key, outcome_headers};
use proto::v1;
use proto::v1::audit_service_client::AuditServiceClient;
use proto::v1::verify_response::Event;
use served::Served;
use stream::kafka::{KafkaLog, KafkaSettings};
use stream::{
    Commit, CommitOffset, FetchBounds, Log, MemberEvent, Membership, NewRecord, Position, StartAt,
    Transaction,
};
use testbed::Kafka;

/// References of one append, and of one transaction.
const BATCH: usize = 4_096;

/// What an audit may take beyond a bit for each reference (guarantees.md, "Invariants").
const ALLOWED_MIB: f64 = 64.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number =
        |name: &str| value(name).map(|n| n.parse().unwrap_or_else(|_| panic!("{name} takes a number")));
    let records = number("--records").unwrap_or(200_000);
    let doubled = number("--doubled").unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = value("--fill") {
        let place = Place { folder: folder.into(), bootstrap: value("--bootstrap") };
        return runtime.block_on(fill(&place, records, doubled));
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = value("--folder").map_or(temporary.path().to_owned(), PathBuf::from);
    let kafka = arguments
        .iter()
        .any(|argument| argument == "--kafka")
        .then(|| Kafka::builder().folder(&folder.join("kafka")).start().expect("Kafka starts"));
    let place = Place { folder, bootstrap: kafka.as_ref().map(Kafka::bootstrap) };
    if !place.store().exists() {
        let began = Instant::now();
        let mut filler = Command::new(std::env::current_exe().expect("a bench has a path"));
        filler.arg("--fill").arg(&place.folder);
        filler.args(["--records", &records.to_string(), "--doubled", &doubled.to_string()]);
        filler.args(place.bootstrap.iter().flat_map(|bootstrap| ["--bootstrap", bootstrap]));
        assert!(filler.status().expect("it starts").success(), "log and store could not be filled");
        println!("{records} references, verdicts and rows in {:.0} s", began.elapsed().as_secs_f64());
    }
    runtime.block_on(audit(&place, records, doubled));
}

/// Where log and store are.
struct Place {
    folder: PathBuf,
    /// Of a Kafka, where it is not the embedded log.
    bootstrap: Option<String>,
}

impl Place {
    fn store(&self) -> PathBuf {
        self.folder.join("store.db")
    }

    async fn open(&self) -> Served {
        let ops = served::ops();
        let log = match &self.bootstrap {
            None => served::local(&self.folder, &ops),
            Some(bootstrap) => {
                let settings =
                    KafkaSettings { bootstrap_servers: bootstrap.clone(), ..KafkaSettings::default() };
                let metrics = stream::Metrics::register(&ops.registry).expect("registered once");
                let config = settings.check().expect("the defaults are valid");
                let log = KafkaLog::connect(config, metrics, ops::Failpoints::default()).await;
                Arc::new(log.expect("the broker answers")) as Arc<dyn Log>
            }
        };
        Served::open(log, ops, ("FILE", &self.store().display().to_string())).await
    }
}

async fn fill(place: &Place, records: usize, doubled: usize) {
    let service = place.open().await;
    let topic: Arc<str> = service.config.topics.media_standard.as_str().into();
    for first in (0..records).step_by(BATCH) {
        let references = (first..records.min(first + BATCH)).map(|n| {
            let value = reference(n).encode_to_vec();
            NewRecord::keyed(Arc::clone(&topic), key("default", &format!("m-{n}")), value)
        });
        service.log.append(references.collect()).await.expect("room on the disk");
    }
    work(&service, &topic).await;
    // Each a second time: what the auditor has to keep in mind until it has seen everything.
    let first = Position { topic: Arc::clone(&topic), partition: 0, offset: 0 };
    let again = (0..doubled as i64).map(|offset| outcome(&service, &Position { offset, ..first.clone() }));
    for again in again.collect::<Vec<_>>().chunks(BATCH) {
        service.log.append(again.to_vec()).await.expect("room on the disk");
    }
    service.projected().await;
}

/// As a worker: takes everything in and commits it with its verdicts.
async fn work(service: &Served, topic: &Arc<str>) {
    let inputs = served::partitions(topic);
    let membership = Membership {
        group: Arc::clone(&service.config.worker_group),
        slot: "worker-0".into(),
        topics: vec![Arc::clone(topic)],
        start: StartAt::Earliest,
        fetch: FetchBounds { records_max: BATCH, bytes_max: 4 << 20 },
        session_timeout: None,
    };
    let mut member = service.log.join(membership).await.expect("nobody else works");
    let committer = member.committer();
    let mut left = 0;
    for input in &inputs {
        left += service.log.watermarks(input).await.expect("an answer").high;
    }
    while left > 0 {
        let MemberEvent::Records { partition, epoch, records } = member.next().await.expect("records") else {
            continue;
        };
        left -= records.len() as i64;
        let next_offset = records.last().expect("one at least").position.offset + 1;
        let records = records.iter().map(|record| outcome(service, &record.position)).collect();
        let offsets = vec![CommitOffset { partition, epoch, next_offset }];
        let commit = committer.commit(Transaction { records, offsets }).await;
        assert!(matches!(commit, Commit::Committed { .. }), "{commit:?}");
    }
    member.leave().await.expect("it is a member");
}

fn reference(n: usize) -> v1::MediaReference {
    let object = Some(v1::ObjectRef { key: format!("frames/{n}.jpg"), ..Default::default() });
    let image = v1::ImageSource { bucket: "media".to_owned(), object };
    v1::MediaReference {
        tenant: "default".to_owned(),
        media_id: format!("m-{n}"),
        source: Some(v1::media_reference::Source::Image(image)),
        ..Default::default()
    }
}

/// Ids rise, which fills the store's index faster than real ones would; the auditor reads rows by their seats.
fn outcome(service: &Served, input: &Position) -> NewRecord {
    let n = u64::try_from(i64::from(input.partition) << 40 | input.offset).expect("places are positive");
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let verdict = v1::Verdict {
        verdict_id: VerdictId::from_bytes(id).to_string(),
        tenant: "default".to_owned(),
        media_id: format!("m-{n}"),
        outcome: v1::Outcome::LikelyAuthentic.into(),
        probability: Some(0.1),
        created_at: Some((UNIX_EPOCH + Duration::from_millis(1_795_485_600_000 + n)).into()),
        ..Default::default()
    };
    let (topic, partition, offset) = (input.topic.to_string(), input.partition, input.offset);
    let value = verdict.encode_to_vec();
    let key = key(&verdict.tenant, &verdict.media_id);
    let mut record = NewRecord::keyed(service.config.topics.verdicts.as_str(), key, value);
    record.headers = outcome_headers(&InputPosition { topic, partition, offset }, "worker-0", "bench");
    record
}

async fn audit(place: &Place, records: usize, doubled: usize) {
    let service = place.open().await;
    service.projected().await;
    let mut client = AuditServiceClient::new(service.channel().await);

    // From here on the highest mark is the audit's.
    std::fs::write("/proc/self/clear_refs", "5").expect("our own marks can be cleared");
    let (before, began) = (mib("VmRSS:"), Instant::now());
    let mut events = client.verify(v1::VerifyRequest::default()).await.expect("it begins").into_inner();
    let mut report = None;
    while let Some(event) = events.message().await.expect("it goes on") {
        match event.event {
            Some(Event::Report(last)) => report = Some(last),
            Some(Event::Violation(violation)) => assert!(doubled > 0, "{violation:?}"),
            _ => {}
        }
    }
    let (took, peak) = (began.elapsed(), mib("VmHWM:"));
    let report = report.expect("a report");
    let (all, doubled) = (records as u64, doubled as u64);
    let found = (report.inputs_committed, report.verdicts, report.rows, report.violations);
    assert_eq!(found, (all, all + doubled, all, doubled), "{report:?}");

    let allowed = ALLOWED_MIB + records as f64 / 8.0 / (1 << 20) as f64;
    let per_second = (report.inputs + report.outcomes + report.rows) as f64 / took.as_secs_f64();
    let name = if place.bootstrap.is_some() { "audit_kafka" } else { "audit" };
    println!("resident: {before:.1} MiB before, {peak:.1} MiB at the most");
    let (grown, against) = (peak - before, format!("{allowed:.1} MiB allowed for {records} references"));
    assert!(grown <= allowed, "the audit took {grown:.1} MiB, {against}");
    println!("BENCH {name}_memory_growth {grown:.3} MiB ratio {:.2} against {against}", allowed / grown);
    println!("BENCH {name}_peak_rss {peak:.3} MiB ratio {:.2} against {before:.1} MiB before", peak / before);
    println!("BENCH {name}_read {per_second:.0} records/s ratio 1.00 against {:.1} s", took.as_secs_f64());
}

/// A line of this process' status, in MiB.
fn mib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib / 1024.0
}
