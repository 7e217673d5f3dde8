//! From photos to faces: found and cut as the fleet does it, with their surroundings, and kept in one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use forensics::{CROP_SIDE, DetectedFace, FaceDetector, Frame, Point};
use indicatif::ProgressBar;
use media::{DecodeLimits, Wide, crop_wide, decode};
use serde::{Deserialize, Serialize};

use crate::forge::{Picture, WideFace};
use crate::similar::Fingerprint;

/// Pixels of surroundings on each side: what rotation, scale and shift of the augmentation reach, but for the last pixels of
/// their extremes, where the edge is repeated.
pub(crate) const BORDER: usize = 64;
/// Side of a face with its surroundings.
pub(crate) const WIDE_SIDE: usize = CROP_SIDE + 2 * BORDER;
const WIDE_BYTES: usize = WIDE_SIDE * WIDE_SIDE * 3;
/// Photos that the detector sees at a time.
const PHOTOS: usize = 8;
/// The smallest face that shows something: below, the crop is mostly interpolation. Side of its box in pixels.
const SIZE_MIN: f32 = 48.0;

/// A face found in a photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Face {
    /// Whose it is: the file's name without its ending.
    pub(crate) identity: String,
    /// The photo.
    pub(crate) path: PathBuf,
    /// In the wide crop.
    pub(crate) landmarks: [[f32; 2]; 5],
    /// The shorter side of its box in the photo, in pixels.
    pub(crate) size: f32,
    /// Perceptual hash of its crop.
    pub(crate) fingerprint: Fingerprint,
}

/// All faces of some photos: what is known of them in memory, their pixels in a file.
pub(crate) struct Faces {
    pub(crate) faces: Vec<Face>,
    pixels: File,
}

/// What became of the photos.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Harvest {
    /// Photos that gave a face.
    pub(crate) used: usize,
    /// Photos without a face that is large enough.
    pub(crate) without_face: Vec<PathBuf>,
    /// Files that are no readable picture, with the reason.
    pub(crate) broken: BTreeMap<PathBuf, String>,
    /// The same picture once more, bit for bit; left out.
    pub(crate) duplicates: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Index {
    format: u32,
    detector: String,
    photos: String,
    faces: Vec<Face>,
    harvest: Harvest,
}

/// Raised when what is kept changes.
const FORMAT: u32 = 2;

/// Every file below the folders, hidden ones left out, in the order of their paths.
pub(crate) fn photos(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders {
        gather(folder, &mut found).with_context(|| format!("{}: cannot be read", folder.display()))?;
    }
    found.sort();
    found.dedup();
    ensure!(!found.is_empty(), "no file in {}; name a folder with photos", list(folders));
    Ok(found)
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

impl Faces {
    /// Finds the faces of `photos`, or reads what an earlier run over the same photos kept in `folder`. `identity` says whose
    /// photo it is. Photos that cannot be used are counted and left out.
    pub(crate) fn find(
        photos: &[PathBuf],
        identity: &dyn Fn(&Path) -> String,
        folder: &Path,
        detector: &mut dyn FaceDetector,
        progress: &ProgressBar,
    ) -> Result<(Self, Harvest)> {
        let (index_path, pixels_path) = (folder.join("faces.json"), folder.join("faces.rgb"));
        let name = detector.name().to_owned();
        let digest = digest_of(photos);
        if let Some(index) = kept(&index_path, &name, &digest) {
            let pixels = File::open(&pixels_path).with_context(|| pixels_path.display().to_string())?;
            if pixels.metadata()?.len() == (index.faces.len() * WIDE_BYTES) as u64 {
                return Ok((Self { faces: index.faces, pixels }, index.harvest));
            }
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file = File::create(&pixels_path).with_context(|| pixels_path.display().to_string())?;
        let mut writer = BufWriter::new(file);
        let (mut faces, mut harvest) = (Vec::new(), Harvest::default());
        let mut seen = std::collections::HashSet::new();
        progress.set_length(photos.len() as u64);
        for chunk in photos.chunks(PHOTOS) {
            let mut frames: Vec<(&PathBuf, Frame)> = Vec::new();
            for path in chunk {
                progress.inc(1);
                match read(path) {
                    Err(why) => drop(harvest.broken.insert(path.clone(), why)),
                    Ok((digest, _)) if !seen.insert(digest) => harvest.duplicates.push(path.clone()),
                    Ok((_, frame)) => frames.push((path, frame)),
                }
            }
            let only: Vec<&Frame> = frames.iter().map(|(_, frame)| frame).collect();
            let found = detector.detect(&only).map_err(|error| anyhow::anyhow!("face detector: {error}"))?;
            for ((path, frame), found) in frames.iter().zip(found) {
                let wide = largest(found).and_then(|face| {
                    crop_wide(frame, &face.landmarks, BORDER).map(|wide| (face.size(), wide))
                });
                let Some((size, Wide { pixels, landmarks })) = wide else {
                    harvest.without_face.push((*path).clone());
                    continue;
                };
                writer.write_all(&pixels).with_context(|| pixels_path.display().to_string())?;
                faces.push(Face {
                    identity: identity(path),
                    path: (*path).clone(),
                    landmarks: landmarks.map(|point| [point.x, point.y]),
                    size,
                    fingerprint: Fingerprint::of(&Picture::from_rgb(WIDE_SIDE, WIDE_SIDE, &pixels).middle()),
                });
            }
        }
        progress.finish_and_clear();
        harvest.used = faces.len();
        let file = writer.into_inner().map_err(|error| error.into_error());
        file.and_then(|file| file.sync_all()).with_context(|| pixels_path.display().to_string())?;
        let index = Index { format: FORMAT, detector: name, photos: digest, faces, harvest };
        write_whole(&index_path, serde_json::to_string(&index)?.as_bytes())?;
        let pixels = File::open(&pixels_path).with_context(|| pixels_path.display().to_string())?;
        Ok((Self { faces: index.faces, pixels }, index.harvest))
    }

    /// Reads a face's pixels.
    pub(crate) fn wide(&self, index: usize) -> Result<WideFace> {
        let mut rgb = vec![0; WIDE_BYTES];
        self.pixels.read_exact_at(&mut rgb, (index * WIDE_BYTES) as u64).context("faces.rgb: cut off")?;
        let landmarks = self.faces[index].landmarks.map(|[x, y]| Point { x, y });
        Ok(WideFace { picture: Picture::from_rgb(WIDE_SIDE, WIDE_SIDE, &rgb), landmarks })
    }
}

/// The largest face of a photo with the whole photo around it.
pub(crate) fn whole(photo: &Path, detector: &mut dyn FaceDetector) -> Result<WideFace> {
    let shown = photo.display();
    let (_, frame) = read(photo).map_err(|why| anyhow::anyhow!("{shown}: {why}"))?;
    let found = detector.detect(&[&frame]).map_err(|error| anyhow::anyhow!("face detector: {error}"))?;
    let face =
        found.into_iter().next().and_then(largest).with_context(|| {
            format!("{shown}: no face of {SIZE_MIN} px or more; name a photo that shows one")
        })?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    Ok(WideFace { picture: Picture::from_rgb(width, height, frame.rgb()), landmarks: face.landmarks })
}

fn largest(found: Vec<DetectedFace>) -> Option<DetectedFace> {
    let largest = found.into_iter().max_by(|a, b| a.size().total_cmp(&b.size()));
    largest.filter(|face| face.size() >= SIZE_MIN)
}

/// The file's name without its ending.
pub(crate) fn identity_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A photo's digest and pixels, or why there are none.
fn read(path: &Path) -> Result<([u8; 32], Frame), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let frame = decode(&bytes, &DecodeLimits::default()).map_err(|error| error.to_string())?;
    Ok((sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&bytes)).into(), frame))
}

