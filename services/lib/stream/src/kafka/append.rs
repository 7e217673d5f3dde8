//! Writing outside transactions: one producer for all callers of a log.

use std::sync::Arc;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{Producer, ThreadedProducer};
use tokio::sync::Semaphore;

use super::client::{Clients, Troubles};
use super::delivery::{Batch, Batches, Outbox};
use super::error::{Doing, told, told_code, unreachable};
use super::records::Row;
use crate::error::StreamError;
use crate::record::Position;

/// So many bytes wait for acknowledgement at most; who wants to write more waits. Kibibytes, as permits.
const UNDER_WAY_KBYTES: u32 = 32 * 1024;

/// The producer of [`crate::Log::append`].
pub(crate) struct Appender {
    producer: ThreadedProducer<Outbox<Batches>>,
    troubles: Arc<Troubles>,
    under_way: Semaphore,
}

impl Appender {
    pub(crate) fn new(clients: &Clients) -> Result<Self, StreamError> {
        let troubles = Arc::new(Troubles::default());
        let outbox = Outbox { ear: clients.ear("appender", Arc::clone(&troubles)), receipts: Batches };
        let producer = ThreadedProducer::from_config_and_context(&clients.appender(), outbox)
            .map_err(|error| told(Doing::Asking("a producer"), &error))?;
        clients.admit(producer.client())?;
        Ok(Self { producer, troubles, under_way: Semaphore::new(UNDER_WAY_KBYTES as usize) })
    }

    /// Writes, and waits until all of it is acknowledged.
    pub(crate) async fn append(
        &self,
        clients: &Clients,
        rows: Vec<Row>,
    ) -> Result<Vec<Position>, StreamError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize = rows.iter().map(|row| row.record.size_bytes()).sum();
        let kbytes = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(UNDER_WAY_KBYTES);
        let _room = self
            .under_way
            .acquire_many(kbytes)
            .await
            .map_err(|_| StreamError::Closed { what: "the log".to_owned() })?;
        let (batch, answer) = Batch::new(rows.len());
        let batch = Arc::new(batch);
        for (index, row) in rows.iter().enumerate() {
            if let Err((error, _)) = self.producer.send(row.to_send(Box::new((Arc::clone(&batch), index)))) {
                batch.note(index, Err(error));
            }
        }
        match answer.await {
            Ok(Ok(offsets)) => Ok(rows.iter().zip(offsets).map(|(row, offset)| row.at(offset)).collect()),
            Ok(Err((index, error))) => Err(self.told(clients, rows[index].topic(), &error)),
            Err(_) => Err(StreamError::Closed { what: "the log".to_owned() }),
        }
    }

    fn told(&self, clients: &Clients, topic: &str, error: &KafkaError) -> StreamError {
        match error {
            // It only ran out of time: the connection knows why.
            KafkaError::MessageProduction(Code::MessageTimedOut) if self.troubles.last().is_some() => {
                unreachable(clients.config(), self.troubles.last().as_ref())
            }
            KafkaError::MessageProduction(Code::PurgeQueue | Code::PurgeInflight) => {
                StreamError::Closed { what: "the log".to_owned() }
            }
            KafkaError::MessageProduction(Code::UnknownPartition) => {
                told_code(Doing::Writing(topic), Code::UnknownTopic, "")
            }
            error => told(Doing::Writing(topic), error),
        }
    }
}
