//! The demo: a standalone in a temporary folder, media through the real front door, verdicts as they come.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use forensics::{ObjectKey, Verdict};
use ops::{Exit, ExitReason, Ops};
use proto::v1;
use proto::v1::audit_service_client::AuditServiceClient;
use proto::v1::media_service_client::MediaServiceClient;
use proto::v1::verdict_service_client::VerdictServiceClient;
use proto::v1::verify_response;
use proto::v1::watch_verdicts_response::Event;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::config::{Config, Overrides};
use crate::samples::{self, Sample};
use crate::start::Standalone;
use crate::{ready, table};

/// From one verdict to the next: two cores judge a face in about a second. Chosen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the demo judges.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The folder with the published samples.
    pub samples: PathBuf,
    /// A folder of the user's own instead.
    pub media: Option<PathBuf>,
}

/// Runs the demo as a process: from start to exit code.
pub fn demo(options: DemoOptions, overrides: Overrides, environment: Vec<(String, String)>) -> ExitCode {
    let folder = match tempfile::Builder::new().prefix("touchstone-demo-").tempdir() {
        Ok(folder) => folder,
        Err(error) => return ops::refuse(ExitReason::Unavailable.because(error)),
    };
    // Verdicts are what is to be seen; the log would drown them.
    let level = Some("error".to_owned());
    let overrides = Overrides { data: Some(folder.path().to_owned()), level, ..overrides };
    let config = match Config::load(overrides, environment.into_iter()) {
        Ok(config) => config,
        Err(error) => return ops::refuse(error),
    };
    let settings = config.ops.clone();
    ops::run("demo", &settings, |ops| Box::pin(show(options, config, ops)))
}

async fn show(options: DemoOptions, config: Config, ops: Ops) -> Result<(), Exit> {
    let started = Instant::now();
    let samples = match &options.media {
        Some(folder) => samples::own(folder)?,
        None => samples::published(&options.samples)?,
    };
    say("Starting scheduler, query and a worker over an embedded log and an embedded S3 store ...")?;
    let model = ready::model(&config);
    let standalone = Standalone::start(config, ops).await?;
    standalone.ready().await?;
    say(&format!(
        "Ready after {:.1} s at {}.",
        started.elapsed().as_secs_f64(),
        standalone.addresses().grpc
    ))?;
    say(&format!("\nThe model is {model}.\n"))?;
    let shown = judge_all(&standalone, &samples, started).await;
    // Also after a failure: what was started ends in order.
    let stopped = standalone.stop().await;
    shown.and(stopped)?;
    say("\nGo on with your own:\n\
         \n  make demo MEDIA=folder                        the same with your pictures\
         \n  cargo run -p standalone -- --data ./data      for keeps; a restart goes on where it stopped\
         \n  cargo run -p cli -- --data ./data submit folder/\
         \n  cargo run -p cli -- --data ./data verify      proves that nothing is lost and nothing double\n\
         \nForge a photo of your own with `touchstone-train forge`, or train a model of your own: README.md says how.")
}

/// Every verdict as it comes, then the table, then what the auditor says.
async fn judge_all(standalone: &Standalone, samples: &[Sample], started: Instant) -> Result<(), Exit> {
    let channel = connect(standalone).await?;
    let verdicts = judge(standalone, samples, channel.clone(), started).await?;
    summary(samples, &verdicts)?;
    audit(channel).await
}

/// Uploads and submits every sample, and prints each verdict as it comes.
async fn judge(
    standalone: &Standalone,
    samples: &[Sample],
    channel: Channel,
    started: Instant,
) -> Result<BTreeMap<String, Verdict>, Exit> {
    let mut verdicts = VerdictServiceClient::new(channel.clone());
    // Before the first submission, so that none is missed.
    let watch = verdicts.watch_verdicts(v1::WatchVerdictsRequest::default()).await.map_err(answered)?;
    let mut events = watch.into_inner();
    submit(standalone, samples, MediaServiceClient::new(channel)).await?;
    let mut found = BTreeMap::new();
    let mut deadline = Instant::now() + PATIENCE;
    while found.len() < samples.len() {
        let event = tokio::time::timeout_at(deadline, events.message()).await;
        let waited = || ExitReason::Temporary.because("no verdict for too long; the log above says why");
        let event = event.map_err(|_| waited())?.map_err(answered)?.ok_or_else(waited)?;
        let Some(Event::Verdict(wire)) = event.event else { continue };
        let verdict = Verdict::try_from(wire).map_err(|error| ExitReason::Bug.because(error))?;
        say(&format!(
            "{:5.1} s  {:<28}{}",
            started.elapsed().as_secs_f64(),
            verdict.media_id.as_str(),
            verdict.outcome
        ))?;
        found.insert(verdict.media_id.as_str().to_owned(), verdict);
        deadline = Instant::now() + PATIENCE;
    }
    Ok(found)
}

