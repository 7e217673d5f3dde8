//! Which frames of a long media are judged.

/// Indices of at most `max` of `count` frames, evenly spaced: strictly increasing, the first and the last
/// among them (only the first where `max` is 1).
pub fn evenly(count: usize, max: usize) -> Vec<usize> {
    if count <= max {
        return (0..count).collect();
    }
    if max <= 1 {
        return (0..max).collect();
    }
    // u128: `index × (count − 1)` must not overflow. Rounded to the nearest; count > max keeps steps above 1.
    let (last, steps) = (count as u128 - 1, max as u128 - 1);
    (0..max as u128).map(|index| ((index * last + steps / 2) / steps) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_media_are_judged_whole() {
        assert_eq!(evenly(0, 512), Vec::<usize>::new());
        assert_eq!(evenly(3, 512), [0, 1, 2]);
        assert_eq!(evenly(5, 3), [0, 2, 4]);
        assert_eq!(evenly(5, 1), [0]);
        assert_eq!(evenly(5, 0), Vec::<usize>::new());
        assert_eq!(evenly(usize::MAX, 2), [0, usize::MAX - 1]);
    }

    proptest! {
        #[test]
        fn steps_are_even_and_both_ends_are_kept(count in 1usize..100_000, max in 2usize..600) {
            let picked = evenly(count, max);
            prop_assert_eq!(picked.len(), count.min(max));
            prop_assert_eq!(picked[0], 0);
            prop_assert_eq!(picked[picked.len() - 1], count - 1);
            let steps: Vec<usize> = picked.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let (Some(least), Some(most)) = (steps.iter().min(), steps.iter().max()) {
                prop_assert!(*least >= 1, "strictly increasing");
                prop_assert!(most - least <= 1, "evenly: steps differ by at most one");
            }
        }
    }
}
