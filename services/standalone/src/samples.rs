//! What the demo judges: three pictures, forgeries of the first, two files made on the spot; or a folder of the user's own.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ops::{Exit, ExitReason};

/// A file to be judged.
pub(crate) struct Sample {
    pub(crate) name: String,
    content: Content,
}

enum Content {
    /// Read when it is its turn: a user's folder may be larger than memory.
    File(PathBuf),
    Made(Vec<u8>),
}

impl Sample {
    /// The file's bytes.
    pub(crate) async fn bytes(&self) -> Result<Bytes, Exit> {
        match &self.content {
            Content::Made(bytes) => Ok(Bytes::from(bytes.clone())),
            Content::File(path) => match tokio::fs::read(path).await {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(unusable(path, &error)),
            },
        }
    }
}

/// From the scikit-image wheel: a face, a cat, a cup.
const PICTURES: [&str; 3] = ["astronaut.png", "chelsea.png", "coffee.png"];

/// In the samples' folder: what `touchstone-train forge` made of the first picture.
const FORGED: &str = "forged";

/// The published pictures, the forgeries, the first picture cut off in the middle, and a text that calls itself a picture.
pub(crate) fn published(folder: &Path) -> Result<Vec<Sample>, Exit> {
    let mut samples = Vec::new();
    for name in PICTURES {
        samples.push(made(name, read(&folder.join(name))?));
    }
    samples.extend(own(&folder.join(FORGED))?);
    let mut cut = read(&folder.join(PICTURES[0]))?;
    cut.truncate(cut.len() / 2);
    samples.push(made("truncated.png", cut));
    samples.push(made("no-picture.jpg", b"Not a picture, whatever its name says.\n".to_vec()));
    Ok(samples)
}

/// Every file of a folder but hidden ones, by name; what is no picture gets a verdict that says so.
pub(crate) fn own(folder: &Path) -> Result<Vec<Sample>, Exit> {
    let unreadable = |error| unusable(folder, &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        let why = format!("{}: no file in it; name a folder with pictures", folder.display());
        return Err(ExitReason::Config.because(why));
    }
    let sample = |name: String| Sample { content: Content::File(folder.join(&name)), name };
    Ok(names.into_iter().map(sample).collect())
}

fn made(name: &str, bytes: Vec<u8>) -> Sample {
    Sample { name: name.to_owned(), content: Content::Made(bytes) }
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    std::fs::read(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &std::io::Error) -> Exit {
    let next = "`make demo` brings the samples; --media DIR takes your own";
    ExitReason::Config.because(format_args!("{}: {error} ({next})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn own_files_come_by_name_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(own(folder.path()).err().unwrap().reason, ExitReason::Config);
        for name in ["b.jpg", "a.png", ".DS_Store"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let samples = own(folder.path()).unwrap();
        assert_eq!(samples.len(), 2);
        for (sample, name) in samples.iter().zip(["a.png", "b.jpg"]) {
            assert_eq!((&*sample.name, &*sample.bytes().await.unwrap()), (name, name.as_bytes()));
        }
        std::fs::remove_file(folder.path().join("a.png")).unwrap();
        assert!(samples[0].bytes().await.unwrap_err().why.contains("a.png"));
    }

    #[tokio::test]
    async fn the_samples_hold_forgeries_a_cut_file_and_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        for name in PICTURES {
            std::fs::write(folder.path().join(name), "0123456789").unwrap();
        }
        assert!(published(folder.path()).err().unwrap().why.contains("make demo"));
        std::fs::create_dir(folder.path().join(FORGED)).unwrap();
        std::fs::write(folder.path().join(FORGED).join("astronaut-swapped.png"), "forged").unwrap();
        let samples = published(folder.path()).unwrap();
        let names: Vec<_> = samples.iter().map(|sample| &*sample.name).collect();
        let [first, second, third] = PICTURES;
        assert_eq!(names, [first, second, third, "astronaut-swapped.png", "truncated.png", "no-picture.jpg"]);
        assert_eq!(&*samples[4].bytes().await.unwrap(), b"01234");
        std::fs::remove_file(folder.path().join(PICTURES[1])).unwrap();
        assert!(published(folder.path()).err().unwrap().why.contains("make demo"));
    }
}
