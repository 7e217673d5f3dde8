//! What this crate's tests are made of.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use forensics::{Tenant, VerdictId};
use prost::Message;
use proto::v1;

use crate::store::{Row, Seat};

/// A verdict of this tenant and media; `n` makes its id and its time.
pub(crate) fn verdict(tenant: &str, media_id: &str, n: u64) -> v1::Verdict {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let created_at = UNIX_EPOCH + Duration::from_secs(1_795_485_600) + Duration::from_millis(n);
    v1::Verdict {
        verdict_id: VerdictId::from_bytes(id).to_string(),
        tenant: tenant.to_owned(),
        media_id: media_id.to_owned(),
        outcome: v1::Outcome::LikelyForged.into(),
        probability: Some(0.9),
        logit: Some(2.0),
        model: Some(v1::ModelIdentity {
            name: "two-stream".to_owned(),
            version: "1".to_owned(),
            sha256: "ab".repeat(32),
            precision: "f32".to_owned(),
            device_class: "cpu".to_owned(),
        }),
        created_at: Some(proto::convert::timestamp(created_at)),
        ..Default::default()
    }
}

pub(crate) fn record_of(verdict: &v1::Verdict) -> Bytes {
    verdict.encode_to_vec().into()
}

pub(crate) fn row(partition: i32, offset: i64, verdict: &v1::Verdict) -> Row {
    Row::decode(Seat::new(partition, offset), Some(&record_of(verdict))).expect("a verdict").0
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("valid")
}
