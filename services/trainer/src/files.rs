//! Files and folders that are whole or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Written beside and renamed: there is the old file or the new one, never half of one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).with_context(|| path.display().to_string())
}

/// The folder `out`, filled beside and renamed: a bundle without its split would be tested on whom it learned from. What
/// an earlier attempt left beside is removed.
pub(crate) fn fill_whole<T>(out: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    must_be_new(out)?;
    let new = with_ending(out, ".new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| new.display().to_string())?;
    }
    let filled = fill(&new)?;
    fs::rename(&new, out).with_context(|| out.display().to_string())?;
    Ok(filled)
}

/// Fails if there is something already.
pub(crate) fn must_be_new(out: &Path) -> Result<()> {
    ensure!(
        !out.exists(),
        "{} exists already, and a bundle is never written over: move it away, or name another --out",
        out.display()
    );
    Ok(())
}

/// The path with something added to its name, whether or not it ends with a slash.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_when_it_is_filled_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        // As a shell completes it.
        let out = folder.path().join("bundle/");
        let fill = |words: &'static str| {
            move |new: &Path| {
                fs::create_dir(new)?;
                write_whole(&new.join("a.txt"), words.as_bytes())
            }
        };
        let failed: Result<()> = fill_whole(&out, |new| {
            fill("half")(new)?;
            anyhow::bail!("a stop")
        });
        assert!(failed.is_err() && !out.exists());
        fill_whole(&out, fill("whole")).unwrap();
        assert_eq!(fs::read_to_string(out.join("a.txt")).unwrap(), "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
        let again = fill_whole(&out, fill("again")).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
    }
}
