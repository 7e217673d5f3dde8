//! Headers in one column: for each, the length of the name, the name, the length of the value, the value; lengths
//! as LEB128. No headers are no bytes (NULL).

use bytes::Bytes;

use crate::record::Header;

/// One column of bytes.
pub(crate) fn encode(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let size = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut bytes = Vec::with_capacity(size);
    for (name, value) in headers {
        put(&mut bytes, name.as_bytes());
        put(&mut bytes, value);
    }
    Some(bytes)
}

/// The headers again; `None` when the bytes are not what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let name = take(&mut rest)?;
        let value = take(&mut rest)?;
        headers.push((String::from_utf8(name.to_vec()).ok()?, Bytes::copy_from_slice(value)));
    }
    Some(headers)
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let mut length = part.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0usize;
    // Five groups of seven bits hold any length below 2^35: more than SQLite keeps in a column.
    for shift in [0, 7, 14, 21, 28] {
        let (first, tail) = rest.split_first()?;
        *rest = tail;
        length |= usize::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            let (part, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            return Some(part);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn come_back_as_they_went(
            headers in prop::collection::vec((".{0,40}", prop::collection::vec(any::<u8>(), 0..300)), 0..6)
        ) {
            let headers: Vec<Header> = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
            let decoded = encode(&headers).map_or_else(|| Some(Vec::new()), |bytes| decode(&bytes));
            prop_assert_eq!(decoded, Some(headers));
        }

        #[test]
        fn damaged_bytes_are_refused_not_trusted(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(headers) = decode(&bytes) {
                prop_assert!(headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}
