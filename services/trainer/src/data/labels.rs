//! Manifests of labelled pictures: CSV with a header, or a JSON object in each line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::data::photos::{Naming, Photo, stem};
use crate::measure::samples::AUTHENTIC;

/// What a manifest says of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// [`AUTHENTIC`], or how it was forged: `forged` where the manifest does not say.
    pub(crate) kind: String,
    pub(crate) identity: String,
    pub(crate) group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    path: PathBuf,
    label: String,
    #[serde(default)]
    identity: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    manipulation: String,
}

/// Reads `path, label[, identity, group, manipulation]`. Paths are relative to the manifest; `label` is `authentic` (or
/// `real`, `0`) or `forged` (or `fake`, `1`). `naming` says whose a picture is where the manifest does not. Every line that is
/// wrong is named.
pub(crate) fn read(manifest: &Path, naming: Naming) -> Result<BTreeMap<PathBuf, Labelled>> {
    let shown = manifest.display();
    let text = std::fs::read_to_string(manifest).with_context(|| shown.to_string())?;
    let rows: Vec<Result<Row>> = if text.trim_start().starts_with('{') {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str(line).context("no such object")).collect()
    } else {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        reader.deserialize().map(|row| row.context("no such row")).collect()
    };
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
    for (index, row) in rows.into_iter().enumerate() {
        match row.and_then(|row| labelled(row, folder, naming)) {
            Ok((path, labelled)) => drop(found.insert(path, labelled)),
            Err(error) => wrong.push(format!("entry {}: {error:#}", index + 1)),
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(5);
        wrong.truncate(5);
        bail!(
            "{shown}: {}{}",
            wrong.join("; "),
            if more > 0 { format!("; and {more} more") } else { String::new() }
        );
    }
    ensure!(
        !found.is_empty(),
        "{shown}: no entry; the columns are path, label, identity, group, manipulation"
    );
    Ok(found)
}

/// The pictures of a manifest, in the order of their paths.
pub(crate) fn photos(labels: &BTreeMap<PathBuf, Labelled>) -> Vec<Photo> {
    let photo =
        |(path, label): (&PathBuf, &Labelled)| Photo { path: path.clone(), identity: label.identity.clone() };
    labels.iter().map(photo).collect()
}

fn labelled(row: Row, folder: &Path, naming: Naming) -> Result<(PathBuf, Labelled)> {
    let kind = match &*row.label.to_ascii_lowercase() {
        "authentic" | "real" | "0" => AUTHENTIC.to_owned(),
        "forged" | "fake" | "1" if row.manipulation.is_empty() || row.manipulation == AUTHENTIC => {
            "forged".to_owned()
        }
        "forged" | "fake" | "1" => row.manipulation,
        other => bail!("label {other:?} is neither authentic nor forged"),
    };
    let path = folder.join(row.path);
    let otherwise = |given: String, or: String| if given.is_empty() { or } else { given };
    let labelled = Labelled {
        kind,
        identity: otherwise(row.identity, naming.identity(&path)),
        group: otherwise(row.group, stem(&path)),
    };
    Ok((path, labelled))
}

impl Labelled {
    /// A photo that no manifest speaks of.
    pub(crate) fn authentic(photo: &Photo) -> Self {
        Self { kind: AUTHENTIC.to_owned(), identity: photo.identity.clone(), group: stem(&photo.path) }
    }

    pub(crate) fn is_forged(&self) -> bool {
        self.kind != AUTHENTIC
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> Result<BTreeMap<PathBuf, Labelled>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let found = read(&path, Naming::File)?;
        Ok(found
            .into_iter()
            .map(|(path, label)| (path.strip_prefix(folder.path()).unwrap().to_owned(), label))
            .collect())
    }

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let csv = "path,label,identity,group,manipulation\na.png, real, ada, v1,\nb.png,forged,ada,v2,swap\n";
        let json = "{\"path\":\"a.png\",\"label\":\"0\",\"identity\":\"ada\",\"group\":\"v1\"}\n\n\
                    {\"path\":\"b.png\",\"label\":\"fake\",\"identity\":\"ada\",\"group\":\"v2\",\"manipulation\":\"swap\"}\n";
        let found = written("m.csv", csv).unwrap();
        assert_eq!(found, written("m.jsonl", json).unwrap());
        assert_eq!(found[Path::new("a.png")].kind, AUTHENTIC);
        assert_eq!(found[Path::new("b.png")].kind, "swap");
        let short = written("m.csv", "path,label\nx/c.png,1\n").unwrap();
        let expected = Labelled { kind: "forged".into(), identity: "c".into(), group: "c".into() };
        assert_eq!(short[Path::new("x/c.png")], expected);
    }

    #[test]
    fn wrong_entries_are_named() {
        let error = written("m.csv", "path,label\na.png,real\nb.png,maybe\n").unwrap_err().to_string();
        assert!(error.contains("entry 2") && error.contains("maybe"), "{error}");
        assert!(written("m.csv", "path,label\n").is_err());
        assert!(written("m.csv", "file,label\na,real\n").is_err());
    }
}
