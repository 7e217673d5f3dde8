//! A contact sheet: rows of pictures with captions, in one SVG document that needs no other file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};
use thiserror::Error;

use crate::show::plots::canvas::{AUTHENTIC, Anchor, Canvas, FORGED, Words};

/// What a tile's border says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Blue.
    Authentic,
    /// Orange.
    Forged,
    /// No border.
    None,
}

/// Why pixels are no tile.
#[derive(Debug, Error)]
pub enum TileError {
    /// Not side × side × 3 bytes, or no pixel at all.
    #[error("a tile of side {side} has side² × 3 bytes, not {bytes}")]
    Size {
        /// Pixels in a row.
        side: usize,
        /// Bytes found.
        bytes: usize,
    },
    /// Wider than JPEG's 65,535 pixels.
    #[error("a tile's side is beyond JPEG: {0}")]
    Side(usize),
    /// The encoder's own words.
    #[error("tile is not encoded: {0}")]
    Encoding(#[from] EncodingError),
}

/// A square picture with a caption.
#[derive(Clone, Debug)]
pub struct Tile {
    jpeg: Vec<u8>,
    mark: Mark,
    caption: [String; 2],
}

/// Rows of tiles under a title.
#[derive(Clone, Debug)]
pub struct Sheet {
    title: String,
    rows: Vec<(String, Vec<Tile>)>,
}

/// Of the tiles' JPEG, without chroma subsampling (chosen): blending artefacts stay visible.
const QUALITY: u8 = 92;
/// A tile on the sheet (chosen), whatever its own side, in pixels.
const SIDE: f64 = 148.0;
const GAP: f64 = 14.0;
const MARGIN: f64 = 24.0;
/// Tiles of a row go on in a next line after this many (chosen: 1300 px in all).
const COLUMNS_MAX: usize = 8;
const CAPTION: f64 = 34.0;
const HEADING: f64 = 26.0;

impl Tile {
    /// Pixels `[side, side, 3]` u8 RGB, row by row.
    pub fn new(side: usize, rgb: &[u8], mark: Mark) -> Result<Self, TileError> {
        let edge = u16::try_from(side).map_err(|_| TileError::Side(side))?;
        if side == 0 || rgb.len() != side * side * 3 {
            return Err(TileError::Size { side, bytes: rgb.len() });
        }
        let mut jpeg = Vec::new();
        let mut encoder = Encoder::new(&mut jpeg, QUALITY);
        encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
        encoder.encode(rgb, edge, edge, ColorType::Rgb)?;
        Ok(Self { jpeg, mark, caption: Default::default() })
    }

    /// One or two short lines below the picture; what is longer than the tile is cut.
    #[must_use]
    pub fn caption(mut self, first: impl Into<String>, second: impl Into<String>) -> Self {
        self.caption = [first.into(), second.into()].map(fitting);
        self
    }
}

impl Sheet {
    /// An empty sheet.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// One more row, wrapped after eight tiles.
    #[must_use]
    pub fn row(mut self, title: impl Into<String>, tiles: Vec<Tile>) -> Self {
        self.rows.push((title.into(), tiles));
        self
    }

    /// The document.
    pub fn to_svg(&self) -> String {
        let columns = self.rows.iter().map(|(_, tiles)| tiles.len()).max().unwrap_or(0).clamp(4, COLUMNS_MAX);
        let pitch = (SIDE + GAP, SIDE + CAPTION + GAP);
        let lines = |tiles: &Vec<Tile>| tiles.len().div_ceil(columns) as f64;
        let height: f64 = self.rows.iter().map(|(_, tiles)| HEADING + lines(tiles) * pitch.1).sum();
        let width = 2.0 * MARGIN - GAP + columns as f64 * pitch.0;
        let mut canvas = Canvas::new(width, 84.0 + height, &self.title);
        let marks = [(AUTHENTIC, "authentic".to_owned()), (FORGED, "forged".to_owned())];
        if self.rows.iter().flat_map(|(_, tiles)| tiles).any(|tile| tile.mark != Mark::None) {
            canvas.legend((MARGIN, 56.0), &marks);
        }
        let mut top = 72.0;
        for (title, tiles) in &self.rows {
            let bold = Words { size: 13.0, bold: true, ..Words::new(Anchor::Start) };
            canvas.words((MARGIN, top + 16.0), bold, title);
            top += HEADING;
            for (index, tile) in tiles.iter().enumerate() {
                let (column, line) = ((index % columns) as f64, (index / columns) as f64);
                tile.draw(&mut canvas, (MARGIN + column * pitch.0, top + line * pitch.1));
            }
            top += lines(tiles) * pitch.1;
        }
        canvas.finish()
    }
}

impl Tile {
    fn draw(&self, canvas: &mut Canvas, (x, y): (f64, f64)) {
        let data = STANDARD.encode(&self.jpeg);
        canvas.raw(format_args!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{SIDE}\" height=\"{SIDE}\" href=\"data:image/jpeg;base64,{data}\"/>"
        ));
        let colour = match self.mark {
            Mark::Authentic => Some(AUTHENTIC),
            Mark::Forged => Some(FORGED),
            Mark::None => None,
        };
        if let Some(colour) = colour {
            // Half of the stroke lies on the picture.
            canvas.raw(format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"{colour}\" \
                 stroke-width=\"4\"/>"
            ));
        }
        let (first, second) = (Words::new(Anchor::Start), Words::new(Anchor::Start).faint());
        for ((words, style), below) in self.caption.iter().zip([first, second]).zip([16.0, 30.0]) {
            if !words.is_empty() {
                canvas.words((x, y + SIDE + below), Words { size: 11.0, ..style }, words);
            }
        }
    }
}

/// What fits below a tile.
fn fitting(words: String) -> String {
    const LETTERS_MAX: usize = 23;
    if words.chars().count() <= LETTERS_MAX {
        return words;
    }
    words.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}
