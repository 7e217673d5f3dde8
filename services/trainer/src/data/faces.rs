//! From photos to faces: found and cut as the fleet does it, with their surroundings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail};
use forensics::{DetectedFace, FaceDetector, Frame, Point};
use media::{DecodeLimits, Wide, crop_wide, decode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::near_duplicates::Fingerprint;
use crate::data::people::People;
use crate::data::photos::{Naming, Photo, stem};
use crate::files::write_whole;
use crate::picture::{BORDER, Picture, WIDE_SIDE, WideFace};
use crate::telling::{Progress, say};

/// Of a face's pixels with their surroundings.
const WIDE_BYTES: usize = WIDE_SIDE * WIDE_SIDE * 3;
/// Photos that the detector sees at a time.
const PHOTOS: usize = 8;
/// The smallest face that shows something: below, the crop is mostly interpolation. Side of its box in pixels.
const SIZE_MIN: f32 = 48.0;

/// A face found in a photo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Face {
    /// Whose it is.
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
    /// Whom they show.
    pub(crate) people: People,
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
    /// The same file once more, bit for bit, and where it was first: left out.
    pub(crate) duplicates: BTreeMap<PathBuf, PathBuf>,
}

/// The faces of some photos, and how far the search for them came.
#[derive(Default, Serialize, Deserialize)]
struct Search {
    format: u32,
    detector: String,
    /// Digest of the photos: another set is searched anew.
    photos: String,
    faces: Vec<Face>,
    harvest: Harvest,
    /// What a search needs to go on; a finished one has it no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<Rest>,
}

#[derive(Default, Serialize, Deserialize)]
struct Rest {
    /// Photos looked at.
    looked: usize,
    /// Those that are pictures, by their SHA-256.
    seen: HashMap<String, PathBuf>,
}

/// Raised when what is kept changes.
const FORMAT: u32 = 3;
/// Pixels of the faces, one after another.
const PIXELS: &str = "faces.rgb";
/// A finished search.
const FINISHED: &str = "faces.json";
/// One that was stopped.
const UNFINISHED: &str = "faces.unfinished.json";

impl Face {
    /// What an evaluation's draws go by: the name, and the file's as well where it is another, since such a person may have
    /// many photos.
    pub(crate) fn draw_name(&self) -> String {
        let file = stem(&self.path);
        if file == self.identity { file } else { format!("{}/{file}", self.identity) }
    }
}

impl Faces {
    /// Finds the faces of `photos`; those that cannot be used are counted and left out. What is found is kept in `folder`: an
    /// earlier search over the same photos is read there, and a stopped one goes on. Without a folder the pixels lie in a
    /// file of the system's temporary folder that has no name and ends with the process.
    pub(crate) fn find(
        photos: &[Photo],
        folder: Option<&Path>,
        detector: &mut dyn FaceDetector,
        progress: &Progress<'_>,
    ) -> Result<(Self, Harvest)> {
        let new = Search {
            format: FORMAT,
            detector: detector.name().to_owned(),
            photos: digest_of(photos),
            rest: Some(Rest::default()),
            ..Search::default()
        };
        let (mut search, mut pixels) = match folder {
            None => (new, tempfile::tempfile().context("a temporary file for faces")?),
            Some(folder) => new.or_kept(folder).with_context(|| folder.display().to_string())?,
        };
        if search.rest.is_some() {
            let run = search.run(photos, detector, &mut pixels, progress);
            if let Some(folder) = folder {
                search.keep(folder)?;
                let kept =
                    format!("what was found is kept in {}, and the same command goes on", folder.display());
                run.map_err(|error| anyhow!("{error:#}; {kept}"))?;
            } else {
                run?;
            }
        }
        // Who shows whom may have been told differently since.
        let names: HashMap<&Path, &str> =
            photos.iter().map(|photo| (&*photo.path, &*photo.identity)).collect();
        for face in &mut search.faces {
            face.identity = names.get(&*face.path).copied().unwrap_or_default().to_owned();
        }
        let prints: HashMap<&Path, Fingerprint> =
            search.faces.iter().map(|face| (&*face.path, face.fingerprint)).collect();
        let copies = search.harvest.duplicates.iter();
        let copies = copies.filter_map(|(copy, first)| Some((*names.get(&**copy)?, *prints.get(&**first)?)));
        let copies: Vec<_> = copies.collect();
        Ok((Self::of(search.faces, &copies, pixels), search.harvest))
    }

