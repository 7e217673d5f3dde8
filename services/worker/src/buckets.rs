//! Which buckets a tenant's references may name: checked before anything touches the network.

use std::collections::{BTreeMap, BTreeSet};

use forensics::{Bucket, Tenant};
use ops::config::{ConfigError, Problems};

/// The allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets {
    everyone: BTreeSet<Bucket>,
    tenants: BTreeMap<Tenant, BTreeSet<Bucket>>,
}

impl Buckets {
    /// Reads the table `[buckets]`: tenant → buckets; the tenant `*` stands for all.
    pub fn parse(table: &BTreeMap<String, Vec<String>>) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let mut buckets = Self::default();
        for (tenant, names) in table {
            let key = format!("buckets.{tenant}");
            let allowed: BTreeSet<Bucket> =
                names.iter().filter_map(|name| problems.take(&key, Bucket::parse(name))).collect();
            if tenant == "*" {
                buckets.everyone = allowed;
            } else if let Some(tenant) = problems.take(&key, Tenant::parse(tenant)) {
                buckets.tenants.insert(tenant, allowed);
            }
        }
        problems.finish(buckets)
    }

    /// All tenants may read these buckets.
    pub fn for_everyone(buckets: impl IntoIterator<Item = Bucket>) -> Self {
        Self { everyone: buckets.into_iter().collect(), tenants: BTreeMap::new() }
    }

    /// Whether `tenant` may have `bucket` read.
    pub fn allow(&self, tenant: &Tenant, bucket: &Bucket) -> bool {
        self.everyone.contains(bucket) || self.tenants.get(tenant).is_some_and(|own| own.contains(bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_reads_its_own_buckets_and_everyones() {
        let table = [("*", vec!["shared"]), ("acme", vec!["acme-media"])];
        let table = table.map(|(t, b)| (t.to_owned(), b.into_iter().map(str::to_owned).collect())).into();
        let buckets = Buckets::parse(&table).unwrap();
        let allow = |tenant: &str, bucket: &str| {
            buckets.allow(&Tenant::parse(tenant).unwrap(), &Bucket::parse(bucket).unwrap())
        };
        assert!(allow("acme", "acme-media") && allow("acme", "shared") && allow("other", "shared"));
        assert!(!allow("other", "acme-media"));
        assert!(!Buckets::default().allow(&Tenant::default_tenant(), &Bucket::parse("shared").unwrap()));
    }

    #[test]
    fn every_wrong_name_is_listed() {
        let table = [("Not A Tenant".to_owned(), vec!["UPPER".to_owned(), "ok-bucket".to_owned()])].into();
        assert_eq!(Buckets::parse(&table).unwrap_err().errors.len(), 2);
    }
}
