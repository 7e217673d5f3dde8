//! Topics that are wanted, against those that are there: the same rules for every log.

use crate::error::StreamError;
use crate::log::TopicSpec;

/// Those of `wanted` that do not exist yet; an error when one exists otherwise or is not a possible topic.
pub(crate) fn missing(
    wanted: &[TopicSpec],
    there: impl Fn(&str) -> Option<TopicSpec>,
) -> Result<Vec<&TopicSpec>, StreamError> {
    let mut missing: Vec<&TopicSpec> = Vec::new();
    for spec in wanted {
        check(spec)?;
        let found = there(&spec.name);
        let found =
            found.or_else(|| missing.iter().find(|other| other.name == spec.name).map(|&s| s.clone()));
        match found {
            None => missing.push(spec),
            Some(found) if found == *spec => {}
            Some(found) => {
                return Err(StreamError::TopicMismatch {
                    topic: spec.name.to_string(),
                    wanted: words(spec),
                    found: words(&found),
                });
            }
        }
    }
    Ok(missing)
}

fn words(spec: &TopicSpec) -> String {
    format!("{} partitions, {}", spec.partitions, spec.policy)
}

/// Kafka's rules for names; the partitions' bound is ours, far above any use.
fn check(spec: &TopicSpec) -> Result<(), StreamError> {
    let name = &*spec.name;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.bytes().all(legal) {
        let why = format!("topic name {name:?}: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'");
        return Err(StreamError::Invalid { why });
    }
    if !(1..=10_000).contains(&spec.partitions) {
        return Err(StreamError::Invalid {
            why: format!("topic {name}: 1 to 10000 partitions, not {}", spec.partitions),
        });
    }
    Ok(())
}
