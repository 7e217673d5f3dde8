/*
 * Copyright (c) 2023.
 *
 * This software is free software;
 *
 * You can redistribute it or modify it under terms of the MIT, Apache License or Zlib license
 */

//! Up-sampling routines
//!
//! The main upsampling method is a bi-linear interpolation or a "triangle
//! filter " or libjpeg turbo `fancy_upsampling` which is a good compromise
//! between speed and visual quality
//!
//! # The filter
//! Each output pixel is made from `(3*A+B)/4` where A is the original
//! pixel closer to the output and B is the one further.
//!
//! ```text
//!+---+---+
//! | A | B |
//! +---+---+
//! +-+-+-+-+
//! | |P| | |
//! +-+-+-+-+
//! ```
//!
//! # Horizontal Bi-linear filter
//! ```text
//! |---+-----------+---+
//! |   |           |   |
//! | A | |p1 | p2| | B |
//! |   |           |   |
//! |---+-----------+---+
//!
//! ```
//! For a horizontal bi-linear it's trivial to implement,
//!
//! `A` becomes the input closest to the output.
//!
//! `B` varies depending on output.
//!  - For odd positions, input is the `next` pixel after A
//!  - For even positions, input is the `previous` value before A.
//!
//! We iterate in a classic 1-D sliding window with a window of 3.
//! For our sliding window approach, `A` is the 1st and `B` is either the 0th term or 2nd term
//! depending on position we are writing.(see scalar code).
//!
//! For vector code see module sse for explanation.
//!
//! # Vertical bi-linear.
//! Vertical up-sampling is a bit trickier.
//!
//! ```text
//! +----+----+
//! | A1 | A2 |
//! +----+----+
//! +----+----+
//! | p1 | p2 |
//! +----+-+--+
//! +----+-+--+
//! | p3 | p4 |
//! +----+-+--+
//! +----+----+
//! | B1 | B2 |
//! +----+----+
//! ```
//!
//! For `p1`
//! - `A1` is given a weight of `3` and `B1` is given a weight of 1.
//!
//! For `p3`
//! - `B1` is given a weight of `3` and `A1` is given a weight of 1
//!
//! # Horizontal vertical downsampling/chroma quartering.
//!
//! Carry out a vertical filter in the first pass, then a horizontal filter in the second pass.
//!
//! # Rounding
//! CHANGED in this copy (Touchstone, 2026-11): the vertical pass keeps its two extra bits, and the rounding
//! constants alternate, exactly as in libjpeg-turbo's `h2v1_fancy_upsample`, `h1v2_fancy_upsample` and
//! `h2v2_fancy_upsample` (jdsample.c). Upstream rounds up twice, which shifts colours by up to a quarter of
//! a level wherever they vary; that is enough for a face detector to choose another box. One portable
//! implementation replaces the AVX2, NEON and portable-SIMD ones; compilers vectorise it.
use zune_core::options::DecoderOptions;

use crate::components::UpSampler;

pub fn choose_horizontal_samp_function(_options: &DecoderOptions) -> UpSampler {
    upsample_horizontal
}

pub fn choose_hv_samp_function(_options: &DecoderOptions) -> UpSampler {
    upsample_hv
}

pub fn choose_v_samp_function(_options: &DecoderOptions) -> UpSampler {
    upsample_vertical
}

/// Upsample nothing
pub fn upsample_no_op(
    _input: &[i16], _in_ref: &[i16], _in_near: &[i16], _scratch_space: &mut [i16],
    _output: &mut [i16]
) {
}

pub fn generic_sampler() -> UpSampler {
    upsample_generic
}

fn upsample_horizontal(
    input: &[i16], _in_near: &[i16], _in_far: &[i16], _scratch: &mut [i16], output: &mut [i16]
) {
    widen::<1, 2, 2>(input, output);
}

fn upsample_vertical(
    input: &[i16], in_near: &[i16], in_far: &[i16], _scratch_space: &mut [i16],
    output: &mut [i16]
) {
    assert_eq!(input.len() * 2, output.len());
    let (out_top, out_bottom) = output.split_at_mut(input.len());
    blend::<1, 2>(input, in_near, out_top);
    blend::<2, 2>(input, in_far, out_bottom);
}