/// Changes when a photo is added, taken away, or written anew.
fn digest_of(photos: &[PathBuf]) -> String {
    let mut hash = <sha2::Sha256 as sha2::Digest>::new();
    for path in photos {
        // Who cannot be read is told so later, by name.
        let facts = std::fs::metadata(path).ok();
        let size = facts.as_ref().map(std::fs::Metadata::len);
        let changed = facts.and_then(|facts| facts.modified().ok());
        let line = format!("{} {size:?} {changed:?}\n", path.display());
        sha2::Digest::update(&mut hash, line);
    }
    hex::encode(sha2::Digest::finalize(hash))
}

fn kept(path: &Path, detector: &str, photos: &str) -> Option<Index> {
    let index: Index = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (index.format == FORMAT && index.detector == detector && index.photos == photos).then_some(index)
}

/// Written beside and renamed: there is the old file or the new one, never half of one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&beside, path)).with_context(|| path.display().to_string())
}

impl Harvest {
    /// What was left out, for people.
    pub(crate) fn report(&self) -> Vec<String> {
        let mut lines = vec![format!("{} faces", self.used)];
        let few = |paths: &mut dyn Iterator<Item = String>| paths.take(5).collect::<Vec<_>>().join(", ");
        if !self.without_face.is_empty() {
            let some = few(&mut self.without_face.iter().map(|path| path.display().to_string()));
            lines.push(format!(
                "{} photos without a face of {SIZE_MIN} px or more: {some}",
                self.without_face.len()
            ));
        }
        if !self.duplicates.is_empty() {
            let some = few(&mut self.duplicates.iter().map(|path| path.display().to_string()));
            lines.push(format!("{} copies of another file: {some}", self.duplicates.len()));
        }
        if !self.broken.is_empty() {
            let some = few(&mut self.broken.iter().map(|(path, why)| format!("{} ({why})", path.display())));
            lines.push(format!("{} unreadable files: {some}", self.broken.len()));
        }
        lines
    }

    /// Fails if there is nothing to work with.
    pub(crate) fn at_least(&self, faces: usize) -> Result<()> {
        if self.used < faces {
            bail!("{}; {faces} faces are needed at least", self.report().join("; "));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::forge::tests::face;

    /// Painted faces of as many people. The file lives as long as it is open.
    pub(crate) fn painted(people: usize) -> Faces {
        let mut pixels = tempfile::tempfile().unwrap();
        let mut faces = Vec::new();
        for person in 0..people {
            let wide = face(person as u64);
            pixels.write_all(&wide.picture.to_rgb()).unwrap();
            faces.push(Face {
                identity: format!("person-{person}"),
                path: format!("person-{person}.png").into(),
                landmarks: wide.landmarks.map(|point| [point.x, point.y + person as f32 % 3.0]),
                size: 100.0 + person as f32,
                fingerprint: Fingerprint::of(&wide.picture.middle()),
            });
        }
        Faces { faces, pixels }
    }

    #[test]
    fn files_below_a_folder_come_in_order_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.jpg", "b/a.png", ".hidden"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let found = photos(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found, [folder.path().join("b/a.png"), folder.path().join("c.jpg")]);
        let missing = photos(&[folder.path().join("nowhere")]).unwrap_err();
        assert!(format!("{missing:#}").contains("nowhere"), "{missing:#}");
    }
}