    /// `copies`: further names of photos that are here.
    fn of(faces: Vec<Face>, copies: &[(&str, Fingerprint)], pixels: File) -> Self {
        let named: Vec<_> = faces.iter().map(|face| (&*face.identity, face.fingerprint)).collect();
        let people = People::of(&named, copies);
        Self { faces, people, pixels }
    }

    /// Numbers of the people of whom one of the faces is wanted.
    pub(crate) fn people_with(&self, wanted: impl Fn(&Face) -> bool) -> HashSet<u32> {
        let numbers = self.people.numbers();
        let wanted = self.faces.iter().zip(&*numbers).filter(|(face, _)| wanted(face));
        wanted.map(|(_, person)| *person).collect()
    }

    /// How many people there are and by what, for people.
    fn told(&self) -> Vec<String> {
        let people = self.people.count();
        let names = self.faces.iter().map(|face| &*face.identity).collect::<HashSet<&str>>().len();
        let folders = self.faces.iter().map(|face| Naming::Folder.identity(&face.path));
        let folders = folders.collect::<HashSet<String>>().len();
        let by_files = self.faces.iter().all(|face| face.identity == stem(&face.path));
        let mut lines = vec![format!("{people} people")];
        if by_files && folders > people {
            lines[0] +=
                &format!(" by their files' names; --identity folder makes {folders} of them, a folder each");
        }
        if people < names {
            let more = names - people;
            lines.push(format!(
                "{more} names share nearly the same photo with another, and count as one person with it"
            ));
        }
        lines
    }

    /// Reads a face's pixels.
    pub(crate) fn wide(&self, index: usize) -> Result<WideFace> {
        let mut rgb = vec![0; WIDE_BYTES];
        self.pixels.read_exact_at(&mut rgb, (index * WIDE_BYTES) as u64).context("faces.rgb: cut off")?;
        let landmarks = self.faces[index].landmarks.map(|[x, y]| Point { x, y });
        Ok(WideFace { picture: Picture::from_rgb(WIDE_SIDE, WIDE_SIDE, &rgb), landmarks })
    }
}