fn upsample_hv(
    input: &[i16], in_near: &[i16], in_far: &[i16], scratch_space: &mut [i16],
    output: &mut [i16]
) {
    assert_eq!(input.len() * 4, output.len());
    let scratch = &mut scratch_space[..input.len()];
    let (out_top, out_bottom) = output.split_at_mut(input.len() * 2);
    blend::<0, 0>(input, in_near, scratch);
    widen::<8, 7, 4>(scratch, out_top);
    blend::<0, 0>(input, in_far, scratch);
    widen::<8, 7, 4>(scratch, out_bottom);
}

/// `(3 * row + other + BIAS) >> SHIFT`
#[inline(always)]
fn blend<const BIAS: i16, const SHIFT: i16>(row: &[i16], other: &[i16], output: &mut [i16]) {
    assert!(row.len() == other.len() && row.len() == output.len());
    for ((row, other), output) in row.iter().zip(other).zip(output) {
        *output = row.wrapping_mul(3).wrapping_add(*other).wrapping_add(BIAS) >> SHIFT;
    }
}

/// Two outputs for each input: `(3 * it + previous + EVEN) >> SHIFT`, `(3 * it + next + ODD) >> SHIFT`; beyond
/// the ends the input repeats.
#[inline(always)]
fn widen<const EVEN: i16, const ODD: i16, const SHIFT: i16>(input: &[i16], output: &mut [i16]) {
    assert_eq!(input.len() * 2, output.len());
    let pair = |previous: i16, it: i16, next: i16| {
        let three = it.wrapping_mul(3);
        [
            three.wrapping_add(previous).wrapping_add(EVEN) >> SHIFT,
            three.wrapping_add(next).wrapping_add(ODD) >> SHIFT
        ]
    };
    let last = input.len() - 1;
    output[..2].copy_from_slice(&pair(input[0], input[0], input[1.min(last)]));
    let (previous, next) = (&input[..last.max(1) - 1], &input[2.min(last)..]);
    for (((output, previous), it), next) in
        output[2..].chunks_exact_mut(2).zip(previous).zip(&input[1.min(last)..]).zip(next)
    {
        output.copy_from_slice(&pair(*previous, *it, *next));
    }
    output[2 * last..].copy_from_slice(&pair(input[last.max(1) - 1], input[last], input[last]));
}

fn upsample_generic(
    input: &[i16], _in_near: &[i16], _in_far: &[i16], _scratch_space: &mut [i16],
    output: &mut [i16]
) {
    // use nearest sample
    let difference = output.len() / input.len();
    if difference > 0 {
        // nearest neighbour
        for (input, chunk_output) in input.iter().zip(output.chunks_exact_mut(difference)) {
            chunk_output.iter_mut().for_each(|x| *x = *input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libjpeg-turbo's jdsample.c says, sample by sample.
    fn reference(input: &[i16], other: &[i16]) -> Vec<i16> {
        let sums: Vec<i16> = input.iter().zip(other).map(|(a, b)| 3 * a + b).collect();
        let last = sums.len() - 1;
        let mut out = Vec::new();
        for i in 0..=last {
            let (before, after) = (sums[i.max(1) - 1], sums[(i + 1).min(last)]);
            out.push((3 * sums[i] + before + 8) >> 4);
            out.push((3 * sums[i] + after + 7) >> 4);
        }
        out
    }

    #[test]
    fn both_ways_is_libjpeg_turbo() {
        for width in [1, 2, 3, 8, 17, 256] {
            let row = |seed: usize| -> Vec<i16> {
                (0..width).map(|x| ((x * 97 + seed * 61) % 256) as i16).collect()
            };
            let (input, near, far) = (row(1), row(2), row(3));
            let mut output = vec![0; width * 4];
            upsample_hv(&input, &near, &far, &mut vec![0; width * 2], &mut output);
            assert_eq!(output[..width * 2], reference(&input, &near));
            assert_eq!(output[width * 2..], reference(&input, &far));
        }
    }
}
