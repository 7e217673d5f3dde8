//! Opaque tokens: where a list goes on, and where a watch resumes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forensics::Tenant;
use sha2::{Digest, Sha256};

use crate::error::QueryError;
use crate::store::{Filter, PageKey, Seat};

const VERSION: u8 = 1;

/// What a page token is good for.
pub(super) fn binding(tenant: &Tenant, filter: &Filter) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(filter.digest());
    hash.update(tenant.as_str());
    let full: [u8; 32] = hash.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// The token of the page after `key`.
pub(super) fn of_page(key: PageKey, binding: &[u8; 16]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(binding);
    bytes.extend_from_slice(&key.created_at_us.to_be_bytes());
    bytes.extend_from_slice(&key.seat.number().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place of a page token that came with the tenant and filter it was made for.
pub(super) fn page(token: &str, binding: &[u8; 16]) -> Result<PageKey, QueryError> {
    let wrong = || QueryError::invalid("page_token", "is not a token of ListVerdicts");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let bytes: [u8; 33] = bytes.try_into().map_err(|_| wrong())?;
    let number = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 of 33 bytes"));
    if bytes[0] != VERSION {
        return Err(wrong());
    }
    if bytes[1..17] != binding[..] {
        return Err(QueryError::invalid("page_token", "belongs to another filter: begin without a token"));
    }
    Ok(PageKey { created_at_us: number(17), seat: Seat::from_number(number(25)) })
}

/// The token of a watch: each partition's next offset.
pub(super) fn of_watch(offsets: &[i64]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(offsets.iter().flat_map(|offset| offset.to_be_bytes()));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The offsets of a watch token, one for each of `partitions`; partitions that came since are read from their start.
pub(super) fn watch(token: &str, partitions: usize) -> Result<Vec<i64>, QueryError> {
    let wrong = |why: &str| QueryError::invalid("resume_token", why);
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    let Some((&VERSION, offsets)) = bytes.split_first() else {
        return Err(wrong("is not a token of WatchVerdicts"));
    };
    let (offsets, rest) = offsets.as_chunks::<8>();
    let mut offsets: Vec<i64> = offsets.iter().map(|bytes| i64::from_be_bytes(*bytes)).collect();
    if !rest.is_empty() || offsets.iter().any(|offset| *offset < 0) {
        return Err(wrong("is not a token of WatchVerdicts"));
    }
    if offsets.len() > partitions {
        return Err(wrong("belongs to another log: begin without a token, or from_start"));
    }
    offsets.resize(partitions, 0);
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_come_back(at in any::<i64>(), offset in 0..1_i64 << 40, offsets in proptest::collection::vec(0..i64::MAX, 0..9)) {
            let binding = binding(&Tenant::default_tenant(), &Filter::default());
            let key = PageKey { created_at_us: at, seat: Seat::new(3, offset) };
            prop_assert_eq!(page(&of_page(key, &binding), &binding), Ok(key));
            prop_assert_eq!(watch(&of_watch(&offsets), offsets.len()), Ok(offsets));
        }

        #[test]
        fn no_text_makes_them_panic(text in ".{0,80}") {
            let binding = [0; 16];
            prop_assert!(page(&text, &binding).is_err());
            let _read = watch(&text, 3);
        }
    }

    #[test]
    fn a_page_token_is_bound_to_tenant_and_filter() {
        let other = Filter { model_name: Some("m".to_owned()), ..Filter::default() };
        let (tenant, guest) = (Tenant::default_tenant(), Tenant::parse("guest").unwrap());
        let key = PageKey { created_at_us: 1, seat: Seat::new(0, 1) };
        let token = of_page(key, &binding(&tenant, &Filter::default()));
        for (tenant, filter) in [(&tenant, &other), (&guest, &Filter::default())] {
            let refused = page(&token, &binding(tenant, filter)).unwrap_err();
            assert!(refused.to_string().contains("another filter"), "{refused}");
        }
    }
}
