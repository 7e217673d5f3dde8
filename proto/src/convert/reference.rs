//! Media references.

use forensics::media::check_labels;
use forensics::{
    Bucket, FacesIn, InputPosition, InvalidReference, Lane, MediaId, MediaReference, ObjectKey, ObjectRef,
    Source, Tenant,
};

use super::{non_empty, system_time, timestamp};
use crate::v1;

impl TryFrom<v1::MediaReference> for MediaReference {
    type Error = InvalidReference;

    fn try_from(wire: v1::MediaReference) -> Result<Self, InvalidReference> {
        let (faces, lane) = (faces(wire.faces)?, lane(wire.lane)?);
        let tenant =
            if wire.tenant.is_empty() { Tenant::default_tenant() } else { Tenant::parse(&wire.tenant)? };
        let labels = wire.labels.into_iter().collect();
        check_labels(&labels)?;
        if wire.request_id.len() > 256 || wire.request_id.chars().any(char::is_control) {
            let why = "must be at most 256 bytes without control characters";
            return Err(InvalidReference::new("request_id", why));
        }
        let time = |field, at: Option<prost_types::Timestamp>| match at {
            Some(at) => system_time(&at)
                .map(Some)
                .ok_or_else(|| InvalidReference::new(field, "must be in the years 1 to 9999")),
            None => Ok(None),
        };
        Ok(Self {
            tenant,
            media_id: MediaId::parse(&wire.media_id)?,
            source: source(wire.source)?,
            faces,
            lane,
            due_at: time("due_at", wire.due_at)?,
            labels,
            request_id: non_empty(wire.request_id),
            submitted_at: time("submitted_at", wire.submitted_at)?,
            generation: wire.generation,
        })
    }
}

fn faces(value: i32) -> Result<FacesIn, InvalidReference> {
    match v1::Faces::try_from(value) {
        Ok(v1::Faces::Unspecified | v1::Faces::Detect) => Ok(FacesIn::Detect),
        Ok(v1::Faces::Cropped) => Ok(FacesIn::Cropped),
        Err(_) => Err(InvalidReference::new("faces", format!("has no value {value}"))),
    }
}

fn lane(value: i32) -> Result<Lane, InvalidReference> {
    match v1::Lane::try_from(value) {
        Ok(v1::Lane::Unspecified | v1::Lane::Standard) => Ok(Lane::Standard),
        Ok(v1::Lane::Live) => Ok(Lane::Live),
        Ok(v1::Lane::Bulk) => Ok(Lane::Bulk),
        Err(_) => Err(InvalidReference::new("lane", format!("has no value {value}"))),
    }
}

fn source(wire: Option<v1::media_reference::Source>) -> Result<Source, InvalidReference> {
    use v1::media_reference::Source as Wire;
    match wire {
        None => Err(InvalidReference::new("source", "is missing; give frames, prefix, image or video")),
        Some(Wire::Frames(frames)) => {
            let objects = frames.objects.into_iter().map(object).collect::<Result<_, _>>()?;
            Source::frames(Bucket::parse(&frames.bucket)?, objects)
        }
        Some(Wire::Prefix(prefix)) => Source::prefix(Bucket::parse(&prefix.bucket)?, &prefix.prefix),
        Some(Wire::Image(image)) => {
            Ok(Source::Image { bucket: Bucket::parse(&image.bucket)?, object: one_object(image.object)? })
        }
        Some(Wire::Video(video)) => Ok(Source::Video {
            bucket: Bucket::parse(&video.bucket)?,
            object: one_object(video.object)?,
            frames_max: if video.frames_max == 0 { 512 } else { video.frames_max },
        }),
    }
}

fn one_object(wire: Option<v1::ObjectRef>) -> Result<ObjectRef, InvalidReference> {
    object(wire.ok_or_else(|| InvalidReference::new("source.object", "is missing; name an object"))?)
}

fn object(wire: v1::ObjectRef) -> Result<ObjectRef, InvalidReference> {
    ObjectRef::pinned(ObjectKey::parse(&wire.key)?, non_empty(wire.version), non_empty(wire.etag))
}

impl From<&MediaReference> for v1::MediaReference {
    fn from(reference: &MediaReference) -> Self {
        Self {
            tenant: reference.tenant.to_string(),
            media_id: reference.media_id.to_string(),
            source: Some(wire_source(&reference.source)),
            faces: match reference.faces {
                FacesIn::Detect => v1::Faces::Detect,
                FacesIn::Cropped => v1::Faces::Cropped,
            }
            .into(),
            lane: wire_lane(reference.lane).into(),
            due_at: reference.due_at.map(timestamp),
            labels: reference.labels.clone().into_iter().collect(),
            request_id: reference.request_id.clone().unwrap_or_default(),
            submitted_at: reference.submitted_at.map(timestamp),
            generation: reference.generation,
        }
    }
}

