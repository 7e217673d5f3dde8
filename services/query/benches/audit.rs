//! The auditor at size: the memory it takes beyond what the service holds anyway, and how fast it reads.
//!
//! `cargo bench -p query --profile dev --bench audit -- [--records N] [--folder DIR]`, 200,000 references by
//! default; a folder that is filled already is audited as it is, and stays. One process
//! fills log and store, each reference with its verdict and its row; another one opens them and audits, asked over
//! gRPC, so that what the one has taken from the system is not counted as the other's.
#![allow(clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use forensics::{InputPosition, VerdictId};
use ops::Ops;
use prost::Message;
use proto::topics::{key, outcome_headers};
use proto::v1;
use proto::v1::audit_service_client::AuditServiceClient;
use proto::v1::verify_response::Event;
use query::{Config, Query, RawConfig};
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{
    Commit, CommitOffset, FetchBounds, Log, MemberEvent, Membership, NewRecord, Position, StartAt,
    TopicPartition, TopicPolicy, TopicSpec, Transaction,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;

const PARTITIONS: i32 = 4;

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
    let records = value("--records").map_or(200_000, |n| n.parse().expect("--records takes a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = value("--fill") {
        return runtime.block_on(fill(Path::new(&folder), records));
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = value("--folder").map_or(temporary.path().to_owned(), PathBuf::from);
    if !folder.join("store.db").exists() {
        let began = Instant::now();
        let mut filler = Command::new(std::env::current_exe().expect("a bench has a path"));
        filler.arg("--fill").arg(&folder).args(["--records", &records.to_string()]);
        assert!(filler.status().expect("it starts").success(), "log and store could not be filled");
        println!("{records} references, verdicts and rows in {:.0} s", began.elapsed().as_secs_f64());
    }
    runtime.block_on(audit(&folder, records));
}

/// The log and query over it.
struct Service {
    log: LocalLog,
    query: Query,
    config: Config,
    ops: Ops,
}

impl Service {
    async fn open(folder: &Path) -> Self {
        let ops = Ops::new("bench", Duration::from_secs(5)).expect("a fresh registry");
        let mut local = LocalConfig::new(folder.join("log"));
        local.synchronous = Synchronous::Normal;
        let metrics = stream::Metrics::register(&ops.registry).expect("registered once");
        let log = LocalLog::open(local, metrics).expect("the folder is ours");
        let config = config(folder.join("store.db"));
        let spec = |name: &str| TopicSpec {
            name: name.into(),
            partitions: PARTITIONS,
            policy: TopicPolicy::delete_after(Duration::from_secs(86_400)),
        };
        log.create_topics(&config.topics.all().map(spec)).await.expect("topics can be made");
        let query = Query::open(&config, Arc::new(log.clone()), &ops).await.expect("the store is ours");
        Self { log, query, config, ops }
    }

    fn partitions(&self, topic: &str) -> Vec<TopicPartition> {
        (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect()
    }

    /// Waits until the store has every verdict.
    async fn projected(&self) {
        let mut ends = BTreeMap::new();
        for partition in self.partitions(&self.config.topics.verdicts) {
            ends.insert(partition.partition, self.log.watermarks(&partition).await.expect("an answer").high);
        }
        let mut projected = self.query.projected();
        let all = projected.wait_for(|seen| ends.iter().all(|(at, end)| seen.get(at) >= Some(end)));
        drop(all.await.expect("the projector lives"));
    }
}

fn config(file: PathBuf) -> Config {
    let file = ("B__QUERY__STORE__FILE".to_owned(), file.display().to_string());
    let defaults = format!("{}{}", query::DEFAULTS, proto::server::DEFAULTS);
    let raw: RawConfig = ops::config::load(&defaults, None, "B", std::iter::once(file)).expect("defaults");
    raw.check().expect("the defaults are valid")
}

async fn fill(folder: &Path, records: usize) {
    let service = Service::open(folder).await;
    let topic: Arc<str> = service.config.topics.media_standard.as_str().into();
    for first in (0..records).step_by(BATCH) {
        let references = (first..records.min(first + BATCH)).map(|n| {
            let value = reference(n).encode_to_vec();
            NewRecord::keyed(Arc::clone(&topic), key("default", &format!("m-{n}")), value)
        });
        service.log.append(references.collect()).await.expect("room on the disk");
    }
    work(&service, topic).await;
    service.projected().await;
}

/// As a worker: takes everything in and commits it with its verdicts.
async fn work(service: &Service, topic: Arc<str>) {
    let inputs = service.partitions(&topic);
    let membership = Membership {
        group: Arc::clone(&service.config.worker_group),
        slot: "worker-0".into(),
        topics: vec![topic],
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
fn outcome(service: &Service, input: &Position) -> NewRecord {
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

async fn audit(folder: &Path, records: usize) {
    let service = Service::open(folder).await;
    service.projected().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut services = proto::server::Services::new();
    service.query.add_to(&mut services);
    let (grpc, stop) = (service.config.grpc.clone(), service.ops.shutdown.clone());
    service.ops.tasks.spawn("grpc", async move {
        let served = proto::server::serve(listener, services, &grpc, async move { stop.requested().await });
        served.await.map_err(|error| ops::ExitReason::Bug.because(error))
    });
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect().await;
    let mut client = AuditServiceClient::new(channel.expect("it answers"));

    // From here on the highest mark is the audit's.
    std::fs::write("/proc/self/clear_refs", "5").expect("our own marks can be cleared");
    let (before, began) = (mib("VmRSS:"), Instant::now());
    let mut events = client.verify(v1::VerifyRequest::default()).await.expect("it begins").into_inner();
    let mut report = None;
    while let Some(event) = events.message().await.expect("it goes on") {
        match event.event {
            Some(Event::Report(last)) => report = Some(last),
            Some(Event::Violation(violation)) => panic!("{violation:?}"),
            _ => {}
        }
    }
    let (took, peak) = (began.elapsed(), mib("VmHWM:"));
    let report = report.expect("a report");
    let all = records as u64;
    assert_eq!((report.inputs_committed, report.verdicts, report.rows), (all, all, all), "{report:?}");

    let allowed = ALLOWED_MIB + records as f64 / 8.0 / (1 << 20) as f64;
    let per_second = (report.inputs + report.outcomes + report.rows) as f64 / took.as_secs_f64();
    println!("resident: {before:.1} MiB before, {peak:.1} MiB at the most");
    let (grown, against) = (peak - before, format!("{allowed:.1} MiB allowed for {records} references"));
    println!("BENCH audit_memory_growth {grown:.3} MiB ratio {:.2} against {against}", allowed / grown);
    println!("BENCH audit_peak_rss {peak:.3} MiB ratio {:.2} against {before:.1} MiB before", peak / before);
    println!("BENCH audit_read {per_second:.0} records/s ratio 1.00 against {:.1} s", took.as_secs_f64());
}

/// A line of this process' status, in MiB.
fn mib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib / 1024.0
}
