use forensics::{
    Bucket, FacesIn, Lane, MediaId, MediaReference, ObjectKey, ObjectRef, Outcome, Source, Tenant,
};
use ops::metrics::Registry;
use stream::{AssignmentEpoch, Record, TopicPartition};

use super::*;

fn job() -> Job {
    let partition = TopicPartition::new("t", 0);
    let record =
        Record { position: partition.at(1), timestamp_ms: 0, key: None, value: None, headers: vec![] };
    let taken_in_at = SystemTime::UNIX_EPOCH;
    let epoch = AssignmentEpoch(1);
    let object = ObjectRef::newest(ObjectKey::parse("a.jpg").unwrap());
    Job {
        input: Input { partition, epoch, record, lane: Lane::Live, attempt: 1, taken_in_at },
        reference: MediaReference {
            tenant: Tenant::default_tenant(),
            media_id: MediaId::parse("m").unwrap(),
            source: Source::Image { bucket: Bucket::parse("media").unwrap(), object },
            faces: FacesIn::Detect,
            lane: Lane::Live,
            due_at: None,
            labels: [].into(),
            request_id: None,
            submitted_at: None,
            generation: 0,
        },
        time: media::Stopwatch::new(),
    }
}

#[tokio::test]
async fn a_panic_is_an_end_that_a_person_looks_at() {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let poison = async {
        tokio::task::yield_now().await;
        let faces: &[u8] = &[];
        Ok(End::failed(FailureClass::TimedOut, faces[0].to_string()))
    };
    let end = contained(&job(), &metrics, poison).await.unwrap();
    assert_eq!(end.judgement.outcome, Outcome::Failed(FailureClass::Decode));
    assert!(end.suspicious && end.detail.unwrap().contains("index out of bounds"));
    assert_eq!(metrics.panics.get(), 1);
    let interrupted = contained(&job(), &metrics, async { Err(Interrupted) }).await;
    assert_eq!(interrupted.err(), Some(Interrupted), "an interruption is no end");
}
