//! What a list or a watch lets through.

use std::collections::{BTreeMap, BTreeSet};

use forensics::InvalidReference;
use proto::v1;
use sha2::{Digest, Sha256};

use super::row::{Row, micros};

/// All conditions must hold; what is not set does not filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Made at or after, Unix time in microseconds.
    pub created_from_us: Option<i64>,
    /// Made before.
    pub created_to_us: Option<i64>,
    /// One of these `v1::Outcome`s; empty: any.
    pub outcomes: BTreeSet<i32>,
    /// P(forged) at least; verdicts without one do not pass.
    pub probability_min: Option<f32>,
    /// P(forged) at most; verdicts without one do not pass.
    pub probability_max: Option<f32>,
    /// The model's name.
    pub model_name: Option<String>,
    /// The model's hex SHA-256.
    pub model_sha256: Option<String>,
    /// Labels that the media carries.
    pub labels: BTreeMap<String, String>,
}

impl Filter {
    /// Whether a row passes.
    pub fn passes(&self, row: &Row) -> bool {
        let probability = |holds: &dyn Fn(f32) -> bool| row.probability.is_some_and(holds);
        self.created_from_us.is_none_or(|from| row.created_at_us >= from)
            && self.created_to_us.is_none_or(|to| row.created_at_us < to)
            && (self.outcomes.is_empty() || self.outcomes.contains(&row.outcome))
            && self.probability_min.is_none_or(|min| probability(&|p| p >= min))
            && self.probability_max.is_none_or(|max| probability(&|p| p <= max))
            && self.model_name.as_ref().is_none_or(|name| *name == row.model_name)
            && self.model_sha256.as_ref().is_none_or(|sha256| *sha256 == row.model_sha256)
            && self.labels.iter().all(|(key, value)| row.labels.get(key) == Some(value))
    }

    /// Names the filter, so that a page token is good for the one it came from only.
    pub fn digest(&self) -> [u8; 16] {
        // Debug output of ordered collections is unambiguous; tokens need not outlive a release.
        let full: [u8; 32] = Sha256::digest(format!("{self:?}")).into();
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        short
    }
}

impl TryFrom<v1::VerdictFilter> for Filter {
    type Error = InvalidReference;

    fn try_from(wire: v1::VerdictFilter) -> Result<Self, InvalidReference> {
        let wrong = |field, why: String| Err(InvalidReference::new(field, why));
        for (field, value) in [
            ("filter.probability_min", wire.probability_min),
            ("filter.probability_max", wire.probability_max),
        ] {
            if value.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
                return wrong(field, "must be a number in [0, 1]".to_owned());
            }
        }
        let mut outcomes = BTreeSet::new();
        for outcome in wire.outcomes {
            match v1::Outcome::try_from(outcome) {
                Ok(v1::Outcome::Unspecified) | Err(_) => {
                    return wrong("filter.outcomes", format!("has no value {outcome}"));
                }
                Ok(known) => outcomes.insert(known.into()),
            };
        }
        if wire.labels.len() > 32 {
            return wrong("filter.labels", format!("{} labels, the most is 32", wire.labels.len()));
        }
        let model_sha256 = wire.model_sha256.to_ascii_lowercase();
        if !model_sha256.is_empty()
            && (model_sha256.len() != 64 || !model_sha256.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return wrong("filter.model_sha256", "must be 64 hexadecimal digits".to_owned());
        }
        let non_empty = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            created_from_us: wire.created_from.as_ref().map(micros),
            created_to_us: wire.created_to.as_ref().map(micros),
            outcomes,
            probability_min: wire.probability_min,
            probability_max: wire.probability_max,
            model_name: non_empty(wire.model_name),
            model_sha256: non_empty(model_sha256),
            labels: wire.labels.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_filters_name_their_field() {
        let field = |wire: v1::VerdictFilter| Filter::try_from(wire).expect_err("wrong").field;
        let none = v1::VerdictFilter::default;
        assert_eq!(field(v1::VerdictFilter { outcomes: vec![0], ..none() }), "filter.outcomes");
        assert_eq!(
            field(v1::VerdictFilter { probability_max: Some(f32::NAN), ..none() }),
            "filter.probability_max"
        );
        assert_eq!(field(v1::VerdictFilter { model_sha256: "abc".into(), ..none() }), "filter.model_sha256");
    }

    #[test]
    fn the_digest_is_of_the_filter_and_not_of_its_spelling() {
        let labels = |pairs: [(&str, &str); 2]| v1::VerdictFilter {
            labels: pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Default::default()
        };
        let digest = |wire| Filter::try_from(wire).expect("valid").digest();
        assert_eq!(digest(labels([("a", "1"), ("b", "2")])), digest(labels([("b", "2"), ("a", "1")])));
        assert_ne!(digest(labels([("a", "1"), ("b", "2")])), digest(labels([("a", "2"), ("b", "1")])));
    }
}
