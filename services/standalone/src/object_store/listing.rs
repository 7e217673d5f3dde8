//! Listing: a walk of the bucket's folders in key order that stops when the page is full.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::blob::{Blob, Metadata};
use super::disk::{Disk, StoreError};
use super::keys;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// Behind this key.
    Key(String),
    /// Behind every key that begins so: a common prefix ended the last page.
    Prefix(String),
}

impl After {
    /// The token that a client hands back, opaque to it.
    pub(super) fn to_token(&self) -> String {
        let text = match self {
            After::Key(key) => format!("k{key}"),
            After::Prefix(prefix) => format!("p{prefix}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    pub(super) fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (kind, rest) = text.split_at_checked(1)?;
        match kind {
            "k" => Some(After::Key(rest.to_string())),
            "p" => Some(After::Prefix(rest.to_string())),
            _ => None,
        }
    }

    fn passed(&self, key: &[u8]) -> bool {
        match self {
            After::Key(last) => key <= last.as_bytes(),
            After::Prefix(last) => key < last.as_bytes() || key.starts_with(last.as_bytes()),
        }
    }

    /// Whether every key that begins with `base` has been passed.
    fn passed_all(&self, base: &[u8]) -> bool {
        match self {
            After::Key(last) => base < last.as_bytes() && !last.as_bytes().starts_with(base),
            After::Prefix(last) => {
                base.starts_with(last.as_bytes())
                    || (base < last.as_bytes() && !last.as_bytes().starts_with(base))
            }
        }
    }
}

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) after: Option<After>,
    pub(super) items_max: usize,
}

/// One line of a page.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    Object { key: String, metadata: Metadata, length: u64 },
    CommonPrefix(String),
}

/// One page, and where the next begins.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    pub(super) next: Option<After>,
}

impl Disk {
    pub(super) fn list(&self, bucket: &str, query: &Query) -> Result<Page, StoreError> {
        let folder = self.require_bucket(bucket)?;
        if query.items_max == 0 {
            return Ok(Page::default());
        }
        let mut walk = Walk { query, found: Vec::new() };
        if let ControlFlow::Break(Err(error)) = walk.folder(&folder, &mut Vec::new()) {
            return Err(error.into());
        }
        let mut found = walk.found;
        let more = found.len() > query.items_max;
        found.truncate(query.items_max);
        let next = found.last().filter(|_| more).map(|last| match last {
            Found::Object(key, _) => After::Key(key.clone()),
            Found::CommonPrefix(prefix) => After::Prefix(prefix.clone()),
        });
        let mut items = Vec::with_capacity(found.len());
        for found in found {
            items.extend(found.describe()?);
        }
        Ok(Page { items, next })
    }
}

enum Found {
    Object(String, PathBuf),
    CommonPrefix(String),
}