impl Search {
    /// What `folder` keeps of the same search, or this one, with the file of the pixels, which no other process changes
    /// meanwhile.
    fn or_kept(self, folder: &Path) -> Result<(Self, File)> {
        fs::create_dir_all(folder)?;
        let mut pixels = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(PIXELS))
            .context(PIXELS)?;
        let held = pixels.metadata()?.len();
        if let Some(found) = self.same_in(&folder.join(FINISHED)).filter(|found| found.bytes() == held) {
            pixels.try_lock_shared().context("another process looks for faces there")?;
            return Ok((found, pixels));
        }
        pixels.try_lock().context("another process uses the faces there")?;
        let found =
            self.same_in(&folder.join(UNFINISHED)).filter(|found| found.bytes() <= held).unwrap_or(self);
        // They speak of pixels that are about to change.
        for stale in [FINISHED, UNFINISHED] {
            match fs::remove_file(folder.join(stale)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(stale);
                }
                _ => {}
            }
        }
        pixels.set_len(found.bytes())?;
        pixels.seek(SeekFrom::End(0))?;
        Ok((found, pixels))
    }

    /// The search in that file, if it is for the same.
    fn same_in(&self, path: &Path) -> Option<Self> {
        let found: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same =
            found.format == self.format && found.detector == self.detector && found.photos == self.photos;
        same.then_some(found)
    }

    /// Of its faces' pixels.
    fn bytes(&self) -> u64 {
        (self.faces.len() * WIDE_BYTES) as u64
    }

    fn keep(&self, folder: &Path) -> Result<()> {
        let name = if self.rest.is_some() { UNFINISHED } else { FINISHED };
        write_whole(&folder.join(name), serde_json::to_string(self)?.as_bytes())
    }

    /// Looks at the photos that it has not looked at.
    fn run(
        &mut self,
        photos: &[Photo],
        detector: &mut dyn FaceDetector,
        pixels: &mut File,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let mut rest = self.rest.take().unwrap_or_default();
        progress.begin(photos.len() as u64);
        let mut passed = progress.done(rest.looked as u64);
        while passed.is_ok() && rest.looked < photos.len() {
            let chunk = &photos[rest.looked..photos.len().min(rest.looked + PHOTOS)];
            passed = self.look(chunk, &mut rest.seen, detector, pixels).and_then(|()| {
                rest.looked += chunk.len();
                progress.done(chunk.len() as u64)
            });
        }
        let synced = pixels.sync_all().context(PIXELS);
        if rest.looked < photos.len() || passed.is_err() {
            self.rest = Some(rest);
        }
        passed.and(synced)?;
        self.harvest.used = self.faces.len();
        progress.end();
        Ok(())
    }

    /// Looks at some photos; all of them are taken in, or none.
    fn look(
        &mut self,
        photos: &[Photo],
        seen: &mut HashMap<String, PathBuf>,
        detector: &mut dyn FaceDetector,
        pixels: &mut File,
    ) -> Result<()> {
        let (mut new, mut digests, mut pixels_of_all) = (Self::default(), HashMap::new(), Vec::new());
        let mut frames: Vec<(&Photo, Frame)> = Vec::new();
        for photo in photos {
            match read(&photo.path) {
                Err(why) => drop(new.harvest.broken.insert(photo.path.clone(), why)),
                Ok((digest, frame)) => match seen.get(&digest).or_else(|| digests.get(&digest)) {
                    Some(first) => {
                        new.harvest.duplicates.insert(photo.path.clone(), first.clone());
                    }
                    None => {
                        digests.insert(digest, photo.path.clone());
                        frames.push((photo, frame));
                    }
                },
            }
        }
        let only: Vec<&Frame> = frames.iter().map(|(_, frame)| frame).collect();
        let found = detector.detect(&only).map_err(|error| anyhow!("face detector: {error}"))?;
        for ((photo, frame), found) in frames.iter().zip(found) {
            let wide = largest(found)
                .and_then(|face| crop_wide(frame, &face.landmarks, BORDER).map(|wide| (face.size(), wide)));
            let Some((size, Wide { pixels: rgb, landmarks })) = wide else {
                new.harvest.without_face.push(photo.path.clone());
                continue;
            };
            new.faces.push(Face {
                identity: photo.identity.clone(),
                path: photo.path.clone(),
                landmarks: landmarks.map(|point| [point.x, point.y]),
                size,
                fingerprint: Fingerprint::of(&Picture::from_rgb(WIDE_SIDE, WIDE_SIDE, &rgb).middle()),
            });
            pixels_of_all.extend_from_slice(&rgb);
        }
        pixels.write_all(&pixels_of_all).context(PIXELS)?;
        // Nothing can fail any more.
        seen.extend(digests);
        self.faces.append(&mut new.faces);
        self.harvest.broken.append(&mut new.harvest.broken);
        self.harvest.duplicates.append(&mut new.harvest.duplicates);
        self.harvest.without_face.append(&mut new.harvest.without_face);
        Ok(())
    }
}

/// The photos' faces, kept in `folder` if there is one. What was left out is said.
pub(crate) fn harvest(
    photos: &[Photo],
    folder: Option<&Path>,
    detector: &mut dyn FaceDetector,
    stop: &AtomicBool,
) -> Result<(Faces, Harvest)> {
    let megabytes = photos.len() * WIDE_BYTES / 1_000_000 + 1;
    match folder {
        Some(folder) => say(&format!("faces lie in {}: up to {megabytes} MB", folder.display())),
        None => say(&format!(
            "up to {megabytes} MB of faces lie in {} meanwhile; --faces names a folder",
            std::env::temp_dir().display()
        )),
    }
    let (faces, harvest) = Faces::find(photos, folder, detector, &Progress::new("faces", stop))?;
    harvest.report().iter().chain(&faces.told()).for_each(|line| say(line));
    Ok((faces, harvest))
}

/// The largest face of a photo with the whole photo around it.
pub(crate) fn whole(photo: &Path, detector: &mut dyn FaceDetector) -> Result<WideFace> {
    let shown = photo.display();
    let (_, frame) = read(photo).map_err(|why| anyhow!("{shown}: {why}"))?;
    let found = detector.detect(&[&frame]).map_err(|error| anyhow!("face detector: {error}"))?;
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

/// A photo's SHA-256 and pixels, or why there are none.
fn read(path: &Path) -> Result<(String, Frame), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let frame = decode(&bytes, &DecodeLimits::default()).map_err(|error| error.to_string())?;
    Ok((hex::encode(Sha256::digest(&bytes)), frame))
}

