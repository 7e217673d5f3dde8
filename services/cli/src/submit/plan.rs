//! From what people name to media: which files, which objects.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Status};

/// One media to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Planned {
    /// A local picture.
    File(PathBuf),
    /// A local folder whose pictures are frames; names are relative to the folder.
    Frames { folder: PathBuf, names: Vec<String> },
    /// An object in the store.
    Object { bucket: String, key: String },
    /// A prefix in the store whose pictures are frames.
    Prefix { bucket: String, prefix: String },
}

impl Planned {
    /// Whether something has to be uploaded first.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::File(_) | Self::Frames { .. })
    }
}

/// Media in the order they were named; those of a folder by name.
pub(super) fn plan(what: &[String], as_frames: bool) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    for what in what {
        match what.strip_prefix("s3://") {
            Some(rest) => planned.push(object(what, rest)?),
            None => local(Path::new(what), as_frames, &mut planned)?,
        }
    }
    if planned.is_empty() {
        return Err(Failure::new(Status::NoInput, "no file below what was named")
            .next("name files or folders with pictures"));
    }
    Ok(planned)
}

fn object(uri: &str, rest: &str) -> Result<Planned, Failure> {
    let wrong = |why: &str| {
        Failure::new(Status::Usage, format_args!("{uri}: {why}"))
            .next("name an object, s3://bucket/key, or a prefix with a slash at the end, s3://bucket/folder/")
    };
    let (bucket, key) = rest.split_once('/').ok_or_else(|| wrong("names no object"))?;
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    match key.as_str() {
        _ if bucket.is_empty() => Err(wrong("names no bucket")),
        "" => Err(wrong("names a whole bucket")),
        prefix if prefix.ends_with('/') => Ok(Planned::Prefix { bucket, prefix: key }),
        _ => Ok(Planned::Object { bucket, key }),
    }
}

fn local(path: &Path, as_frames: bool, planned: &mut Vec<Planned>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| {
        let failure = Failure::file(path, &error);
        let next = "name a file, a folder or an s3:// URI";
        if failure.status == Status::NoInput { failure.next(next) } else { failure }
    };
    if path.metadata().map_err(unreadable)?.is_file() {
        planned.push(Planned::File(path.to_owned()));
        return Ok(());
    }
    let mut names = Vec::new();
    walk(path, "", &mut names)?;
    names.sort();
    if !as_frames {
        planned.extend(names.into_iter().map(|name| Planned::File(path.join(name))));
    } else if !names.is_empty() {
        planned.push(Planned::Frames { folder: path.to_owned(), names });
    }
    Ok(())
}

/// Every file below, but for hidden ones; links to folders are not followed, so that there are no circles.
fn walk(root: &Path, below: &str, names: &mut Vec<String>) -> Result<(), Failure> {
    let folder = root.join(below);
    let unreadable = |error: std::io::Error| Failure::file(&folder, &error);
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            let cause = format!("{}: the name is not UTF-8, and keys must be", entry.path().display());
            return Err(Failure::new(Status::Data, cause).next("rename it"));
        };
        if name.starts_with('.') {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            walk(root, &name, names)?;
        } else if entry.path().is_file() {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(what: &[&str], as_frames: bool) -> Result<Vec<Planned>, Failure> {
        plan(&what.iter().map(|what| (*what).to_owned()).collect::<Vec<_>>(), as_frames)
    }

    #[test]
    fn a_uri_is_an_object_or_with_a_slash_a_prefix() {
        let (bucket, key) = ("media".to_owned(), "a/b.jpg".to_owned());
        assert_eq!(names(&["s3://media/a/b.jpg"], false).unwrap(), [Planned::Object { bucket, key }]);
        let (bucket, prefix) = ("media".to_owned(), "a/".to_owned());
        assert_eq!(names(&["s3://media/a/"], false).unwrap(), [Planned::Prefix { bucket, prefix }]);
        for bad in ["s3://media", "s3://media/", "s3:///key"] {
            assert_eq!(names(&[bad], false).unwrap_err().status, Status::Usage, "{bad}");
        }
    }

    #[test]
    fn a_folder_is_many_media_or_the_frames_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        for name in ["b.png", "sub/c.png", "a.png", ".hidden"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("circle")).unwrap();
        let text = root.to_str().unwrap();
        let files = ["a.png", "b.png", "sub/c.png"];
        let expected = files.map(|name| Planned::File(root.join(name)));
        assert_eq!(names(&[text], false).unwrap(), expected);
        let names_of_frames = files.map(str::to_owned).to_vec();
        let expected = [Planned::Frames { folder: root.to_owned(), names: names_of_frames }];
        assert_eq!(names(&[text], true).unwrap(), expected);
    }

    #[test]
    fn what_is_not_there_is_said_before_anything_is_sent() {
        let error = names(&["/nowhere/a.png"], false).unwrap_err();
        assert_eq!(error.status, Status::NoInput);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(names(&[empty.path().to_str().unwrap()], false).unwrap_err().status, Status::NoInput);
    }
}
