//! Request ids: the same id with the same request gets the same answer.
//!
//! In memory, for a while: a front door beside this one does not know them, and neither does this one after a long
//! time. That is enough, because correctness rests on the verdict id, which is the same for a repeated reference.

mod rebuild;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forensics::{MediaReference, Tenant};
use ops::metrics::IntGauge;
use prost::Message;
use proto::v1;
use sha2::{Digest, Sha256};
use stream::Position;
use tokio::sync::watch;

pub(crate) use rebuild::rebuild;

/// The window of request ids. Clones share it.
#[derive(Clone)]
pub(crate) struct Requests {
    /// Guards the map and its order; held for moments, never across an await.
    state: Arc<Mutex<State>>,
    keep_for: Duration,
    ids_max: usize,
    size: IntGauge,
}

/// A tenant's request id, hashed: a million of them are 100 MB with their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestName([u8; 16]);

/// What was asked for, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 16]);

#[derive(Default)]
struct State {
    entries: HashMap<RequestName, Entry>,
    /// Answered ones, oldest first.
    order: VecDeque<(Instant, RequestName)>,
}

struct Entry {
    fingerprint: Fingerprint,
    answer: Answer,
}

enum Answer {
    /// Somebody is at it.
    Awaited(watch::Receiver<Option<Position>>),
    Given(Position),
}

/// What a request id stands for at this moment.
pub(crate) enum Claim {
    /// Nobody had it: append, then [`Ticket::answer`].
    New(Ticket),
    /// The same request was answered.
    Same(Position),
    /// The same request is under way: wait for its answer. When it fails the sender is dropped: claim again.
    UnderWay(watch::Receiver<Option<Position>>),
    /// It came with another request.
    Other,
}

impl RequestName {
    pub(crate) fn new(tenant: &Tenant, request_id: &str) -> Self {
        // `|` cannot occur in a tenant.
        Self(short_hash(format!("{tenant}|{request_id}").as_bytes()))
    }
}

