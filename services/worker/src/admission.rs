//! A record at the door: what it asks for, or why it ends right here. Pure; nothing touches the network.

use forensics::{BucketAllowList, FacesIn, FailureClass, MediaId, MediaReference, Tenant};
use media::Stopwatch;
use proto::json::JsonReader;
use proto::topics::headers;
use stream::Record;

use crate::job::{Input, Job, Subject};

/// What becomes of a record.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is examined.
    Examine(Box<Job>),
    /// Nobody can parse it: a dead letter is its outcome.
    DeadLetter { input: Input, why: String },
    /// It ends as FAILED without being examined.
    Refused { input: Input, subject: Box<Subject>, class: FailureClass, why: String },
}

/// Reads records.
pub(crate) struct Door {
    json: JsonReader,
    buckets: BucketAllowList,
}

impl Door {
    /// A door that lets references to these buckets in.
    pub(crate) fn new(buckets: BucketAllowList) -> Self {
        Self { json: JsonReader::new(), buckets }
    }

    /// What becomes of this record.
    pub(crate) fn admit(&self, input: Input) -> Admission {
        let Record { value, headers, .. } = &input.record;
        let wire = match self.json.record(value.as_deref(), headers) {
            Ok(wire) => wire,
            Err(why) => return Admission::DeadLetter { input, why },
        };
        let named = (wire.tenant.clone(), wire.media_id.clone(), wire.generation);
        let reference = match MediaReference::try_from(wire) {
            Ok(reference) => reference,
            Err(error) => {
                let subject = Box::new(nearest_subject(&named.0, &named.1, named.2));
                let class = FailureClass::InvalidReference;
                return Admission::Refused { input, subject, class, why: error.to_string() };
            }
        };
        if !self.buckets.permits(&reference.tenant, &reference.source) {
            let why = format!(
                "bucket {} (or this part of it) is not on the list of tenant {}: ask an operator to add it",
                reference.source.bucket(),
                reference.tenant
            );
            let subject = Box::new(Subject::from(&reference));
            return Admission::Refused { input, subject, class: FailureClass::BucketNotAllowed, why };
        }
        Admission::Examine(Box::new(Job { input, reference, time: Stopwatch::new() }))
    }
}

/// The tries so far, by the record's header; 1 at first.
pub(crate) fn attempt(record: &Record) -> u32 {
    let text = record.header(headers::ATTEMPT).and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(1).max(1)
}

fn nearest_subject(tenant: &str, media_id: &str, generation: u32) -> Subject {
    let tenant = match tenant {
        "" => Tenant::default_tenant(),
        text => Tenant::parse(text).unwrap_or_else(|_| Tenant::invalid()),
    };
    Subject {
        tenant,
        media_id: MediaId::lossy(media_id),
        generation,
        faces: FacesIn::Detect,
        due_at: None,
        labels: std::collections::BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use forensics::Lane;
    use proptest::prelude::*;
    use prost::Message;
    use proto::v1;
    use stream::{AssignmentEpoch, Position, TopicPartition};

    use super::*;

    fn input(value: Option<&[u8]>, content_type: Option<&str>) -> Input {
        let header = |value: &str| (headers::CONTENT_TYPE.to_owned(), Bytes::from(value.to_owned()));
        Input {
            partition: TopicPartition::new("touchstone.media.standard.v1", 0),
            epoch: AssignmentEpoch(1),
            record: Record {
                position: Position::new("touchstone.media.standard.v1", 0, 7),
                timestamp_ms: 1,
                key: None,
                value: value.map(Bytes::copy_from_slice),
                headers: content_type.map(header).into_iter().collect(),
            },
            lane: Lane::Standard,
            attempt: 1,
            taken_in_at: std::time::SystemTime::UNIX_EPOCH,
        }
    }

    fn door() -> Door {
        let entries = [("*".to_owned(), vec!["media".to_owned()])];
        Door::new(BucketAllowList::parse(entries.iter().map(|(t, b)| (t, b))).unwrap())
    }

    fn ends_as(value: Option<&[u8]>, content_type: Option<&str>) -> String {
        match door().admit(input(value, content_type)) {
            Admission::Examine(job) => format!("examine {}", job.reference.media_id),
            Admission::DeadLetter { .. } => "dead letter".to_owned(),
            Admission::Refused { class, subject, .. } => {
                format!("{class} {} {}", subject.tenant, subject.media_id)
            }
        }
    }

    #[test]
    fn json_is_read_where_the_content_type_says_so() {
        let json = br#"{"mediaId":"m","image":{"bucket":"media","object":{"key":"a.jpg"}}}"#;
        assert_eq!(ends_as(Some(json), Some("application/json; charset=utf-8")), "examine m");
        assert_eq!(ends_as(Some(json), None), "dead letter");
        assert_eq!(ends_as(Some(b"{"), Some("application/json")), "dead letter");
        assert_eq!(ends_as(None, None), "dead letter");
    }

    #[test]
    fn what_breaks_the_grammar_keeps_as_much_of_its_name_as_is_valid() {
        let json = br#"{"tenant":"No|Such","mediaId":"a\nb","image":{"bucket":"media"}}"#;
        assert_eq!(
            ends_as(Some(json), Some("application/json")),
            "INVALID_REFERENCE invalid-tenant a\u{fffd}b"
        );
        assert_eq!(ends_as(Some(b""), None), "INVALID_REFERENCE default -");
        let json = br#"{"mediaId":"m","prefix":{"bucket":"others","prefix":"x/"}}"#;
        assert_eq!(ends_as(Some(json), Some("application/json")), "BUCKET_NOT_ALLOWED default m");
    }

    proptest! {
        #[test]
        fn no_bytes_get_past_the_door_unchecked(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let end = ends_as(Some(&value), None);
            prop_assert!(!end.starts_with("examine") || door_would_know(&value));
        }
    }

    fn door_would_know(value: &[u8]) -> bool {
        v1::MediaReference::decode(value).is_ok_and(|wire| MediaReference::try_from(wire).is_ok())
    }
}
