//! The protobuf JSON mapping: references from producers that are not ours (unknown fields are ignored), and
//! answers for tools that read no protobuf.

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};

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

impl Default for JsonReader {
    fn default() -> Self {
        Self::new()
    }
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
    pub fn verdict(&self, verdict: &v1::Verdict) -> serde_json::Value {
        self.write("touchstone.v1.Verdict", verdict)
    }

    /// A place in the log.
    pub fn position(&self, position: &v1::InputPosition) -> serde_json::Value {
        self.write("touchstone.v1.InputPosition", position)
    }

    /// One broken promise.
    pub fn violation(&self, violation: &v1::AuditViolation) -> serde_json::Value {
        self.write("touchstone.v1.AuditViolation", violation)
    }

    /// What the auditor compared.
    pub fn report(&self, report: &v1::AuditReport) -> serde_json::Value {
        self.write("touchstone.v1.AuditReport", report)
    }

    fn write(&self, name: &str, message: &impl Message) -> serde_json::Value {
        let descriptor = self.pool.get_message_by_name(name).expect("the .proto files define it");
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
            .expect("written and read by the same descriptor");
        serde_json::to_value(dynamic).expect("every message has a JSON form")
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
        assert_eq!(JsonWriter::new().verdict(&verdict), expected);
    }
}
