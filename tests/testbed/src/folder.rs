//! Folders of servers that live as long as the process: a `static` is never dropped, so the next process tidies up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// An empty folder for `name` that outlives every test of this process. Those of processes that are gone are removed.
pub(crate) fn of_this_process(name: &str) -> anyhow::Result<PathBuf> {
    let parent = std::env::temp_dir().join("touchstone-testbed");
    fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
    for entry in fs::read_dir(&parent).with_context(|| parent.display().to_string())?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.rsplit('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            // Another process may be tidying as well.
            let _gone_already = fs::remove_dir_all(entry.path());
        }
    }
    let folder = parent.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