async fn submit(
    standalone: &Standalone,
    samples: &[Sample],
    mut media: MediaServiceClient<Channel>,
) -> Result<(), Exit> {
    let (store, bucket) = standalone.store_client().await?;
    for sample in samples {
        let name = &sample.name;
        let unusable = |error| ExitReason::Config.because(format_args!("{name}: {error}"));
        let key = ObjectKey::parse(&format!("demo/{name}")).map_err(unusable)?;
        let upload = store.put(&bucket, &key, sample.bytes().await?, "application/octet-stream").await;
        upload.map_err(|error| ExitReason::Unavailable.because(error.detail()))?;
        let object = Some(v1::ObjectRef { key: key.to_string(), ..Default::default() });
        let image = v1::ImageSource { bucket: bucket.to_string(), object };
        let reference = v1::MediaReference {
            media_id: name.clone(),
            source: Some(v1::media_reference::Source::Image(image)),
            lane: v1::Lane::Live.into(),
            ..Default::default()
        };
        let request = v1::SubmitMediaRequest { media: Some(reference) };
        media.submit_media(request).await.map_err(answered)?;
    }
    Ok(())
}

/// Asks the auditor whether every picture has exactly one verdict, on the topic and in the store.
async fn audit(channel: Channel) -> Result<(), Exit> {
    let mut audits = AuditServiceClient::new(channel);
    let mut events = audits.verify(v1::VerifyRequest::default()).await.map_err(answered)?.into_inner();
    while let Some(event) = events.message().await.map_err(answered)? {
        let Some(verify_response::Event::Report(report)) = event.event else { continue };
        if report.violations > 0 {
            let why = format!("the auditor found {} violations: this is a bug", report.violations);
            return Err(ExitReason::Bug.because(why));
        }
        return say(&format!(
            "\nAudited: {} references, {} verdicts; nothing is lost, nothing is double.",
            report.inputs, report.verdicts
        ));
    }
    Err(ExitReason::Bug.because("the audit ended without a report"))
}

async fn connect(standalone: &Standalone) -> Result<Channel, Exit> {
    let unreachable = |error| ExitReason::Unavailable.because(format_args!("gRPC: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{}", standalone.addresses().grpc));
    endpoint.map_err(unreachable)?.connect().await.map_err(unreachable)
}

fn answered(status: tonic::Status) -> Exit {
    ExitReason::Unavailable.because(format_args!("{:?}: {}", status.code(), status.message()))
}

/// The table at the end, in the order of submission, and how to read it.
fn summary(samples: &[Sample], verdicts: &BTreeMap<String, Verdict>) -> Result<(), Exit> {
    let row = |verdict: &Verdict| {
        vec![
            verdict.media_id.as_str().to_owned(),
            verdict.outcome.as_str().to_owned(),
            probability(verdict),
            verdict.outcome.reason().unwrap_or_default().to_owned(),
            format!("{:.0} ms", verdict.timings.total.as_secs_f64() * 1e3),
            verdict.detail.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = samples.iter().filter_map(|sample| verdicts.get(&sample.name)).map(row).collect();
    say("")?;
    let header = ["MEDIA", "OUTCOME", "P(FORGED) [95 %]", "REASON", "TOOK", "DETAIL"];
    table::table(&header, &rows).iter().try_for_each(|line| say(line))?;
    say("\nINCONCLUSIVE means that it does not know: P(forged) lies between the model's two thresholds\n\
         (BETWEEN_THRESHOLDS), or the model was never calibrated (MODEL_NOT_CALIBRATED). A person has to look.")
}

/// With its interval, where the model is calibrated.
fn probability(verdict: &Verdict) -> String {
    let Some(probability) = verdict.probability else { return "-".to_owned() };
    let interval = verdict.interval.map(|(low, high)| format!(" [{:.3}, {:.3}]", low.get(), high.get()));
    format!("{:.3}{}", probability.get(), interval.unwrap_or_default())
}

/// A line on standard output.
fn say(line: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|error| ExitReason::Unavailable.because(format_args!("standard output: {error}")))
}
