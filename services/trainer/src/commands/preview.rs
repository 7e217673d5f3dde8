//! `touchstone-train preview`: a contact sheet of what the network is taught.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};

use crate::arguments::{Preview, Shared};
use crate::data::faces::harvest;
use crate::data::photos::photos;
use crate::data::split::{Side, Split};
use crate::engine::detector;
use crate::files::write_whole;
use crate::forge::Manipulation;
use crate::forge::pairs::Pairs;
use crate::show::sheet::{Mark, Sheet, Tile};
use crate::telling::say;

/// Side of a tile of the sheet, in pixels.
const SIDE: usize = forensics::CROP_SIDE;

/// Pairs as training draws them: above the face, below its forgery.
pub(crate) fn preview(what: &Preview, with: &Shared, stop: &AtomicBool) -> Result<()> {
    let photos = photos(&what.real, with.naming(None))?;
    let (faces, harvest) = harvest(&photos, what.faces.as_deref(), &mut detector(with)?, stop)?;
    harvest.at_least(2)?;
    let members = Split::of(&faces, with.naming(None)).members(Side::Train);
    let people = faces.people.shown_by(&members);
    ensure!(people >= 2, "{people} people to learn from are too few: give photos of more");
    let pairs = Pairs::new(Arc::new(faces), members, what.seed);
    let mut sheet =
        Sheet::new("What the network is taught: each face above its forgery, after the same losses");
    for manipulation in Manipulation::ALL {
        let (mut above, mut below) = (Vec::new(), Vec::new());
        let mut index = 0;
        while (above.len() as u64) < what.pairs {
            let pair = pairs.learned(index)?;
            index += 1;
            let Some(recipe) = pair.recipe.filter(|recipe| recipe.manipulation == manipulation) else {
                continue;
            };
            let (region, ratio) = (format!("{:?}", recipe.region).to_lowercase(), recipe.ratio);
            above.push(
                Tile::new(SIDE, &pair.authentic, Mark::Authentic)?
                    .caption(format!("sample {}", index - 1), "authentic"),
            );
            let donor = if recipe.has_donor { "donor" } else { "itself" };
            below.push(
                Tile::new(SIDE, &pair.forged, Mark::Forged)?
                    .caption(format!("{region}, {donor}"), format!("strength {ratio}")),
            );
        }
        sheet = sheet.row(manipulation.as_str(), above).row("", below);
    }
    write_whole(&what.out, sheet.to_svg().as_bytes())?;
    say(&format!("{}: open it in a browser", what.out.display()));
    Ok(())
}
