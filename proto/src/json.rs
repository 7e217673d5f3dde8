//! The protobuf JSON mapping: references from producers that are not ours (unknown fields are ignored), and
//! answers for tools that read no protobuf.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};

use crate::topics::{JSON, headers};
use crate::v1;

/// Reads references in JSON.
#[derive(Debug, Clone)]
pub struct JsonReader {
    reference: MessageDescriptor,
}

impl JsonReader {
    /// A reader; decodes the descriptors once.
    pub fn new() -> Self {
        let pool =
            DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("the build made these descriptors");
        let reference = pool
            .get_message_by_name("touchstone.v1.MediaReference")
            .expect("media.proto defines the message");
        Self { reference }
    }

    /// A reference as a record of a media topic carries it: JSON where the content type says so, or protobuf. Where it
    /// is neither, nobody can parse the record, and a dead letter is its outcome.
    pub fn record(
        &self,
        value: Option<&[u8]>,
        headers: &[(String, Bytes)],
    ) -> Result<v1::MediaReference, String> {
        let value = value.ok_or("the record has no value")?;
        if is_json(headers) {
            return self.reference(value).map_err(|error| format!("not the JSON of a reference: {error}"));
        }
        v1::MediaReference::decode(value).map_err(|error| format!("not a protobuf reference: {error}"))
    }

    /// A reference from its JSON text; the error says where the text breaks the mapping.
    pub fn reference(&self, text: &[u8]) -> Result<v1::MediaReference, String> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(self.reference.clone(), &mut json, &options)
            .map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())?;
        message.transcode_to().map_err(|error| error.to_string())
    }
}

/// By the content-type alone: the first byte of a protobuf message may be any. Where it repeats the last one counts.
fn is_json(record: &[(String, Bytes)]) -> bool {
    let value = record.iter().rev().find(|(name, _)| name == headers::CONTENT_TYPE);
    let value = value.and_then(|(_, value)| std::str::from_utf8(value).ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(JSON)
}

impl Default for JsonReader {
    fn default() -> Self {
        Self::new()
    }
}

/// A message that was read from elsewhere and that the JSON mapping cannot say, such as a time in the year 10,000.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {message} has no JSON form: {why}")]
pub struct NoJsonForm {
    message: &'static str,
    why: String,
}

/// Writes answers as JSON.
#[derive(Debug, Clone)]
pub struct JsonWriter {
    pool: DescriptorPool,
}

impl JsonWriter {
    /// A writer; decodes the descriptors once.
    pub fn new() -> Self {
        let pool =
            DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("the build made these descriptors");
        Self { pool }
    }

    /// A verdict.
    pub fn verdict(&self, verdict: &v1::Verdict) -> Result<serde_json::Value, NoJsonForm> {
        self.write("touchstone.v1.Verdict", verdict)
    }

    /// A place in the log.
    pub fn position(&self, position: &v1::InputPosition) -> Result<serde_json::Value, NoJsonForm> {
        self.write("touchstone.v1.InputPosition", position)
    }

    /// One broken promise.
    pub fn violation(&self, violation: &v1::AuditViolation) -> Result<serde_json::Value, NoJsonForm> {
        self.write("touchstone.v1.AuditViolation", violation)
    }

    /// What the auditor compared.
    pub fn report(&self, report: &v1::AuditReport) -> Result<serde_json::Value, NoJsonForm> {
        self.write("touchstone.v1.AuditReport", report)
    }

    fn write(&self, name: &'static str, message: &impl Message) -> Result<serde_json::Value, NoJsonForm> {
        let descriptor = self.pool.get_message_by_name(name).expect("the .proto files define it");
        let no_form = |why: String| NoJsonForm { message: name, why };
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
            .map_err(|error| no_form(error.to_string()))?;
        serde_json::to_value(dynamic).map_err(|error| no_form(error.to_string()))
    }
}

impl Default for JsonWriter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protobuf_json_mapping_is_read() {
        let text = br#"{"tenant":"acme","mediaId":"m-1","lane":"LANE_BULK","newField":[1,2],
            "image":{"bucket":"media","object":{"key":"a.jpg"}},"submittedAt":"2026-11-24T02:00:00Z"}"#;
        let reference = JsonReader::new().reference(text).expect("valid");
        assert_eq!((reference.media_id.as_str(), reference.lane()), ("m-1", v1::Lane::Bulk));
        assert_eq!(reference.submitted_at.map(|at| at.seconds), Some(1_795_485_600));
        assert!(matches!(reference.source, Some(v1::media_reference::Source::Image(_))));
    }

    #[test]
    fn broken_json_is_an_error_with_its_place() {
        for text in [&b"{"[..], b"[]", b"", b"{} trailing", br#"{"mediaId":7}"#] {
            assert!(JsonReader::new().reference(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_verdict_is_written_in_the_mapping_that_other_tools_write() {
        let verdict = v1::Verdict {
            media_id: "m-1".to_owned(),
            outcome: v1::Outcome::Inconclusive.into(),
            probability: Some(0.5),
            created_at: Some(prost_types::Timestamp { seconds: 1_795_485_600, nanos: 0 }),
            ..Default::default()
        };
        let expected = serde_json::json!({"mediaId": "m-1", "outcome": "OUTCOME_INCONCLUSIVE",
            "probability": 0.5, "createdAt": "2026-11-24T02:00:00Z"});
        assert_eq!(JsonWriter::new().verdict(&verdict), Ok(expected));
    }

    #[test]
    fn what_has_no_json_form_is_an_error_that_says_why() {
        let late = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        let verdict = v1::Verdict { due_at: Some(late), ..Default::default() };
        let error = JsonWriter::new().verdict(&verdict).unwrap_err().to_string();
        assert_eq!(error, "a touchstone.v1.Verdict has no JSON form: timestamp out of range");
    }
}
