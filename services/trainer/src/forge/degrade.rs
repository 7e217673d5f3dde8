//! What happens to a picture between the forger and the judge. Drawn once for a pair and done to both of its pictures, so
//! that nothing of it tells them apart.

use forensics::{CROP_SIDE, Point};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::chance::{Draw, Purpose};
use crate::forge::colour::ColourShift;
use crate::picture::{Picture, Similarity};

/// Where the network looks: how the input is cut out of a wide crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    /// `None`: the middle, as the fleet cuts it.
    moved: Option<Similarity>,
    mirrored: bool,
}

/// Losses and changes on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Degradation {
    gamma: f32,
    colour: Option<ColourShift>,
    /// Shrunk to that share, and enlarged again.
    resized: f32,
    /// σ in pixels.
    blur: f32,
    /// σ in levels, and the stream of numbers.
    noise: (f32, u64),
    /// Quality of 1 to 100; `None`: stored without loss.
    jpeg: Option<u8>,
    erased: Vec<[usize; 4]>,
}

impl View {
    /// As the fleet cuts it.
    pub(crate) const MIDDLE: Self = Self { moved: None, mirrored: false };

    /// Turned by up to 15°, scaled by 0.8 to 1.25, shifted by up to 20 px; three of ten are only mirrored or not, so that
    /// the network also learns what a single resampling looks like. `side`: of the wide crop.
    pub(crate) fn drawn(side: usize, draw: &mut Draw) -> Self {
        let mirrored = draw.chance(0.5);
        if draw.chance(0.3) {
            return Self { moved: None, mirrored };
        }
        let turn = draw.around_zero(15f32.to_radians());
        let zoom = 1.0 / draw.within(0.8, 1.25);
        let border = (side - CROP_SIDE) as f32 / 2.0;
        let shift = Point { x: border + draw.around_zero(20.0), y: border + draw.around_zero(20.0) };
        let middle = Point { x: CROP_SIDE as f32 / 2.0, y: CROP_SIDE as f32 / 2.0 };
        Self { moved: Some(Similarity::about(middle, turn, zoom, shift)), mirrored }
    }

    /// `[256, 256]` out of a wide crop.
    pub(crate) fn of(&self, wide: &Picture) -> Picture {
        let cut = match &self.moved {
            None => wide.middle(),
            Some(source) => wide.warped(CROP_SIDE, CROP_SIDE, source),
        };
        if self.mirrored { cut.mirrored() } else { cut }
    }
}

impl Degradation {
    /// Nothing happens.
    pub(crate) fn none() -> Self {
        Self {
            gamma: 1.0,
            colour: None,
            resized: 1.0,
            blur: 0.0,
            noise: (0.0, 0),
            jpeg: None,
            erased: Vec::new(),
        }
    }

    /// What uploads go through: gamma, resizing, blur, noise, JPEG of 40 to 100, nearer the weak end.
    pub(crate) fn upload(draw: &mut Draw) -> Self {
        Self {
            gamma: if draw.chance(0.5) { draw.within(0.8, 1.25) } else { 1.0 },
            resized: if draw.chance(0.25) { draw.within(0.6, 1.0) } else { 1.0 },
            blur: if draw.chance(0.2) { draw.within(0.2, 0.9) } else { 0.0 },
            noise: (if draw.chance(0.3) { draw.within(0.5, 4.0) } else { 0.0 }, draw.below(1 << 31) as u64),
            jpeg: draw.chance(0.7).then(|| (100.0 - 60.0 * draw.within(0.0, 1.0).powi(2)).round() as u8),
            ..Self::none()
        }
    }

    /// The same, and what only training does: other colours or none, up to three erased rectangles.
    pub(crate) fn training(draw: &mut Draw) -> Self {
        let mut found = Self::upload(draw);
        found.colour = draw.chance(0.7).then(|| ColourShift::another_camera(draw));
        if draw.chance(0.5) {
            for _ in 0..=draw.below(3) {
                let (width, height) = (16 + draw.below(64), 16 + draw.below(64));
                found.erased.push([
                    draw.below(CROP_SIDE - width),
                    draw.below(CROP_SIDE - height),
                    width,
                    height,
                ]);
            }
        }
        found
    }

    /// The same with JPEG at the end, at that quality.
    pub(crate) fn with_jpeg(self, quality: u8) -> Self {
        Self { jpeg: Some(quality), ..self }
    }

    pub(crate) fn jpeg(&self) -> Option<u8> {
        self.jpeg
    }

    /// Whether nothing is left of a pixel.
    pub(crate) fn erases(&self, x: usize, y: usize) -> bool {
        let within = |at: usize, first: usize, count: usize| (first..first + count).contains(&at);
        self.erased.iter().any(|&[left, top, across, down]| within(x, left, across) && within(y, top, down))
    }

    /// u8 RGB of a picture that went through it.
    pub(crate) fn apply(&self, picture: Picture) -> Vec<u8> {
        let mut picture = picture;
        if self.gamma != 1.0 {
            let curve: Vec<f32> =
                (0..=255).map(|level| 255.0 * (level as f32 / 255.0).powf(self.gamma)).collect();
            picture = picture.map(|pixel| pixel.map(|value| interpolated(&curve, value)));
        }
        if let Some(colour) = &self.colour {
            picture = colour.apply(picture);
        }
        if self.resized < 1.0 {
            picture = picture.coarsened(self.resized);
        }
        picture = picture.blurred(self.blur);
        let (sigma, stream) = self.noise;
        if sigma > 0.0 {
            let mut draw = Draw::new(stream, Purpose::Noise, 0);
            for pixel in &mut picture.pixels {
                *pixel = pixel.map(|value| value + sigma * draw.normal());
            }
        }
        let (width, height) = (picture.width(), picture.height());
        let mut rgb = picture.to_rgb();
        if let Some(quality) = self.jpeg {
            rgb = through_jpeg(&rgb, width, height, quality);
        }
        for &[left, top, across, down] in &self.erased {
            for row in rgb.chunks_mut(width * 3).skip(top).take(down) {
                row[left * 3..(left + across) * 3].fill(127);
            }
        }
        rgb
    }
}

fn interpolated(curve: &[f32], value: f32) -> f32 {
    let value = value.clamp(0.0, 255.0);
    let (below, rest) = (value as usize, value.fract());
    curve[below] + (curve[(below + 1).min(255)] - curve[below]) * rest
}

/// Encoded as most uploads are (half the colour's resolution below quality 90, as libjpeg's tools do) and decoded by the
/// fleet's own decoder.
fn through_jpeg(rgb: &[u8], width: usize, height: usize, quality: u8) -> Vec<u8> {
    let bytes = jpeg(rgb, width, height, quality);
    let decoded = media::decode(&bytes, &media::DecodeLimits::default());
    decoded.expect("what the encoder just wrote is a JPEG within the limits").into_rgb()
}

/// A JPEG file of u8 RGB.
pub(crate) fn jpeg(rgb: &[u8], width: usize, height: usize, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(if quality >= 90 { SamplingFactor::F_1_1 } else { SamplingFactor::F_2_2 });
    let side = |pixels: usize| u16::try_from(pixels).expect("what was decoded has sides far below 65,536");
    let written = encoder.encode(rgb, side(width), side(height), ColorType::Rgb);
    written.expect("writing into memory succeeds");
    bytes
}
