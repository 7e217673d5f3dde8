//! Keys to paths and back.
//!
//! A key is any text up to 1,024 bytes; a file name is at most 255 bytes without `/`, and a name is either a
//! file or a folder. So each component of a key becomes a folder, the last one a file, and what kind of
//! thing it is stands at the end of its name: `a` is `a.o`, `a/b` is `a.d/b.o`. Bytes outside a plain
//! alphabet are written `%XX`. A component of [`CHUNK`] bytes or more continues in a folder `….c`.
//!
//! Walking the folders in the order of [`Entry::sort_key`] visits keys in the byte order that S3 lists them
//! in: everything below a folder shares that folder's sort key as its prefix, and nothing else does.

use std::path::{Path, PathBuf};

/// Longest piece of a component in one name: three times 80 and a suffix fit into 255 bytes.
const CHUNK: usize = 80;

/// S3's own limit.
const KEY_BYTES_MAX: usize = 1024;

/// Checks a key before it comes near a path: nothing absolute, no `..`, no control characters.
pub(super) fn check(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("the key is empty");
    }
    if key.len() > KEY_BYTES_MAX {
        return Err("the key is longer than 1024 bytes");
    }
    if key.starts_with('/') {
        return Err("the key is absolute");
    }
    if key.split('/').any(|component| component == "..") {
        return Err("the key has a component `..`");
    }
    if key.chars().any(char::is_control) {
        return Err("the key has a control character");
    }
    Ok(())
}

/// Where the object `key` lies below `bucket`. The key has passed [`check`].
pub(super) fn path(bucket: &Path, key: &str) -> PathBuf {
    let mut relative = String::with_capacity(key.len() + 16);
    let mut components = key.split('/').peekable();
    while let Some(component) = components.next() {
        let mut rest = component.as_bytes();
        while rest.len() >= CHUNK {
            let (chunk, more) = rest.split_at(CHUNK);
            encode(chunk, &mut relative);
            relative.push_str(".c/");
            rest = more;
        }
        encode(rest, &mut relative);
        relative.push_str(if components.peek().is_some() { ".d/" } else { ".o" });
    }
    bucket.join(relative)
}

/// One name in a folder of a bucket.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The bytes that the keys behind this name begin with (a folder) or are (an object), after the
    /// folder's own.
    pub(super) sort_key: Vec<u8>,
    /// Whether the name is an object.
    pub(super) is_object: bool,
}

/// Reads a name back; `None` for names that are not ours.
pub(super) fn entry(name: &str) -> Option<Entry> {
    let (stem, kind) = name.split_at_checked(name.len().checked_sub(2)?)?;
    let mut sort_key = decode(stem)?;
    match kind {
        ".o" => Some(Entry { sort_key, is_object: true }),
        ".c" => Some(Entry { sort_key, is_object: false }),
        ".d" => {
            sort_key.push(b'/');
            Some(Entry { sort_key, is_object: false })
        }
        _ => None,
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-=+@,~".contains(&byte)
}

fn encode(bytes: &[u8], into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if is_plain(byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            bytes.push(byte);
            rest = more;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a whole path back into a key.
    fn key(path: &Path) -> Vec<u8> {
        let names = path.iter().map(|name| name.to_str().unwrap());
        names.flat_map(|name| entry(name).unwrap().sort_key).collect()
    }

    fn keys() -> impl Strategy<Value = String> {
        let component = prop_oneof![
            "[a-c.%~ -]{0,4}",
            "[a-z]{78,82}".prop_map(|text| text),
            proptest::collection::vec(any::<char>(), 0..90).prop_map(|chars| chars.into_iter().collect()),
        ];
        proptest::collection::vec(component, 1..6).prop_map(|components| components.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_path_reads_back_and_stays_below_the_bucket(key_text in keys()) {
            prop_assume!(check(&key_text).is_ok());
            let path = path(Path::new(""), &key_text);
            prop_assert_eq!(key(&path), key_text.as_bytes());
            prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            prop_assert!(path.iter().all(|name| name.len() <= 255));
        }

        #[test]
        fn walking_in_sort_order_is_byte_order(texts in proptest::collection::btree_set(keys(), 1..20)) {
            // Names along the way, each with its kind, compare as the keys do.
            let texts: Vec<_> = texts.into_iter().filter(|text| check(text).is_ok()).collect();
            let walked = {
                let mut all: Vec<_> = texts.iter().map(|text| {
                    let path = path(Path::new(""), text);
                    let names: Vec<_> = path.iter().map(|name| entry(name.to_str().unwrap()).unwrap()).collect();
                    (names, text.clone())
                }).collect();
                all.sort();
                all.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
            };
            prop_assert_eq!(walked, texts);
        }
    }

    #[test]
    fn a_prefix_of_another_key_has_its_own_place() {
        let bucket = Path::new("b");
        assert_eq!(path(bucket, "a"), Path::new("b/a.o"));
        assert_eq!(path(bucket, "a/b c"), Path::new("b/a.d/b%20c.o"));
        assert_eq!(path(bucket, "a.d/b"), Path::new("b/a.d.d/b.o"));
        assert_eq!(path(bucket, "a//"), Path::new("b/a.d/.d/.o"));
        let long = "x".repeat(CHUNK);
        assert_eq!(path(bucket, &long), Path::new("b").join(format!("{long}.c/.o")));
    }

    #[test]
    fn the_worst_key_fits_a_path() {
        for key in ["ä".repeat(512), "?/".repeat(511), "x".repeat(1024)] {
            assert_eq!(check(&key), Ok(()));
            assert!(path(Path::new(""), &key).as_os_str().len() < 3_200, "PATH_MAX is 4,096");
        }
    }

    #[test]
    fn what_is_refused() {
        for key in ["", "/etc/passwd", "..", "a/../b", "a/..", "a\nb", "a\0b", "\u{85}", &"x".repeat(1025)] {
            assert!(check(key).is_err(), "{key:?}");
        }
        for key in ["a..b", "...", "a/./b", "a//b", "folder/", "%2e%2e/x"] {
            assert_eq!(check(key), Ok(()), "{key:?}");
        }
    }
}
