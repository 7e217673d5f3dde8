//! The arithmetic on boxes, in f32 and in the order of facenet-pytorch 2.6.0 (`detect_face.py`), so that rounding falls
//! the same way.

use forensics::BoundingBox;

/// A box that may hold a face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) bounds: BoundingBox,
    pub(super) score: f32,
    /// How the network would move the four edges, in widths and heights.
    pub(super) shift: [f32; 4],
}

/// Greedy suppression: the best first (the earlier of equals), and only those that overlap no better one by more than
/// `overlap_max`. `overlap` is asked with the better candidate first.
pub(super) fn suppress<T>(
    mut candidates: Vec<T>,
    score: impl Fn(&T) -> f32,
    overlap: impl Fn(&T, &T) -> f32,
    overlap_max: f32,
) -> Vec<T> {
    candidates.sort_by(|one, other| score(other).total_cmp(&score(one)));
    let mut kept: Vec<T> = Vec::new();
    for candidate in candidates {
        if !kept.iter().any(|better| overlap(better, &candidate) > overlap_max) {
            kept.push(candidate);
        }
    }
    kept
}

/// [`suppress`] for candidates, by intersection over union.
pub(super) fn suppress_by_union(candidates: Vec<Candidate>, overlap_max: f32) -> Vec<Candidate> {
    let overlap = |one: &Candidate, other: &Candidate| over_union(&one.bounds, &other.bounds);
    suppress(candidates, |candidate| candidate.score, overlap, overlap_max)
}

fn over_union(one: &BoundingBox, other: &BoundingBox) -> f32 {
    let area = |bounds: &BoundingBox| (bounds.right - bounds.left) * (bounds.bottom - bounds.top);
    let width = (one.right.min(other.right) - one.left.max(other.left)).max(0.0);
    let height = (one.bottom.min(other.bottom) - one.top.max(other.top)).max(0.0);
    let shared = width * height;
    shared / (area(one) + area(other) - shared)
}

/// Intersection over the smaller box, each edge counted as a pixel: the last stage's measure, under which a box inside
/// another one is no face of its own.
pub(super) fn over_smaller(one: &BoundingBox, other: &BoundingBox) -> f32 {
    let area = |bounds: &BoundingBox| (bounds.right - bounds.left + 1.0) * (bounds.bottom - bounds.top + 1.0);
    let width = (one.right.min(other.right) - one.left.max(other.left) + 1.0).max(0.0);
    let height = (one.bottom.min(other.bottom) - one.top.max(other.top) + 1.0).max(0.0);
    width * height / area(one).min(area(other))
}

/// P-Net's shift: in widths and heights.
pub(super) fn shifted(bounds: &BoundingBox, shift: [f32; 4]) -> BoundingBox {
    shifted_by(bounds, shift, bounds.right - bounds.left, bounds.bottom - bounds.top)
}

/// R-Net's and O-Net's shift: each edge counted as a pixel.
pub(super) fn shifted_inclusive(bounds: &BoundingBox, shift: [f32; 4]) -> BoundingBox {
    shifted_by(bounds, shift, bounds.right - bounds.left + 1.0, bounds.bottom - bounds.top + 1.0)
}

fn shifted_by(bounds: &BoundingBox, shift: [f32; 4], width: f32, height: f32) -> BoundingBox {
    BoundingBox {
        left: bounds.left + shift[0] * width,
        top: bounds.top + shift[1] * height,
        right: bounds.right + shift[2] * width,
        bottom: bounds.bottom + shift[3] * height,
    }
}

/// The square of the longer side around the same centre.
pub(super) fn squared(bounds: &BoundingBox) -> BoundingBox {
    let (width, height) = (bounds.right - bounds.left, bounds.bottom - bounds.top);
    let side = width.max(height);
    let left = bounds.left + width * 0.5 - side * 0.5;
    let top = bounds.top + height * 0.5 - side * 0.5;
    BoundingBox { left, top, right: left + side, bottom: top + side }
}

