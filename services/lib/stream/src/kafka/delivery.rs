//! What became of records that were handed to a producer, told back by its polling thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::Message;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::Statistics;
use rdkafka::util::IntoOpaque;
use tokio::sync::oneshot;

use super::client::Ear;

/// Where a record lies, or why not.
pub(crate) type Delivered = KafkaResult<i64>;

/// Something that wants to know what became of records.
pub(crate) trait Receipts: Send + Sync {
    /// What a record is recognised by.
    type Mark: IntoOpaque;

    /// A record has its answer. Called from the polling thread.
    fn delivered(&self, mark: Self::Mark, delivered: Delivered);
}

/// The context of a producer: an ear, and receipts.
pub(crate) struct Outbox<R> {
    pub(crate) ear: Ear,
    pub(crate) receipts: R,
}

impl<R: Receipts> ClientContext for Outbox<R> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.ear.hear_log(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.hear_error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.ear.token()
    }
}

impl<R: Receipts> ProducerContext for Outbox<R> {
    type DeliveryOpaque = R::Mark;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: R::Mark) {
        let delivered = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.receipts.delivered(mark, delivered);
    }
}

/// The receipts of one transaction after the other.
#[derive(Default)]
pub(crate) struct Round {
    /// Guards the answers of the round; held to note one, or to wait for more.
    answers: Mutex<Answers>,
    more: Condvar,
}

#[derive(Default)]
struct Answers {
    round: usize,
    open: usize,
    offsets: Vec<i64>,
    /// The first record that failed, and how.
    failed: Option<(usize, KafkaError)>,
}

/// A mark is the round above, the record's index below: answers of an older round are too late for anybody.
const INDEX_BITS: u32 = usize::BITS / 2;

/// How a round ended.
#[derive(Debug)]
pub(crate) enum RoundEnd {
    /// Everything is written; the offsets in the records' order.
    Written(Vec<i64>),
    /// This record is not, and the rest may or may not be.
    Failed(usize, KafkaError),
    /// So many have no answer yet.
    Late(usize),
}

impl Round {
    /// Begins a round of so many records and gives the mark of the first; the next one's is one higher.
    pub(crate) fn open(&self, records: usize) -> usize {
        let mut answers = self.lock();
        let round = answers.round.wrapping_add(1) & (usize::MAX >> INDEX_BITS);
        *answers = Answers { round, open: records, offsets: vec![-1; records], failed: None };
        round << INDEX_BITS
    }

    /// Waits until every record has its answer, or one of them a bad one.
    pub(crate) fn wait(&self, until: Instant) -> RoundEnd {
        let mut answers = self.lock();
        loop {
            if let Some((index, error)) = answers.failed.take() {
                return RoundEnd::Failed(index, error);
            }
            if answers.open == 0 {
                return RoundEnd::Written(std::mem::take(&mut answers.offsets));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return RoundEnd::Late(answers.open);
            }
            answers = self.more.wait_timeout(answers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipts for Round {
    type Mark = usize;

    fn delivered(&self, mark: usize, delivered: Delivered) {
        let (round, index) = (mark >> INDEX_BITS, mark & (usize::MAX >> INDEX_BITS));
        let mut answers = self.lock();
        if round != answers.round || index >= answers.offsets.len() {
            return;
        }
        answers.open = answers.open.saturating_sub(1);
        match delivered {
            Ok(offset) => answers.offsets[index] = offset,
            Err(error) => drop(answers.failed.get_or_insert((index, error))),
        }
        if answers.open == 0 || answers.failed.is_some() {
            self.more.notify_all();
        }
    }
}

/// The receipts of records that were appended: each belongs to a batch, whose caller waits for all of it.
#[derive(Default)]
pub(crate) struct Batches;

/// The offsets of a batch in its records' order, or the first record that failed, and how.
type Appended = Result<Vec<i64>, (usize, KafkaError)>;

/// Records that were appended together.
pub(crate) struct Batch {
    /// Guards the answers and who waits for them; held to note one.
    state: Mutex<BatchState>,
}

struct BatchState {
    open: usize,
    offsets: Vec<i64>,
    failed: Option<(usize, KafkaError)>,
    reply: Option<oneshot::Sender<Appended>>,
}

/// A record of a batch.
pub(crate) type InBatch = Box<(std::sync::Arc<Batch>, usize)>;

impl Batch {
    /// A batch of so many records, and where its answer comes.
    pub(crate) fn new(records: usize) -> (Self, oneshot::Receiver<Appended>) {
        let (reply, answer) = oneshot::channel();
        let state =
            BatchState { open: records, offsets: vec![-1; records], failed: None, reply: Some(reply) };
        (Self { state: Mutex::new(state) }, answer)
    }

    /// A record has its answer.
    pub(crate) fn note(&self, index: usize, delivered: Delivered) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        match delivered {
            Ok(offset) => state.offsets[index] = offset,
            Err(error) => drop(state.failed.get_or_insert((index, error))),
        }
        if state.open > 0 {
            return;
        }
        let answer = match state.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(std::mem::take(&mut state.offsets)),
        };
        if let Some(reply) = state.reply.take() {
            // The caller may have gone: then nobody wants the answer.
            drop(reply.send(answer));
        }
    }
}

impl Receipts for Batches {
    type Mark = InBatch;

    fn delivered(&self, mark: InBatch, delivered: Delivered) {
        mark.0.note(mark.1, delivered);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn a_round_ends_with_its_last_answer_or_its_first_failure() {
        let round = Round::default();
        let soon = || Instant::now() + Duration::from_millis(1);
        let mark = round.open(2);
        round.delivered(mark + 1, Ok(8));
        assert!(matches!(round.wait(soon()), RoundEnd::Late(1)));
        round.delivered(mark, Ok(7));
        assert!(matches!(round.wait(soon()), RoundEnd::Written(offsets) if offsets == [7, 8]));

        let newer = round.open(1);
        round.delivered(mark, Err(KafkaError::Canceled));
        assert!(matches!(round.wait(soon()), RoundEnd::Late(1)), "an older round's answer changes nothing");
        round.delivered(newer, Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
        assert!(matches!(round.wait(soon()), RoundEnd::Failed(0, _)));
        round.open(0);
        assert!(matches!(round.wait(soon()), RoundEnd::Written(offsets) if offsets.is_empty()));
    }

    #[tokio::test]
    async fn a_batch_answers_when_all_of_it_is_known() {
        let (batch, answer) = Batch::new(2);
        batch.note(0, Err(KafkaError::Canceled));
        batch.note(1, Ok(3));
        assert_eq!(answer.await.expect("an answer"), Err((0, KafkaError::Canceled)));
    }
}
