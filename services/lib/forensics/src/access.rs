//! Which tenant may have which buckets read: checked at the front door and again before any network call.

use std::collections::BTreeMap;

use crate::media::{Bucket, Source, Tenant};

/// Each tenant's buckets and prefixes. What is not listed is refused.
///
/// An entry is `bucket`, `bucket/prefix` (keys at or below that folder), or `*` (any bucket). The tenant `*`
/// stands for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketAllowList {
    tenants: BTreeMap<String, Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    AnyBucket,
    /// The prefix ends with `/`, or is empty: the whole bucket.
    Below {
        bucket: Bucket,
        prefix: String,
    },
}

impl BucketAllowList {
    /// The list as configured, tenant → entries; or one sentence for each entry that is wrong.
    ///
    /// # Errors
    /// Tenants and buckets that break their grammar.
    pub fn parse<'a>(
        entries: impl IntoIterator<Item = (&'a String, &'a Vec<String>)>,
    ) -> Result<Self, Vec<String>> {
        let (mut tenants, mut wrong) = (BTreeMap::new(), Vec::new());
        for (tenant, texts) in entries {
            if tenant != ANY
                && let Err(error) = Tenant::parse(tenant)
            {
                wrong.push(error.to_string());
            }
            let mut rules = Vec::new();
            for text in texts {
                match rule(text) {
                    Ok(rule) => rules.push(rule),
                    Err(why) => wrong.push(format!("{tenant}: {text:?} {why}")),
                }
            }
            tenants.insert(tenant.clone(), rules);
        }
        if wrong.is_empty() { Ok(Self { tenants }) } else { Err(wrong) }
    }

    /// A bucket that some entry names: for whoever wants to know whether the store answers at all.
    pub fn named(&self) -> Option<&Bucket> {
        self.tenants.values().flatten().find_map(|rule| match rule {
            Rule::AnyBucket => None,
            Rule::Below { bucket, .. } => Some(bucket),
        })
    }

    /// Whether all that `source` names may be read for `tenant`.
    pub fn permits(&self, tenant: &Tenant, source: &Source) -> bool {
        let rules = [tenant.as_str(), ANY].into_iter().filter_map(|name| self.tenants.get(name)).flatten();
        // Frames may lie in several permitted folders; each needs a rule of its own.
        let rules: Vec<&Rule> = rules.collect();
        let one = |key: &str| rules.iter().any(|rule| rule.covers(source.bucket(), key));
        match source {
            Source::Frames { objects, .. } => objects.iter().all(|object| one(object.key.as_str())),
            Source::Prefix { prefix, .. } => one(prefix),
            Source::Image { object, .. } | Source::Video { object, .. } => one(object.key.as_str()),
        }
    }
}

const ANY: &str = "*";

impl Rule {
    fn covers(&self, bucket: &Bucket, key: &str) -> bool {
        match self {
            Self::AnyBucket => true,
            Self::Below { bucket: allowed, prefix } => allowed == bucket && key.starts_with(prefix.as_str()),
        }
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    if text == ANY {
        return Ok(Rule::AnyBucket);
    }
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bucket = Bucket::parse(bucket).map_err(|error| error.why)?;
    // `media/team-a` must not open `team-ab/`: a prefix is a folder.
    let prefix =
        if prefix.is_empty() || prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
    Ok(Rule::Below { bucket, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{ObjectKey, ObjectRef};

    fn list(entries: &[(&str, &[&str])]) -> Result<BucketAllowList, Vec<String>> {
        let entries: BTreeMap<String, Vec<String>> = entries
            .iter()
            .map(|(tenant, texts)| (tenant.to_string(), texts.iter().map(|&t| t.to_owned()).collect()))
            .collect();
        BucketAllowList::parse(&entries)
    }

    fn frames(bucket: &str, keys: &[&str]) -> Source {
        let objects =
            keys.iter().map(|key| ObjectRef::newest(ObjectKey::parse(key).expect("valid"))).collect();
        Source::frames(Bucket::parse(bucket).expect("valid"), objects).expect("valid")
    }

    #[test]
    fn what_is_not_listed_is_refused() {
        let list = list(&[("acme", &["media/team-a", "uploads"]), ("*", &["samples"])]).expect("valid");
        let (acme, other) = (Tenant::parse("acme").expect("valid"), Tenant::parse("other").expect("valid"));
        for (bucket, keys, acme_may, other_may) in [
            ("media", &["team-a/1.jpg"][..], true, false),
            ("media", &["team-ab/1.jpg"], false, false),
            ("media", &["team-a/1.jpg", "team-b/2.jpg"], false, false),
            ("uploads", &["x"], true, false),
            ("samples", &["x"], true, true),
            ("secrets", &["x"], false, false),
        ] {
            assert_eq!(list.permits(&acme, &frames(bucket, keys)), acme_may, "{bucket} {keys:?}");
            assert_eq!(list.permits(&other, &frames(bucket, keys)), other_may, "{bucket} {keys:?}");
        }
        let prefix = |text| Source::prefix(Bucket::parse("media").expect("valid"), text).expect("valid");
        assert!(list.permits(&acme, &prefix("team-a/frames")));
        assert!(!list.permits(&acme, &prefix("team")), "would list other teams' folders");
        assert!(!BucketAllowList::default().permits(&acme, &frames("media", &["x"])));
    }

    #[test]
    fn any_bucket_only_where_it_is_said() {
        let open = list(&[("acme", &["*"])]).expect("valid");
        assert!(open.permits(&Tenant::parse("acme").expect("valid"), &frames("whatever", &["x"])));
        assert!(!open.permits(&Tenant::default_tenant(), &frames("whatever", &["x"])));
        assert_eq!(list(&[("A", &["ok-bucket", "Not_A_Bucket"])]).expect_err("wrong").len(), 2);
    }
}
