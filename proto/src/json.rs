//! References in JSON: the protobuf JSON mapping, for producers that are not ours. Unknown fields are ignored.

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
}