impl Fingerprint {
    /// Of all that was asked for; when it was submitted is not part of that.
    pub(crate) fn of(reference: &MediaReference) -> Self {
        let mut wire = v1::MediaReference::from(reference);
        wire.submitted_at = None;
        // A map has no order on the wire; the vocabulary's has.
        wire.labels.clear();
        let mut bytes = wire.encode_to_vec();
        for (key, value) in &reference.labels {
            for text in [key, value] {
                bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        Self(short_hash(&bytes))
    }
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    let full: [u8; 32] = Sha256::digest(bytes).into();
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

impl Requests {
    pub(crate) fn new(keep_for: Duration, ids_max: usize, size: IntGauge) -> Self {
        Self { state: Arc::default(), keep_for, ids_max, size }
    }

    /// Takes the id for this request, or says what it stands for.
    pub(crate) fn claim(&self, name: RequestName, fingerprint: Fingerprint, now: Instant) -> Claim {
        let mut state = self.lock();
        self.forget(&mut state, now);
        if let Some(entry) = state.entries.get(&name) {
            return match &entry.answer {
                _ if entry.fingerprint != fingerprint => Claim::Other,
                Answer::Given(position) => Claim::Same(position.clone()),
                Answer::Awaited(answer) => Claim::UnderWay(answer.clone()),
            };
        }
        let (sender, answer) = watch::channel(None);
        state.entries.insert(name, Entry { fingerprint, answer: Answer::Awaited(answer) });
        Claim::New(Ticket { requests: self.clone(), name, sender, answered: false })
    }

    /// Remembers an answer that was given at `at`, oldest first.
    fn remember(&self, name: RequestName, fingerprint: Fingerprint, position: Position, at: Instant) {
        let mut state = self.lock();
        let entry = Entry { fingerprint, answer: Answer::Given(position) };
        if state.entries.insert(name, entry).is_none() {
            state.order.push_back((at, name));
        }
        self.forget(&mut state, at);
    }

    fn forget(&self, state: &mut State, now: Instant) {
        while let Some((at, name)) = state.order.front().copied() {
            let old = now.saturating_duration_since(at) > self.keep_for;
            if !old && state.order.len() <= self.ids_max {
                break;
            }
            state.order.pop_front();
            state.entries.remove(&name);
        }
        self.size.set(i64::try_from(state.order.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to answer a request id. Dropped without an answer it frees the id for whoever waits.
pub(crate) struct Ticket {
    requests: Requests,
    name: RequestName,
    sender: watch::Sender<Option<Position>>,
    answered: bool,
}

impl Ticket {
    /// The log has it.
    pub(crate) fn answer(mut self, position: Position, now: Instant) {
        self.answered = true;
        let mut state = self.requests.lock();
        if let Some(entry) = state.entries.get_mut(&self.name) {
            entry.answer = Answer::Given(position.clone());
            state.order.push_back((now, self.name));
        }
        self.requests.forget(&mut state, now);
        drop(state);
        self.sender.send_replace(Some(position));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.requests.lock().entries.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(ids_max: usize) -> Requests {
        Requests::new(Duration::from_secs(600), ids_max, IntGauge::new("ids", "ids").unwrap())
    }

    fn name(id: &str) -> RequestName {
        RequestName::new(&Tenant::default_tenant(), id)
    }

    fn answer(requests: &Requests, id: &str, offset: i64, now: Instant) {
        let Claim::New(ticket) = requests.claim(name(id), Fingerprint([1; 16]), now) else { panic!("new") };
        ticket.answer(Position::new("t", 0, offset), now);
    }

    #[test]
    fn the_same_request_gets_the_same_answer_until_it_is_forgotten() {
        let (requests, now) = (requests(2), Instant::now());
        answer(&requests, "a", 1, now);
        let claim = |id: &str, request: u8, now| requests.claim(name(id), Fingerprint([request; 16]), now);
        assert!(matches!(claim("a", 1, now), Claim::Same(position) if position.offset == 1));
        assert!(matches!(claim("a", 2, now), Claim::Other));
        answer(&requests, "b", 2, now + Duration::from_secs(300));
        assert!(matches!(claim("a", 2, now + Duration::from_secs(601)), Claim::New(_)), "by age");
        assert!(matches!(claim("b", 1, now + Duration::from_secs(601)), Claim::Same(_)));
        answer(&requests, "c", 3, now);
        answer(&requests, "d", 4, now);
        assert!(matches!(claim("b", 1, now), Claim::New(_)), "by number");
        assert_eq!(requests.size.get(), 2);
    }

    #[tokio::test]
    async fn a_second_caller_waits_and_takes_over_where_the_first_failed() {
        let (requests, now) = (requests(9), Instant::now());
        let claim = || requests.claim(name("a"), Fingerprint([1; 16]), now);
        let Claim::New(first) = claim() else { panic!("new") };
        let Claim::UnderWay(mut waiting) = claim() else { panic!("under way") };
        drop(first);
        assert!(waiting.wait_for(Option::is_some).await.is_err(), "the first failed");
        let Claim::New(second) = claim() else { panic!("free again") };
        let Claim::UnderWay(mut waiting) = claim() else { panic!("under way") };
        second.answer(Position::new("t", 0, 7), now);
        assert_eq!(waiting.wait_for(Option::is_some).await.unwrap().as_ref().unwrap().offset, 7);
    }

    #[test]
    fn the_order_of_labels_is_no_difference_and_their_values_are() {
        let wire = |labels: [(&str, &str); 2]| v1::MediaReference {
            media_id: "m".to_owned(),
            source: Some(v1::media_reference::Source::Image(v1::ImageSource {
                bucket: "media".to_owned(),
                object: Some(v1::ObjectRef { key: "a".to_owned(), ..Default::default() }),
            })),
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Default::default()
        };
        let of = |wire: v1::MediaReference| Fingerprint::of(&wire.try_into().unwrap());
        let one = wire([("a", "1"), ("b", "2")]);
        let later = v1::MediaReference { submitted_at: Some(Default::default()), ..one.clone() };
        assert_eq!(of(one.clone()), of(later));
        assert_eq!(of(one.clone()), of(wire([("b", "2"), ("a", "1")])));
        assert_ne!(of(one), of(wire([("a", "2"), ("b", "1")])));
    }
}
