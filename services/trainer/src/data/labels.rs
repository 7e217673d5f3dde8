//! Manifests of labelled pictures: CSV with a header, or a JSON object in each line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::data::photos::{self, Naming, Photo};

/// What a manifest says of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// [`AUTHENTIC`], or how it was forged: [`FORGED`] where nobody says.
    pub(crate) kind: String,
    pub(crate) identity: String,
    /// The medium that it is of; its own path where nobody says.
    pub(crate) group: String,
}

/// The kind of what nobody forged.
pub(crate) const AUTHENTIC: &str = "authentic";
/// Nobody says how.
const FORGED: &str = "forged";

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

/// What two folders say, `real` and `forged`, if `folder` has them: a folder in `forged` names how the pictures in it were
/// forged.
pub(crate) fn of_folders(folder: &Path, naming: Naming) -> Result<Option<BTreeMap<PathBuf, Labelled>>> {
    let [real, forged] = ["real", "forged"].map(|name| folder.join(name));
    if !real.is_dir() || !forged.is_dir() {
        return Ok(None);
    }
    let authentic = photos::photos(&[real], naming)?.into_iter().map(|photo| (photo, AUTHENTIC.to_owned()));
    let manipulated = photos::photos(std::slice::from_ref(&forged), naming)?.into_iter().map(|photo| {
        let mut below = photo.path.strip_prefix(&forged).unwrap_or(&photo.path).components();
        let first = below.next().map(|first| first.as_os_str().to_string_lossy().into_owned());
        let kind = first.filter(|first| below.next().is_some() && first != AUTHENTIC);
        (photo, kind.unwrap_or_else(|| FORGED.to_owned()))
    });
    let labelled = authentic.chain(manipulated).map(|(Photo { path, identity }, kind)| {
        let group = path.display().to_string();
        (path, Labelled { kind, identity, group })
    });
    Ok(Some(labelled.collect()))
}

/// Reads `path, label[, identity, group, manipulation]`. Paths are relative to the manifest; `label` is `authentic` (or
/// `real`, `0`) or `forged` (or `fake`, `1`). `naming` says whose a picture is where the manifest does not. Every line that is
/// wrong is named.
pub(crate) fn read(manifest: &Path, naming: Naming) -> Result<BTreeMap<PathBuf, Labelled>> {
    let shown = manifest.display();
    let text = std::fs::read_to_string(manifest).with_context(|| {
        format!("{shown}: a manifest is a text of CSV or of JSON lines; of photos the folder is named")
    })?;
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
            FORGED.to_owned()
        }
        "forged" | "fake" | "1" => row.manipulation,
        other => bail!("label {other:?} is neither authentic nor forged"),
    };
    ensure!(
        !row.path.starts_with("s3:"),
        "{}: pictures are read from files here; download them and name those",
        row.path.display()
    );
    let medium = row.path.display().to_string();
    let path = folder.join(row.path);
    let otherwise = |given: String, or: String| if given.is_empty() { or } else { given };
    let labelled = Labelled {
        kind,
        identity: otherwise(row.identity, naming.identity(&path)),
        group: otherwise(row.group, medium),
    };
    Ok((path, labelled))
}

impl Labelled {
    /// A photo that no manifest speaks of.
    pub(crate) fn authentic(photo: &Photo) -> Self {
        let group = photo.path.display().to_string();
        Self { kind: AUTHENTIC.to_owned(), identity: photo.identity.clone(), group }
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
        let expected = Labelled { kind: "forged".into(), identity: "c".into(), group: "x/c.png".into() };
        assert_eq!(short[Path::new("x/c.png")], expected);
    }

    #[test]
    fn two_folders_say_what_a_manifest_would() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_folders(folder.path(), Naming::File).unwrap(), None);
        for path in ["real/ada/1.png", "forged/swap/1.png", "forged/2.png"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = of_folders(folder.path(), Naming::Folder).unwrap().expect("both are there");
        let kinds: Vec<(&str, &str)> = found.values().map(|label| (&*label.kind, &*label.identity)).collect();
        assert_eq!(kinds, [("forged", "forged"), ("swap", "swap"), (AUTHENTIC, "ada")]);
    }

    #[test]
    fn wrong_entries_are_named() {
        let error = written("m.csv", "path,label\ns3://media/a.png,real\n").unwrap_err().to_string();
        assert!(error.contains("download them"), "{error}");
        let error = written("m.csv", "path,label\na.png,real\nb.png,maybe\n").unwrap_err().to_string();
        assert!(error.contains("entry 2") && error.contains("maybe"), "{error}");
        assert!(written("m.csv", "path,label\n").is_err());
        assert!(written("m.csv", "file,label\na,real\n").is_err());
    }
}
