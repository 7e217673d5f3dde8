//! From a caller's reference to a record: checked, placed, acknowledged once the log has it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use forensics::{BucketAllowList, InvalidReference, Lane, MediaReference, Tenant};
use ops::Tasks;
use prost::Message;
use proto::topics::{self, Topics, headers};
use proto::v1;
use stream::{Log, LogHealth, NewRecord, Position};
use tokio::sync::{oneshot, watch};

use crate::error::SubmitError;
use crate::metrics::Metrics;
use crate::requests::{Claim, Fingerprint, RequestName, Requests, Ticket};

/// Takes references. Clones share everything.
#[derive(Clone)]
pub(crate) struct FrontDoor {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) health: watch::Receiver<LogHealth>,
    pub(crate) topics: Topics,
    pub(crate) buckets: Arc<BucketAllowList>,
    pub(crate) requests: Requests,
    pub(crate) record_bytes_max: usize,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
}

type Answer = Result<Position, SubmitError>;

impl FrontDoor {
    /// Submits media of one tenant; an answer for each, in order. All that can be are appended at once.
    pub(crate) async fn submit(&self, tenant: &Tenant, media: Vec<v1::MediaReference>) -> Vec<Answer> {
        self.metrics.batch.observe(media.len() as f64);
        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize_with(media.len(), || None);
        let mut open = Vec::new();
        for (index, wire) in media.into_iter().enumerate() {
            match self.check(tenant, wire) {
                Ok(checked) => open.push((index, checked)),
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        // A second round only where somebody else's append of the same request failed.
        while !open.is_empty() {
            open = self.round(open, &mut answers).await;
        }
        let answers: Vec<Answer> =
            answers.into_iter().map(|a| a.expect("every index was answered")).collect();
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.metrics.not_appended.with_label_values(&[refused.reason()]).inc();
        }
        answers
    }

    /// Claims, appends once, then waits for what others append; gives back what has to be claimed again.
    async fn round(
        &self,
        open: Vec<(usize, Checked)>,
        answers: &mut [Option<Answer>],
    ) -> Vec<(usize, Checked)> {
        let (mut append, mut waiting) = (Vec::new(), Vec::new());
        for (index, checked) in open {
            match self.claim(&checked) {
                Claimed::New(ticket) => append.push((index, checked, ticket)),
                Claimed::UnderWay(answer) => waiting.push((index, checked, answer)),
                Claimed::Answered(answer) => answers[index] = Some(answer),
            }
        }
        if !append.is_empty() {
            let indexes: Vec<usize> = append.iter().map(|(index, ..)| *index).collect();
            let appended =
                self.append(append.into_iter().map(|(_, checked, ticket)| (checked, ticket))).await;
            for (index, answer) in indexes.into_iter().zip(appended) {
                answers[index] = Some(answer);
            }
        }
        let mut again = Vec::new();
        for (index, checked, mut answer) in waiting {
            let position = answer.wait_for(Option::is_some).await.ok().and_then(|position| position.clone());
            match position {
                Some(position) => {
                    self.metrics.not_appended.with_label_values(&["REPEATED"]).inc();
                    answers[index] = Some(Ok(position));
                }
                None => again.push((index, checked)),
            }
        }
        again
    }

    fn check(&self, tenant: &Tenant, mut wire: v1::MediaReference) -> Result<Checked, SubmitError> {
        if !wire.tenant.is_empty() && wire.tenant != tenant.as_str() {
            let named = wire.tenant.chars().filter(|c| !c.is_control()).take(63).collect();
            return Err(SubmitError::ForeignTenant { named, caller: tenant.to_string() });
        }
        wire.tenant = tenant.to_string();
        let mut reference = MediaReference::try_from(wire)?;
        if !self.buckets.permits(tenant, &reference.source) {
            return Err(SubmitError::BucketNotAllowed { bucket: reference.source.bucket().clone() });
        }
        reference.submitted_at = Some(SystemTime::now());
        let topic = self.topics.media(reference.lane);
        let key = topics::key(tenant.as_str(), reference.media_id.as_str());
        let value = v1::MediaReference::from(&reference).encode_to_vec();
        let record = NewRecord::keyed(topic, key, value).with_header(headers::CONTENT_TYPE, topics::PROTOBUF);
        let (size, max) = (record.size_bytes(), self.record_bytes_max);
        if size > max {
            let why = format!("takes {size} bytes, the most is {max}; use a prefix");
            return Err(InvalidReference::new("media", why).into());
        }
        Ok(Checked { reference, record })
    }

    fn claim(&self, checked: &Checked) -> Claimed {
        let ticket = match &checked.reference.request_id {
            None => None,
            Some(request_id) => {
                let name = RequestName::new(&checked.reference.tenant, request_id);
                match self.requests.claim(name, Fingerprint::of(&checked.reference), Instant::now()) {
                    Claim::New(ticket) => Some(ticket),
                    Claim::UnderWay(answer) => return Claimed::UnderWay(answer),
                    Claim::Same(position) => {
                        self.metrics.not_appended.with_label_values(&["REPEATED"]).inc();
                        return Claimed::Answered(Ok(position));
                    }
                    Claim::Other => {
                        let request_id = request_id.clone();
                        return Claimed::Answered(Err(SubmitError::OtherRequest { request_id }));
                    }
                }
            }
        };
        // Known before anybody waits for it: the caller hears it at once.
        if let LogHealth::NotReady { reason } = &*self.health.borrow() {
            return Claimed::Answered(Err(SubmitError::Unavailable { why: reason.to_string() }));
        }
        Claimed::New(ticket)
    }

    /// One append for all of them. It goes on when the caller leaves, so that its request ids get their answer.
    async fn append(&self, media: impl Iterator<Item = (Checked, Option<Ticket>)>) -> Vec<Answer> {
        let (mut records, mut rest) = (Vec::new(), Vec::new());
        for (checked, ticket) in media {
            records.push(checked.record);
            rest.push((checked.reference.lane, ticket));
        }
        let count = rest.len();
        let (sender, answers) = oneshot::channel();
        let door = self.clone();
        self.tasks.spawn_finite("append", async move {
            let answers = door.append_now(records, rest).await;
            let _left = sender.send(answers).is_err();
        });
        let lost = || SubmitError::Unavailable { why: "the append was given up".to_owned() };
        answers.await.unwrap_or_else(|_| vec![Err(lost()); count])
    }

    async fn append_now(&self, records: Vec<NewRecord>, rest: Vec<(Lane, Option<Ticket>)>) -> Vec<Answer> {
        match self.log.append(records).await {
            Err(error) => {
                tracing::warn!(media = rest.len(), "the log did not take a submission: {error}");
                vec![Err(SubmitError::from(error)); rest.len()]
            }
            Ok(positions) => {
                let now = Instant::now();
                for ((lane, ticket), position) in rest.into_iter().zip(&positions) {
                    self.metrics.accepted.with_label_values(&[lane.as_str()]).inc();
                    if let Some(ticket) = ticket {
                        ticket.answer(position.clone(), now);
                    }
                }
                positions.into_iter().map(Ok).collect()
            }
        }
    }
}

struct Checked {
    reference: MediaReference,
    record: NewRecord,
}

enum Claimed {
    New(Option<Ticket>),
    UnderWay(watch::Receiver<Option<Position>>),
    Answered(Answer),
}
