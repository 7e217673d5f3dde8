//! What the demo judges: three pictures, two files made on the spot, or a folder of the user's own.

use std::path::Path;

use ops::{Exit, ExitReason};

/// A file to be judged.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// From the scikit-image wheel: a face, a cat, a cup.
const PICTURES: [&str; 3] = ["astronaut.png", "chelsea.png", "coffee.png"];

/// The published pictures, the first of them cut off in the middle, and a text that calls itself a picture.
pub(crate) fn published(folder: &Path) -> Result<Vec<Sample>, Exit> {
    let mut samples = Vec::new();
    for name in PICTURES {
        samples.push(read(&folder.join(name), name)?);
    }
    let cut = samples[0].bytes[..samples[0].bytes.len() / 2].to_vec();
    samples.push(Sample { name: "truncated.png".to_owned(), bytes: cut });
    let text = b"Not a picture, whatever its name says.\n".to_vec();
    samples.push(Sample { name: "no-picture.jpg".to_owned(), bytes: text });
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
    names.iter().map(|name| read(&folder.join(name), name)).collect()
}

fn read(path: &Path, name: &str) -> Result<Sample, Exit> {
    let bytes = std::fs::read(path).map_err(|error| unusable(path, &error))?;
    Ok(Sample { name: name.to_owned(), bytes })
}

fn unusable(path: &Path, error: &std::io::Error) -> Exit {
    let next = "`make setup` fetches the samples; --media DIR takes your own";
    ExitReason::Config.because(format_args!("{}: {error} ({next})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_come_by_name_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(own(folder.path()).err().unwrap().reason, ExitReason::Config);
        for name in ["b.jpg", "a.png", ".DS_Store"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let names: Vec<_> = own(folder.path()).unwrap().into_iter().map(|sample| sample.name).collect();
        assert_eq!(names, ["a.png", "b.jpg"]);
    }

    #[test]
    fn the_samples_hold_a_cut_file_and_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        for name in PICTURES {
            std::fs::write(folder.path().join(name), "0123456789").unwrap();
        }
        let samples = published(folder.path()).unwrap();
        assert_eq!(samples.len(), 5);
        assert_eq!(samples[3].bytes, b"01234");
        std::fs::remove_file(folder.path().join(PICTURES[1])).unwrap();
        assert!(published(folder.path()).err().unwrap().why.contains("make setup"));
    }
}