/// Changes when a photo is added, taken away, or written anew.
fn digest_of(photos: &[Photo]) -> String {
    let mut hash = Sha256::new();
    for Photo { path, .. } in photos {
        // Who cannot be read is told so later, by name.
        let facts = fs::metadata(path).ok();
        let size = facts.as_ref().map(fs::Metadata::len);
        let changed = facts.and_then(|facts| facts.modified().ok());
        hash.update(format!("{} {size:?} {changed:?}\n", path.display()));
    }
    hex::encode(hash.finalize())
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
            let some = few(&mut self.duplicates.keys().map(|path| path.display().to_string()));
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
    use forensics::{BoundingBox, DetectorError};

    use super::*;
    use crate::picture::tests::face;

    /// Painted faces of as many people. The file lives as long as it is open.
    pub(crate) fn painted(people: usize) -> Faces {
        let mut pixels = tempfile::tempfile().unwrap();
        let faces = (0..people).map(face_of).collect();
        for person in 0..people {
            pixels.write_all(&face(person as u64).picture.to_rgb()).unwrap();
        }
        Faces::of(faces, &[], pixels)
    }

    /// Faces whose pixels nobody will ask for.
    pub(crate) fn unpainted(faces: Vec<Face>) -> Faces {
        Faces::of(faces, &[], tempfile::tempfile().unwrap())
    }

    fn face_of(person: usize) -> Face {
        let wide = face(person as u64);
        Face {
            identity: format!("person-{person}"),
            path: format!("person-{person}.png").into(),
            landmarks: wide.landmarks.map(|point| [point.x, point.y + person as f32 % 3.0]),
            size: 100.0 + person as f32,
            fingerprint: Fingerprint::of(&wide.picture.middle()),
        }
    }

    /// Sees one face in every picture, counts the pictures, and breaks after so many.
    struct Everywhere {
        looked: usize,
        breaks_after: usize,
    }

    impl FaceDetector for Everywhere {
        fn name(&self) -> &str {
            "everywhere-1"
        }

        fn batch_max(&self) -> usize {
            PHOTOS
        }

        fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<DetectedFace>>, DetectorError> {
            if self.looked >= self.breaks_after {
                return Err(DetectorError::Device("broken".into()));
            }
            self.looked += frames.len();
            let landmarks = [(38.0, 46.0), (59.0, 46.0), (48.0, 60.0), (40.0, 74.0), (57.0, 74.0)];
            let face = DetectedFace {
                bounds: BoundingBox { left: 20.0, top: 20.0, right: 76.0, bottom: 80.0 },
                confidence: 1.0,
                landmarks: landmarks.map(|(x, y)| Point { x, y }),
            };
            Ok(vec![vec![face]; frames.len()])
        }
    }

    #[test]
    fn a_search_that_was_cut_off_goes_on_and_finds_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let photo = |number: u8| {
            let path = folder.path().join(format!("{number}.png"));
            // The last one is a copy of the first.
            let shade = number % 19;
            let picture = image::RgbImage::from_fn(96, 96, |x, y| {
                image::Rgb([x as u8, y as u8, shade * (x as u8 / 9)])
            });
            picture.save(&path).unwrap();
            Photo { path, identity: format!("person {number}") }
        };
        let photos: Vec<Photo> = (0..20).map(photo).collect();
        let (going, stopping) = (AtomicBool::new(false), AtomicBool::new(true));
        let kept = |name: &str| folder.path().join(name);
        let find = |name: &str, stop: &AtomicBool, breaks_after: usize| {
            let mut detector = Everywhere { looked: 0, breaks_after };
            let found = Faces::find(&photos, Some(&kept(name)), &mut detector, &Progress::new("faces", stop));
            (found, detector.looked)
        };
        let (straight, looked) = find("straight", &going, 99);
        let (straight, harvest) = straight.unwrap();
        assert_eq!((looked, harvest.used, harvest.duplicates.len()), (19, 19, 1));
        let (broken, looked) = find("stopped", &going, PHOTOS);
        let error = broken.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains("is kept in") && looked == PHOTOS, "{error}");
        let (stopped, looked) = find("stopped", &stopping, 99);
        let error = stopped.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("faces 8 of 20") && looked == 0, "{error}");
        let (again, looked) = find("stopped", &going, 99);
        let (again, harvest) = again.unwrap();
        assert_eq!((looked, harvest.used, harvest.duplicates.len()), (11, 19, 1));
        assert_eq!(again.faces, straight.faces);
        let pixels = |name: &str| fs::read(kept(name).join(PIXELS)).unwrap();
        assert_eq!(pixels("stopped"), pixels("straight"));
        drop(again);
        assert_eq!(find("stopped", &going, 99).1, 0, "a finished search is read");
    }
}