fn wire_lane(lane: Lane) -> v1::Lane {
    match lane {
        Lane::Live => v1::Lane::Live,
        Lane::Standard => v1::Lane::Standard,
        Lane::Bulk => v1::Lane::Bulk,
    }
}

fn wire_source(source: &Source) -> v1::media_reference::Source {
    use v1::media_reference::Source as Wire;
    match source {
        Source::Frames { bucket, objects } => Wire::Frames(v1::FramesSource {
            bucket: bucket.to_string(),
            objects: objects.iter().map(wire_object).collect(),
        }),
        Source::Prefix { bucket, prefix } => {
            Wire::Prefix(v1::PrefixSource { bucket: bucket.to_string(), prefix: prefix.clone() })
        }
        Source::Image { bucket, object } => {
            Wire::Image(v1::ImageSource { bucket: bucket.to_string(), object: Some(wire_object(object)) })
        }
        Source::Video { bucket, object, frames_max } => Wire::Video(v1::VideoSource {
            bucket: bucket.to_string(),
            object: Some(wire_object(object)),
            frames_max: *frames_max,
        }),
    }
}

fn wire_object(object: &ObjectRef) -> v1::ObjectRef {
    v1::ObjectRef {
        key: object.key.to_string(),
        version: object.version.clone().unwrap_or_default(),
        etag: object.etag.clone().unwrap_or_default(),
    }
}

impl From<&InputPosition> for v1::InputPosition {
    fn from(position: &InputPosition) -> Self {
        Self { topic: position.topic.clone(), partition: position.partition, offset: position.offset }
    }
}

impl From<v1::InputPosition> for InputPosition {
    fn from(wire: v1::InputPosition) -> Self {
        Self { topic: wire.topic, partition: wire.partition, offset: wire.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn image(key: &str) -> v1::MediaReference {
        v1::MediaReference {
            media_id: "m".to_owned(),
            source: Some(v1::media_reference::Source::Image(v1::ImageSource {
                bucket: "media".to_owned(),
                object: Some(v1::ObjectRef { key: key.to_owned(), ..Default::default() }),
            })),
            ..Default::default()
        }
    }

    #[test]
    fn defaults_are_filled_in_and_errors_name_the_field() {
        let reference = MediaReference::try_from(image("a.jpg")).expect("valid");
        assert_eq!((reference.tenant.as_str(), reference.lane), ("default", Lane::Standard));
        let field = |wire: v1::MediaReference| MediaReference::try_from(wire).expect_err("invalid").field;
        assert_eq!(field(image("../a")), "source.key");
        assert_eq!(field(v1::MediaReference { lane: 99, ..image("a") }), "lane");
        assert_eq!(field(v1::MediaReference { tenant: "A".to_owned(), ..image("a") }), "tenant");
        assert_eq!(field(v1::MediaReference { source: None, ..image("a") }), "source");
        assert_eq!(field(v1::MediaReference { media_id: String::new(), ..image("a") }), "media_id");
    }

    #[test]
    fn a_time_without_a_json_form_is_refused_at_the_door() {
        let error = |wire: v1::MediaReference| MediaReference::try_from(wire).expect_err("invalid");
        let year_10_000 = Some(prost_types::Timestamp { seconds: 253_402_300_800, nanos: 0 });
        let year_0 = Some(prost_types::Timestamp { seconds: -62_135_596_801, nanos: 0 });
        for at in [year_10_000, year_0] {
            let refused = error(v1::MediaReference { due_at: at, ..image("a") });
            assert_eq!(refused.field, "due_at");
            assert!(refused.why.contains("year"), "{refused}");
            assert_eq!(error(v1::MediaReference { submitted_at: at, ..image("a") }).field, "submitted_at");
        }
    }

    proptest! {
        #[test]
        fn what_is_valid_survives_the_wire(
            tenant in "[a-z0-9-]{1,63}", id in "[ -~]{1,40}", keys in proptest::collection::vec("[a-z]{1,9}", 1..5),
            generation in any::<u32>(), seconds in 0i64..4_000_000_000, bulk in any::<bool>(),
        ) {
            let objects = keys.into_iter().map(|key| v1::ObjectRef { key, ..Default::default() }).collect();
            let wire = v1::MediaReference {
                tenant, media_id: id, generation,
                source: Some(v1::media_reference::Source::Frames(v1::FramesSource { bucket: "media".to_owned(), objects })),
                lane: if bulk { v1::Lane::Bulk } else { v1::Lane::Live }.into(),
                due_at: Some(prost_types::Timestamp { seconds, nanos: 5 }),
                ..Default::default()
            };
            let reference = MediaReference::try_from(wire).expect("valid");
            let again = v1::MediaReference::decode(&*v1::MediaReference::from(&reference).encode_to_vec()).expect("own bytes");
            prop_assert_eq!(MediaReference::try_from(again).expect("valid"), reference);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(wire) = v1::MediaReference::decode(&*bytes) {
                let _checked: Result<MediaReference, _> = wire.try_into();
            }
        }
    }
}
