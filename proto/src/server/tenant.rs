//! Who calls.

use forensics::{InvalidReference, Tenant};
use tonic::metadata::MetadataMap;

use crate::TENANT_METADATA;

/// The tenant of a call, from its metadata and never from its body; without one it is the default tenant.
///
/// # Errors
/// When the metadata breaks the grammar or names several tenants.
pub fn tenant_of(metadata: &MetadataMap) -> Result<Tenant, InvalidReference> {
    let mut named = metadata.get_all(TENANT_METADATA).iter();
    let Some(first) = named.next() else { return Ok(Tenant::default_tenant()) };
    if named.next().is_some() {
        return Err(InvalidReference::new(TENANT_METADATA, "is there more than once"));
    }
    let text = first.to_str().unwrap_or("\u{fffd}");
    Tenant::parse(text).map_err(|error| InvalidReference::new(TENANT_METADATA, error.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_name_or_none() {
        let mut metadata = MetadataMap::new();
        assert_eq!(tenant_of(&metadata), Ok(Tenant::default_tenant()));
        metadata.insert(TENANT_METADATA, "acme".parse().expect("ascii"));
        assert_eq!(tenant_of(&metadata).expect("valid").as_str(), "acme");
        metadata.append(TENANT_METADATA, "other".parse().expect("ascii"));
        assert_eq!(tenant_of(&metadata).expect_err("two").field, TENANT_METADATA);
        metadata.insert(TENANT_METADATA, "A|B".parse().expect("ascii"));
        assert!(tenant_of(&metadata).is_err());
    }
}
