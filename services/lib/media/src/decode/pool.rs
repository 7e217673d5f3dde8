//! The decode threads: named, bounded, joined; a picture that makes a decoder panic costs that picture only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use forensics::Frame;
use ops::metrics::{self, Error, Histogram, IntCounterVec, IntGauge, Queue, Queued, Queues, Registry};
use tokio::sync::{mpsc, oneshot};

use super::config::{DecodeConfig, DecodeLimits};
use super::{DecodeError, decode};
use crate::Stopwatch;

/// Threads that decode. Dropping the pool closes the queue, lets the pictures in work finish and joins.
pub struct DecodePool {
    /// `None` once closed.
    queue: Option<mpsc::Sender<Item>>,
    waiting: Queue,
    threads: Vec<JoinHandle<()>>,
}

struct Item {
    bytes: Bytes,
    reply: oneshot::Sender<Result<Frame, DecodeError>>,
    queued: Queued,
    caller: Stopwatch,
}

#[derive(Clone)]
struct PoolMetrics {
    pictures: IntCounterVec,
    seconds: Histogram,
    in_flight: IntGauge,
}

/// Why a pool did not start.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A metric is registered twice: two pools on one registry.
    #[error("metrics of the decode pool: {0}")]
    Metrics(#[from] Error),
    /// The system gives no thread.
    #[error("decode thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl DecodePool {
    /// Starts the threads.
    pub fn start(config: &DecodeConfig, registry: &Registry) -> Result<Self, PoolError> {
        let metrics = PoolMetrics::register(registry)?;
        let waiting = Queues::register(registry, "media")?.queue("decode", config.queue_max);
        let (queue, items) = mpsc::channel(config.queue_max);
        // Guards the taking of one item; whoever holds it waits for the next, the others wait for the lock.
        let items = Arc::new(Mutex::new(items));
        let mut pool = Self { queue: Some(queue), waiting, threads: Vec::new() };
        for index in 0..config.threads {
            let (items, metrics, limits) = (Arc::clone(&items), metrics.clone(), config.limits.clone());
            let thread = std::thread::Builder::new().name(format!("decode-{index}"));
            pool.threads.push(thread.spawn(move || work(&items, &limits, &metrics))?);
        }
        Ok(pool)
    }

    /// Decodes one picture; see [`decode()`]. Waits while the queue is full. A caller that goes away while
    /// the picture waits costs nothing: it is skipped.
    pub async fn decode(&self, bytes: Bytes) -> Result<Frame, DecodeError> {
        self.decode_timed(bytes, &Stopwatch::new()).await
    }

    /// The same; the caller's stopwatch runs while the picture is decoded, not while it waits.
    pub async fn decode_timed(&self, bytes: Bytes, caller: &Stopwatch) -> Result<Frame, DecodeError> {
        let queue = self.queue.as_ref().ok_or(DecodeError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let slot = queue.reserve().await.map_err(|_| DecodeError::Closed)?;
        slot.send(Item { bytes, reply, queued: self.waiting.enter(), caller: caller.clone() });
        answer.await.unwrap_or(Err(DecodeError::Closed))
    }
}

impl Drop for DecodePool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a decode thread had panicked outside a picture");
            }
        }
    }
}

fn work(items: &Mutex<mpsc::Receiver<Item>>, limits: &DecodeLimits, metrics: &PoolMetrics) {
    loop {
        let next = items.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).blocking_recv();
        let Some(Item { bytes, reply, queued, caller }) = next else { return };
        drop(queued);
        if reply.is_closed() {
            continue;
        }
        metrics.in_flight.inc();
        let started = Instant::now();
        let running = caller.run();
        let result = guarded(|| decode(&bytes, limits));
        drop(running);
        drop(bytes);
        metrics.in_flight.dec();
        metrics.seconds.observe(started.elapsed().as_secs_f64());
        metrics.pictures.with_label_values(&[name(&result)]).inc();
        // The caller's deadline may have passed; then nobody wants the frame.
        drop(reply.send(result));
    }
}

