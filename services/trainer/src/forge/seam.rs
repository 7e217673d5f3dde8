//! Pasting without a visible edge, as a careful forger does: Poisson blending (Pérez, Gangnet, Blake, *Poisson Image
//! Editing*, 2003).

use crate::picture::Picture;

/// The donor's gradients on the target's edge. With the donor's gradients kept, what is added to the donor is the harmonic
/// function whose values on the edge are target − donor; it is solved on a coarser grid, where it is as smooth, then
/// enlarged.
pub(crate) fn poisson(target: &Picture, donor: &Picture, weights: &[f32]) -> Picture {
    let (width, height) = (target.width(), target.height());
    let coarse = coarse(weights, width);
    let (columns, rows) = (width.div_ceil(coarse), height.div_ceil(coarse));
    let mut grid = vec![[0f32; 3]; columns * rows];
    let mut inside = vec![false; columns * rows];
    for row in 0..rows {
        for column in 0..columns {
            let at = (row * coarse).min(height - 1) * width + (column * coarse).min(width - 1);
            let cell = row * columns + column;
            let edge = row == 0 || column == 0 || row == rows - 1 || column == columns - 1;
            inside[cell] = !edge && weights[at] > INSIDE;
            if !inside[cell] {
                grid[cell] = std::array::from_fn(|c| target.pixels[at][c] - donor.pixels[at][c]);
            }
        }
    }
    relax(&mut grid, &inside, columns);
    let sheet = membrane(&grid, [columns, rows], coarse);
    let mut result = donor.clone();
    for (at, pixel) in result.pixels.iter_mut().enumerate() {
        if weights[at] > 0.0 {
            let added = sheet(at % width, at / width);
            *pixel = std::array::from_fn(|c| (pixel[c] + added[c]).clamp(0.0, 255.0));
        }
    }
    result
}

/// Pixels of a cell's side at least, and cells that a donor is wide at most: [`ROUNDS`] are for as many. In a crop that is
/// learned from it is 4 pixels.
const COARSE: usize = 4;
const CELLS: usize = 60;
/// From here on a pixel belongs to the donor.
const INSIDE: f32 = 0.02;
/// Successive over-relaxation; a face is some 50 cells wide, for which 1.9 is near the best factor and 80 rounds end within
/// a level of the solution.
const ROUNDS: usize = 80;
const OVER: f32 = 1.9;

/// Pixels of a cell's side.
fn coarse(weights: &[f32], width: usize) -> usize {
    let inside = weights.iter().enumerate().filter(|(_, weight)| **weight > INSIDE);
    let columns = inside.map(|(at, _)| at % width);
    let (first, last) =
        columns.fold((width, 0), |(first, last), column| (first.min(column), last.max(column)));
    COARSE.max((last + 1).saturating_sub(first).div_ceil(CELLS))
}

fn relax(grid: &mut [[f32; 3]], inside: &[bool], columns: usize) {
    let cells: Vec<usize> = (0..inside.len()).filter(|cell| inside[*cell]).collect();
    for _ in 0..ROUNDS {
        for &cell in &cells {
            let around = [grid[cell - 1], grid[cell + 1], grid[cell - columns], grid[cell + columns]];
            grid[cell] = std::array::from_fn(|c| {
                let mean = around.iter().map(|value| value[c]).sum::<f32>() / 4.0;
                grid[cell][c] + OVER * (mean - grid[cell][c])
            });
        }
    }
}

/// The grid's value at any pixel, bilinear.
fn membrane(
    grid: &[[f32; 3]],
    [columns, rows]: [usize; 2],
    coarse: usize,
) -> impl Fn(usize, usize) -> [f32; 3] {
    move |x, y| {
        let (left, top) = ((x / coarse).min(columns - 1), (y / coarse).min(rows - 1));
        let (right, below) = ((left + 1).min(columns - 1), (top + 1).min(rows - 1));
        let (fx, fy) = ((x % coarse) as f32 / coarse as f32, (y % coarse) as f32 / coarse as f32);
        let at = |column: usize, row: usize| grid[row * columns + column];
        let (a, b, c, d) = (at(left, top), at(right, top), at(left, below), at(right, below));
        std::array::from_fn(|i| {
            (a[i] * (1.0 - fx) + b[i] * fx) * (1.0 - fy) + (c[i] * (1.0 - fx) + d[i] * fx) * fy
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_donor_becomes_the_target_as_well() {
        let (width, height) = (900i32, 700i32);
        let target =
            Picture::from_rgb(width as usize, height as usize, &vec![90; (width * height * 3) as usize]);
        let donor = target.clone().map(|pixel| pixel.map(|value| value + 30.0));
        let weights: Vec<f32> = (0..width * height)
            .map(|at| {
                let away = (at % width - 450).pow(2) + (at / width - 350).pow(2);
                if away < 320 * 320 { 1.0 } else { 0.0 }
            })
            .collect();
        let seamless = poisson(&target, &donor, &weights);
        for (pixel, weight) in seamless.pixels.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
            assert!((pixel[0] - 90.0).abs() < 1.0, "{pixel:?} {weight}");
        }
        assert_eq!(
            [1, 240, 241].map(|across| coarse(&vec![1.0; across], 900)),
            [4, 4, 5],
            "samples stay what they are"
        );
    }

    #[test]
    fn a_donor_that_differs_by_a_constant_becomes_the_target() {
        let pixels: Vec<u8> =
            (0..120 * 100).flat_map(|at| [(at % 120) as u8, (at / 120) as u8, 40]).collect();
        let target = Picture::from_rgb(120, 100, &pixels);
        let donor = target.clone().map(|pixel| pixel.map(|value| value + 30.0));
        let weights: Vec<f32> = (0..120 * 100i32)
            .map(|at| if (at % 120 - 60).pow(2) + (at / 120 - 50).pow(2) < 900 { 1.0 } else { 0.0 })
            .collect();
        let seamless = poisson(&target, &donor, &weights);
        for ((found, expected), weight) in seamless.pixels.iter().zip(&target.pixels).zip(&weights) {
            if *weight > 0.0 {
                assert!((found[0] - expected[0]).abs() < 1.0, "{found:?} {expected:?}");
            }
        }
    }
}
