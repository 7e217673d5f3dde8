//! What a worker tells about itself: the names that dashboards are built on, and whether they are true.

use std::collections::BTreeSet;

use prometheus::proto::MetricFamily;
use proto::v1;

use crate::harness::{PARTITIONS, Running, Stage, Tap, image, png};

/// Dashboards and alerts are built on these: a change here is a change for every operator.
const NAMES: &str = include_str!("metrics.txt");
/// Series of one worker at most.
const SERIES_MAX: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_labels_are_those_written_down() {
    let stage = Stage::new().await;
    stage.submit_pictures(20).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(20).await;
    // What was committed is counted a moment later.
    let registry = worker.ops.registry.clone();
    assert_eq!(worker.stop().await, Ok(()));
    let families = registry.gather();
    let names: BTreeSet<String> = families.iter().flat_map(described).collect();
    let mut written: BTreeSet<&str> = NAMES.lines().collect();
    // What counts troubles by their class is not there before the first one.
    let troubles: BTreeSet<&str> =
        written.iter().filter_map(|line| line.strip_suffix(" (trouble)")).collect();
    written.retain(|line| !line.ends_with(" (trouble)"));
    let is_unknown = |name: &&String| !written.contains(name.as_str()) && !troubles.contains(name.as_str());
    let unknown: Vec<_> = names.iter().filter(is_unknown).collect();
    assert!(unknown.is_empty(), "not in metrics.txt: {unknown:#?}");
    let missing: Vec<_> = written.into_iter().filter(|line| !names.contains(*line)).collect();
    assert!(missing.is_empty(), "in metrics.txt, but not told: {missing:#?}");
    let series: usize = families.iter().map(|family| family.get_metric().len()).sum();
    assert!(series < SERIES_MAX, "{series} series");
}

fn described(family: &MetricFamily) -> BTreeSet<String> {
    let labels = |metric: &prometheus::proto::Metric| {
        metric.get_label().iter().map(|label| label.name().to_owned()).collect::<Vec<_>>().join(",")
    };
    family.get_metric().iter().map(|metric| format!("{}{{{}}}", family.name(), labels(metric))).collect()
}

/// The labels' values, but for the lane, and the count.
fn line(metric: &prometheus::proto::Metric) -> String {
    let labels = metric.get_label().iter().filter(|label| label.name() != "lane");
    let values: Vec<&str> = labels.map(|label| label.value()).collect();
    format!("{} {}", values.join(" "), metric.get_counter().get_value())
}

/// The value of the gauge with this label, once the worker tells it.
fn gauge(worker: &Running, name: &str, label: &str) -> Option<f64> {
    let families = worker.ops.registry.gather();
    let family = families.iter().find(|family| family.name() == name)?;
    let is_it =
        |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
    Some(family.get_metric().iter().find(is_it)?.get_gauge().get_value())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_are_counted_by_outcome_and_reason() {
    let stage = Stage::new().await;
    stage.store.put("white.png", png(256, 256, [255, 255, 255]));
    stage.store.put("nobody.png", png(320, 256, [0, 0, 0]));
    let (cropped, detect) = (v1::Faces::Cropped, v1::Faces::Detect);
    let gone = image("gone", "gone.png", cropped);
    let nobody = image("nobody", "nobody.png", detect);
    stage.submit([image("white", "white.png", cropped), nobody, gone, Vec::new()]).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(4).await;
    let registry = worker.ops.registry.clone();
    assert_eq!(worker.stop().await, Ok(()));
    let families = registry.gather();
    let media = families.iter().find(|family| family.name() == "touchstone_worker_media_total").unwrap();
    let counted: BTreeSet<String> = media.get_metric().iter().map(line).collect();
    let expected = [
        "FAILED INVALID_REFERENCE 1",
        "FAILED OBJECT_NOT_FOUND 1",
        "LIKELY_FORGED none 1",
        "NOT_APPLICABLE NO_FACE 1",
    ];
    assert_eq!(counted, expected.map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_record_ages_until_it_is_committed() {
    const OLDEST: &str = "touchstone_worker_oldest_unprocessed_seconds";
    let stage = Stage::new().await;
    stage.store.set(Tap::Held);
    let before = std::time::Instant::now();
    stage.submit_pictures(2).await;
    let after = std::time::Instant::now();
    let worker = stage.worker("worker-0");
    stage.until(async || gauge(&worker, OLDEST, "standard") > Some(0.5), "half a second to pass").await;
    // Younger ones change nothing.
    stage.submit_more_pictures(2..4).await;
    stage.until(async || gauge(&worker, OLDEST, "standard") > Some(1.0), "another to pass").await;
    // Records are stamped to the millisecond.
    let least = after.elapsed().as_secs_f64() - 0.002;
    let told = gauge(&worker, OLDEST, "standard").expect("it is told");
    let most = before.elapsed().as_secs_f64() + 0.002;
    assert!((least..=most).contains(&told), "{told} is not between {least} and {most}");
    assert_eq!(gauge(&worker, OLDEST, "live"), Some(0.0));
    stage.store.set(Tap::Open);
    stage.until_outcomes(4).await;
    stage.until(async || gauge(&worker, OLDEST, "standard") == Some(0.0), "nothing to be left").await;
    assert_eq!(worker.stop().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_is_what_is_not_committed_and_zero_in_the_end() {
    const LAG: &str = "touchstone_stream_kafka_lag_records";
    let stage = Stage::new().await;
    stage.store.set(Tap::Held);
    stage.submit_pictures(40).await;
    let worker = stage.worker("worker-0");
    let registry = worker.ops.registry.clone();
    let lags = || -> Vec<f64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == LAG);
        family
            .map_or(&[][..], |family| family.get_metric())
            .iter()
            .map(|m| m.get_gauge().get_value())
            .collect()
    };
    stage.until(async || lags().iter().sum::<f64>() == 40.0, "all that was submitted to lag").await;
    assert_eq!(lags().len(), 3 * PARTITIONS as usize, "one series for each partition of each lane");
    stage.store.set(Tap::Open);
    stage.until_outcomes(40).await;
    stage.until(async || lags().iter().all(|lag| *lag == 0.0), "nothing to lag").await;
    assert_eq!(worker.stop().await, Ok(()));
    assert!(lags().is_empty(), "it tells nothing of partitions that it has given back");
}