/// A decoder that panics has met a broken picture, as far as the fleet is concerned.
fn guarded(decode: impl FnOnce() -> Result<Frame, DecodeError>) -> Result<Frame, DecodeError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(DecodeError::Broken(format!("the decoder panicked: {text}")))
    })
}

fn name(result: &Result<Frame, DecodeError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(DecodeError::TooLarge(_)) => "too_large",
        Err(DecodeError::Truncated(_)) => "truncated",
        Err(DecodeError::Broken(_)) => "broken",
        Err(DecodeError::Unsupported(_)) => "unsupported",
        Err(DecodeError::Closed) => "closed",
    }
}

impl PoolMetrics {
    fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            pictures: metrics::counters(
                registry,
                "touchstone_media_decoded_total",
                "Pictures that went through a decode thread, by how they ended.",
                &["outcome"],
            )?,
            seconds: metrics::histogram(
                registry,
                "touchstone_media_decode_duration_seconds",
                "Decoding one picture, without its wait.",
                metrics::DURATION_BUCKETS,
            )?,
            in_flight: metrics::gauge(
                registry,
                "touchstone_media_decodes_in_flight",
                "Pictures being decoded.",
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forensics::FailureClass;

    fn config(threads: usize, queue_max: usize) -> DecodeConfig {
        let limits = DecodeLimits {
            side_max: 8_192,
            pixels_max: 40_000_000,
            bytes_max: 32 << 20,
            memory_max: 256 << 20,
            scans_max: 64,
        };
        DecodeConfig { threads, queue_max, limits }
    }

    fn picture(value: u8) -> Bytes {
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 95);
        encoder.encode(&[value; 16 * 16 * 3], 16, 16, jpeg_encoder::ColorType::Rgb).unwrap();
        Bytes::from(jpeg)
    }

    #[tokio::test]
    async fn each_picture_gets_its_own_answer_also_where_others_are_broken() {
        let registry = Registry::new();
        let pool = DecodePool::start(&config(2, 3), &registry).unwrap();
        let jobs = (0..40u8).map(|index| {
            let bytes =
                if index % 4 == 3 { Bytes::from_static(b"\xff\xd8\xff broken") } else { picture(index * 6) };
            let pool = &pool;
            async move { (index, pool.decode(bytes).await) }
        });
        for (index, result) in futures::future::join_all(jobs).await {
            match result {
                Ok(frame) => assert!(frame.rgb()[0].abs_diff(index * 6) < 4, "picture {index}"),
                Err(error) => {
                    assert_eq!(index % 4, 3, "picture {index}: {error}");
                    assert_eq!(
                        error.finding(),
                        Some(forensics::FrameFinding::Unreadable(FailureClass::Truncated))
                    );
                }
            }
        }
        drop(pool);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("touchstone_media_decoded_total{outcome=\"ok\"} 30"), "{text}");
        assert!(text.contains("touchstone_media_decoded_total{outcome=\"truncated\"} 10"), "{text}");
        assert!(text.contains("touchstone_media_queue_depth{stage=\"decode\"} 0"), "{text}");
        assert!(text.contains("touchstone_media_decodes_in_flight 0"), "{text}");
    }

    #[test]
    fn a_panic_costs_one_picture() {
        let result = guarded(|| panic!("index out of bounds"));
        assert_eq!(result, Err(DecodeError::Broken("the decoder panicked: index out of bounds".to_owned())));
    }

    #[tokio::test]
    async fn two_pools_on_one_registry_are_refused() {
        let registry = Registry::new();
        let _pool = DecodePool::start(&config(1, 1), &registry).unwrap();
        assert!(matches!(DecodePool::start(&config(1, 1), &registry), Err(PoolError::Metrics(_))));
    }
}
