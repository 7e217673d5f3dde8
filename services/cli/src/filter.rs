//! Filters as the services want them.

use std::time::SystemTime;

use proto::{convert, v1};

use crate::arguments::{Filters, Outcome};
use crate::failure::Failure;
use crate::time;

impl Filters {
    pub(crate) fn to_wire(&self, now: SystemTime) -> Result<v1::VerdictFilter, Failure> {
        let moment = |text: &Option<String>| {
            let at = text.as_deref().map(|text| time::moment(text, now)).transpose()?;
            Ok::<_, Failure>(at.map(convert::timestamp))
        };
        Ok(v1::VerdictFilter {
            created_from: moment(&self.since)?,
            created_to: moment(&self.until)?,
            outcomes: self.outcome.iter().map(|outcome| outcome.to_wire().into()).collect(),
            probability_min: self.score_min,
            probability_max: self.score_max,
            model_name: self.model.clone().unwrap_or_default(),
            model_sha256: self.model_sha256.clone().unwrap_or_default(),
            labels: self.label.iter().cloned().collect(),
        })
    }
}

impl Outcome {
    fn to_wire(self) -> v1::Outcome {
        match self {
            Self::LikelyForged => v1::Outcome::LikelyForged,
            Self::LikelyAuthentic => v1::Outcome::LikelyAuthentic,
            Self::Inconclusive => v1::Outcome::Inconclusive,
            Self::NotApplicable => v1::Outcome::NotApplicable,
            Self::Failed => v1::Outcome::Failed,
        }
    }
}
