//! Near-duplicates: the same photo in another size, crop of a pixel, or compression has nearly the same fingerprint.

use crate::forge::Picture;

/// Difference hash of the aligned face: whether each of 8 × 8 places is brighter than its right neighbour, in a 9 × 8
/// average of the luminance.
pub(crate) fn fingerprint(face: &Picture) -> u64 {
    let grid = face.luminance_grid(9, 8);
    let mut bits = 0u64;
    for row in grid.chunks(9) {
        for pair in row.windows(2) {
            bits = bits << 1 | u64::from(pair[0] > pair[1]);
        }
    }
    bits
}

/// Bits that two fingerprints of one photo may differ by. Aligned faces look alike: two people's differ by 10 to 40 bits,
/// the same photo at JPEG 40 or half its size by at most 4 (measured over 537 portraits, 2026-11-27).
pub(crate) const NEAR: u32 = 5;

/// Numbers of the groups that faces belong to: two are in one group if they share an identity or are near-duplicates.
pub(crate) fn groups(faces: &[(&str, u64)]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..faces.len()).collect();
    let mut by_name = std::collections::HashMap::new();
    for (index, (identity, _)) in faces.iter().enumerate() {
        let first = *by_name.entry(*identity).or_insert(index);
        join(&mut parent, first, index);
    }
    for one in 0..faces.len() {
        for other in one + 1..faces.len() {
            if (faces[one].1 ^ faces[other].1).count_ones() <= NEAR {
                join(&mut parent, one, other);
            }
        }
    }
    (0..faces.len()).map(|index| root(&mut parent, index)).collect()
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

fn join(parent: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parent, one), root(parent, other));
    parent[one.max(other)] = one.min(other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_likeness_both_join() {
        let found = groups(&[
            ("ada", 0),
            ("bob", u64::MAX),
            ("ada", 0xffff),
            ("cy", 0b111),
            ("dan", 0x5555_5555_5555_5555),
        ]);
        assert_eq!(found[0], found[2], "one identity");
        assert_eq!(found[0], found[3], "three bits apart");
        assert!(found[1] != found[0] && found[4] != found[0] && found[4] != found[1]);
    }

    #[test]
    fn a_compressed_copy_keeps_its_fingerprint_and_another_face_does_not() {
        let face = |seed| crate::forge::tests::face(seed).picture.middle();
        let original = face(1);
        let copy = crate::forge::Degradation::none().with_jpeg(50).apply(original.clone());
        let copy = Picture::from_rgb(256, 256, &copy);
        assert!((fingerprint(&original) ^ fingerprint(&copy)).count_ones() <= NEAR);
        assert!((fingerprint(&original) ^ fingerprint(&face(2))).count_ones() > NEAR);
    }
}