/// The pixels of a frame that a box covers, its edges cut to whole pixels and to the frame (the left and top pixel
/// included: pixels count from 1 here); `None` if there are none.
pub(super) fn pixels(bounds: &BoundingBox, width: usize, height: usize) -> Option<super::area::Region> {
    // `as` saturates, so that a box far outside stays outside.
    let span = |start: f32, end: f32, side: usize| {
        let first = (start as i64).max(1) - 1;
        let end = (end as i64).min(side as i64);
        (end > first).then_some((first as usize, (end - first) as usize))
    };
    let (left, width) = span(bounds.left, bounds.right, width)?;
    let (top, height) = span(bounds.top, bounds.bottom, height)?;
    Some(super::area::Region { left, top, width, height })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(left: f32, top: f32, right: f32, bottom: f32) -> BoundingBox {
        BoundingBox { left, top, right, bottom }
    }

    fn candidate(bounds: BoundingBox, score: f32) -> Candidate {
        Candidate { bounds, score, shift: [0.0; 4] }
    }

    #[test]
    fn the_better_of_two_overlapping_boxes_stays() {
        let far = candidate(bounds(100.0, 100.0, 110.0, 110.0), 0.1);
        let weak = candidate(bounds(0.0, 0.0, 10.0, 10.0), 0.5);
        let strong = candidate(bounds(1.0, 0.0, 11.0, 10.0), 0.9);
        assert_eq!(suppress_by_union(vec![far, weak, strong], 0.5), [strong, far]);
        assert_eq!(suppress_by_union(vec![far, weak, strong], 0.9), [strong, weak, far]);
        let twin = candidate(bounds(0.0, 0.0, 10.0, 11.0), 0.5);
        assert_eq!(suppress_by_union(vec![weak, twin], 0.5), [weak], "the earlier of equals");
    }

    #[test]
    fn a_box_inside_another_overlaps_it_wholly_by_the_smaller() {
        let (outer, inner) = (bounds(0.0, 0.0, 99.0, 99.0), bounds(10.0, 10.0, 19.0, 19.0));
        assert_eq!(over_smaller(&outer, &inner), 1.0);
        assert!(over_union(&outer, &inner) < 0.02);
    }

    #[test]
    fn shifts_and_squares_follow_the_published_arithmetic() {
        let start = bounds(10.0, 20.0, 30.0, 60.0);
        assert_eq!(shifted(&start, [0.5, -0.25, 0.0, 1.0]), bounds(20.0, 10.0, 30.0, 100.0));
        assert_eq!(shifted_inclusive(&start, [1.0, 0.0, 0.0, 1.0]), bounds(31.0, 20.0, 30.0, 101.0));
        assert_eq!(squared(&start), bounds(0.0, 20.0, 40.0, 60.0));
    }

    #[test]
    fn pixels_are_cut_to_the_frame() {
        let region = |left, top, width, height| Some(super::super::area::Region { left, top, width, height });
        assert_eq!(pixels(&bounds(5.9, 6.0, 10.0, 12.9), 100, 50), region(4, 5, 6, 7));
        assert_eq!(pixels(&bounds(-9.0, -0.5, 200.0, 10.0), 100, 50), region(0, 0, 100, 10));
        assert_eq!(pixels(&bounds(150.0, 0.0, 200.0, 10.0), 100, 50), None);
        assert_eq!(pixels(&bounds(-50.0, 0.0, -10.0, 10.0), 100, 50), None);
        assert_eq!(pixels(&bounds(f32::NAN, 0.0, f32::INFINITY, 1e30), 100, 50), region(0, 0, 100, 50));
    }

    proptest! {
        #[test]
        fn suppression_leaves_no_overlap_and_forgets_no_lone_box(
            boxes in prop::collection::vec((0.0_f32..100.0, 0.0_f32..100.0, 1.0_f32..40.0, 0.0_f32..1.0), 0..40)
        ) {
            let all: Vec<Candidate> = boxes
                .iter()
                .map(|&(left, top, side, score)| candidate(bounds(left, top, left + side, top + side), score))
                .collect();
            let kept = suppress_by_union(all.clone(), 0.5);
            for (index, one) in kept.iter().enumerate() {
                for other in &kept[index + 1..] {
                    prop_assert!(over_union(&one.bounds, &other.bounds) <= 0.5);
                    prop_assert!(one.score >= other.score);
                }
            }
            for one in &all {
                let stays = kept.contains(one);
                let beaten = kept.iter().any(|better| {
                    better.score >= one.score && over_union(&better.bounds, &one.bounds) > 0.5
                });
                prop_assert!(stays || beaten);
            }
        }
    }
}
