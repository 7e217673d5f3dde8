//! Photos and whose they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A photo and the person it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Photo {
    pub(crate) path: PathBuf,
    pub(crate) identity: String,
}

/// Which name tells whose photo it is. One photo a person and one folder a person look alike from outside, so it is said,
/// not guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Naming {
    #[default]
    /// The file's, without its ending: `ada.jpg` shows ada, in whatever folder.
    File,
    /// The folder's that it lies in: `ada/1.jpg` shows ada (as in LFW or VGGFace2).
    Folder,
}

impl Naming {
    /// The person's name.
    pub(crate) fn identity(self, path: &Path) -> String {
        match self {
            Self::File => stem(path),
            Self::Folder => path.parent().map(stem_of_folder).unwrap_or_default(),
        }
    }
}

/// The file's name without its ending.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A folder's name has no ending, whatever dots it has.
fn stem_of_folder(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Every file below the folders, hidden ones left out, in the order of their paths.
pub(crate) fn photos(folders: &[PathBuf], naming: Naming) -> Result<Vec<Photo>> {
    let mut found = Vec::new();
    for folder in folders {
        gather(folder, &mut found).with_context(|| format!("{}: cannot be read", folder.display()))?;
    }
    found.sort();
    found.dedup();
    ensure!(!found.is_empty(), "no file in {}; name a folder with photos", list(folders));
    Ok(found.into_iter().map(|path| Photo { identity: naming.identity(&path), path }).collect())
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder.is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match () {
            () if hidden => {}
            () if path.is_dir() => gather(&path, found)?,
            () => found.push(path),
        }
    }
    Ok(())
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_a_folder_come_in_order_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b.c")).unwrap();
        for name in ["c.jpg", "b.c/a.png", ".hidden"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let named = |naming| -> Vec<(PathBuf, String)> {
            let found = photos(&[folder.path().to_owned()], naming).unwrap();
            found.into_iter().map(|photo| (photo.path, photo.identity)).collect()
        };
        let (first, second) = (folder.path().join("b.c/a.png"), folder.path().join("c.jpg"));
        let above = stem_of_folder(folder.path());
        assert_eq!(named(Naming::File), [(first.clone(), "a".into()), (second.clone(), "c".into())]);
        assert_eq!(named(Naming::Folder), [(first, "b.c".into()), (second, above)]);
        let missing = photos(&[folder.path().join("nowhere")], Naming::File).unwrap_err();
        assert!(format!("{missing:#}").contains("nowhere"), "{missing:#}");
    }
}