impl Found {
    /// `None` for an object that was deleted since the walk saw its name.
    fn describe(self) -> io::Result<Option<Item>> {
        match self {
            Found::CommonPrefix(prefix) => Ok(Some(Item::CommonPrefix(prefix))),
            Found::Object(key, path) => match Blob::inspect(&path) {
                Ok((metadata, length)) => Ok(Some(Item::Object { key, metadata, length })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

struct Walk<'a> {
    query: &'a Query,
    found: Vec<Found>,
}

/// Breaks with `Ok` when the page (and one item more) is full.
type Step = ControlFlow<io::Result<()>>;

impl Walk<'_> {
    /// Walks one folder, whose keys all begin with `base`.
    fn folder(&mut self, folder: &Path, base: &mut Vec<u8>) -> Step {
        let entries = match self.entries(folder, base) {
            Ok(entries) => entries,
            // Swept away by a delete: nothing in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return ControlFlow::Continue(()),
            Err(error) => return ControlFlow::Break(Err(error)),
        };
        let base_length = base.len();
        for (entry, name) in entries {
            base.truncate(base_length);
            base.extend_from_slice(&entry.sort_key);
            if self.is_rolled_up(base) {
                continue;
            }
            if entry.is_object {
                self.object(base, folder.join(name))?;
            } else {
                self.folder(&folder.join(name), base)?;
            }
        }
        base.truncate(base_length);
        ControlFlow::Continue(())
    }

    /// The names in a folder that can matter, in key order.
    fn entries(&self, folder: &Path, base: &[u8]) -> io::Result<Vec<(keys::Entry, String)>> {
        let mut entries = Vec::new();
        let mut key = base.to_vec();
        for name in fs::read_dir(folder)? {
            let Ok(name) = name?.file_name().into_string() else { continue };
            let Some(entry) = keys::entry(&name) else { continue };
            key.truncate(base.len());
            key.extend_from_slice(&entry.sort_key);
            if self.can_matter(&key, entry.is_object) {
                entries.push((entry, name));
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn can_matter(&self, key: &[u8], is_object: bool) -> bool {
        let prefix = self.query.prefix.as_bytes();
        let after = self.query.after.as_ref();
        if is_object {
            key.starts_with(prefix) && !after.is_some_and(|after| after.passed(key))
        } else {
            let meets_prefix = key.starts_with(prefix) || prefix.starts_with(key);
            meets_prefix && !after.is_some_and(|after| after.passed_all(key))
        }
    }

    /// Whether `key` stands for nothing but the common prefix found last.
    fn is_rolled_up(&self, key: &[u8]) -> bool {
        matches!(self.found.last(), Some(Found::CommonPrefix(prefix)) if key.starts_with(prefix.as_bytes()))
    }

    fn object(&mut self, key: &[u8], path: PathBuf) -> Step {
        let Ok(key) = std::str::from_utf8(key) else { return ControlFlow::Continue(()) };
        let found = match self.common_prefix(key) {
            Some(prefix) => Found::CommonPrefix(prefix.to_string()),
            None => Found::Object(key.to_string(), path),
        };
        self.found.push(found);
        if self.found.len() > self.query.items_max {
            ControlFlow::Break(Ok(()))
        } else {
            ControlFlow::Continue(())
        }
    }

    fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty())?;
        let start = self.query.prefix.len();
        let at = key[start..].find(delimiter)?;
        Some(&key[..start + at + delimiter.len()])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use s3s::checksum::ChecksumHasher;

    use super::super::blob::Headers;
    use super::super::conditions::Conditions;
    use super::*;

    fn put(disk: &Disk, key: &str) {
        let (incoming, _) = disk
            .writer(ChecksumHasher::default())
            .unwrap()
            .end()
            .seal("e".into(), Headers::default())
            .unwrap();
        disk.place(incoming, "bucket", key, &Conditions::default()).unwrap();
    }

    /// What S3 documents, over a sorted set: the model that the walk must agree with.
    fn model(keys: &BTreeSet<String>, query: &Query) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for key in keys {
            let passed = query.after.as_ref().is_some_and(|after| after.passed(key.as_bytes()));
            let Some(rest) = key.strip_prefix(query.prefix.as_str()).filter(|_| !passed) else { continue };
            let delimiter = query.delimiter.as_deref();
            let rolled = delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
            let line = rolled.map_or(key.clone(), |end| format!("{}*", &key[..query.prefix.len() + end]));
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        lines
    }

    fn line(item: &Item) -> String {
        match item {
            Item::Object { key, .. } => key.clone(),
            Item::CommonPrefix(prefix) => format!("{prefix}*"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn pages_joined_are_the_whole_list(
            keys in proptest::collection::btree_set("[ab./-]{1,6}|[a]{79,82}[b/]?", 0..14),
            prefix in "[ab/]{0,2}",
            delimiter in proptest::option::of(prop_oneof![Just("/".to_string()), Just("b".to_string()), Just("a/".to_string())]),
            after in proptest::option::of("[ab./-]{1,4}"),
            items_max in 1_usize..6,
        ) {
            let keys: BTreeSet<String> = keys.into_iter().filter(|key| keys::check(key).is_ok()).collect();
            let folder = tempfile::tempdir().unwrap();
            let disk = Disk::open(folder.path()).unwrap();
            disk.create_bucket("bucket").unwrap();
            keys.iter().for_each(|key| put(&disk, key));

            let mut query = Query { prefix, delimiter, after: after.map(After::Key), items_max };
            let expected = model(&keys, &query);
            let mut lines = Vec::new();
            loop {
                let page = disk.list("bucket", &query).unwrap();
                prop_assert!(page.items.len() <= items_max);
                lines.extend(page.items.iter().map(line));
                let Some(next) = page.next else { break };
                query.after = After::from_token(&next.to_token());
                prop_assert!(query.after.is_some());
            }
            prop_assert_eq!(lines, expected);
        }
    }
}
