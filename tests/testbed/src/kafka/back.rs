//! Whether coordinators are back, as librdkafka finds out by itself: the yardstick of clients that build on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

/// So long one question is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn wait(bootstrap: &str, group: &str, deadline: Duration) -> Result<()> {
    let until = Instant::now() + deadline;
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "200");
    let consumer: BaseConsumer = settings.clone().set("group.id", group).create()?;
    // Of any partition: its group's coordinator answers.
    let mut asked = TopicPartitionList::new();
    asked.add_partition("back", 0);
    again(until, || consumer.committed_offsets(asked.clone(), PATIENCE).map(drop))
        .context("offsets of the group")?;
    let producer: BaseProducer = settings.set("transactional.id", "back").create()?;
    again(until, || producer.init_transactions(PATIENCE)).context("a transaction")
}

fn again(until: Instant, mut ask: impl FnMut() -> KafkaResult<()>) -> Result<()> {
    loop {
        match ask() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            // Most of them wait by themselves.
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}
