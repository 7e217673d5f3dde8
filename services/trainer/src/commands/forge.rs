//! `touchstone-train forge`: a photo with its face forged, for a trial.

use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use image::{ImageFormat, RgbImage};

use crate::arguments::{Forge, Shared};
use crate::chance::{Draw, Purpose};
use crate::data::faces::whole;
use crate::engine;
use crate::files::write_whole;
use crate::forge::{Manipulation, Recipe, jpeg};
use crate::picture::{Picture, WideFace};
use crate::telling::{Progress, say};

/// Of a JPEG (chosen): it shall show the forgery's traces, not its own.
const QUALITY: u8 = 95;

/// How the photo is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
}

/// Writes the photo with its largest face forged, at full strength.
pub(crate) fn forge(what: &Forge, with: &Shared, stop: &AtomicBool) -> Result<()> {
    let format = Format::of(&what.out)?;
    let is_out = |photo: &Path| {
        photo.canonicalize().is_ok_and(|photo| what.out.canonicalize().is_ok_and(|out| out == photo))
    };
    if is_out(&what.photo) || what.donor.as_deref().is_some_and(is_out) {
        bail!("{}: a photo is never written over: name another --out", what.out.display());
    }
    match (what.manipulation, &what.donor) {
        (Manipulation::Swapped, None) => {
            bail!("a swapped face is somebody else's: --donor names a photo of them")
        }
        (Manipulation::SelfBlended, Some(_)) => {
            bail!("a self-blended face is made of itself: leave --donor out, or choose swapped or regional")
        }
        _ => {}
    }
    let mut detector = engine::detector(with)?;
    let progress = Progress::new("photos", stop);
    progress.begin(1 + u64::from(what.donor.is_some()));
    let mut face_of = |photo: &Path| -> Result<WideFace> {
        let face = whole(photo, &mut detector)?;
        progress.done(1)?;
        Ok(face)
    };
    let face = face_of(&what.photo)?;
    let offered = what.donor.as_deref().map(face_of).transpose()?;
    progress.end();
    let mut draw = Draw::new(what.seed, Purpose::Evaluation, what.number);
    let mut recipe = Recipe::drawn(what.manipulation, offered.is_some(), &mut draw);
    recipe.ratio = 1.0;
    let donor = offered.as_ref().filter(|_| recipe.has_donor);
    let forged = recipe.forge(&face, donor, &mut draw);
    let forged = forged.with_context(|| format!("{}: its face has no extent", what.photo.display()))?;
    if let Some(folder) = what.out.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    write_whole(&what.out, &format.encode(&forged.picture)?)?;
    say(&format!(
        "{}: {}, region {}, made of {}",
        what.out.display(),
        what.manipulation,
        format!("{:?}", recipe.region).to_lowercase(),
        if donor.is_some() { "the donor" } else { "the face itself" }
    ));
    Ok(())
}

impl Format {
    fn of(file: &Path) -> Result<Self> {
        let ending = file.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("png") => Ok(Self::Png),
            Some("jpg" | "jpeg") => Ok(Self::Jpeg),
            _ => bail!("{}: the file's ending says how it is kept: .png or .jpg", file.display()),
        }
    }

    fn encode(self, picture: &Picture) -> Result<Vec<u8>> {
        let (width, height, rgb) = (picture.width(), picture.height(), picture.to_rgb());
        if self == Self::Jpeg {
            return Ok(jpeg(&rgb, width, height, QUALITY));
        }
        let mut bytes = Cursor::new(Vec::new());
        let whole =
            RgbImage::from_raw(width as u32, height as u32, rgb).context("a picture holds its pixels")?;
        whole.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    }
}
