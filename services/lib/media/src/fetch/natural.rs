//! The order of frames below a prefix: as people count, `frame-2` before `frame-10`.

use std::cmp::Ordering;

/// Compares runs of ASCII digits by their number, everything else by its bytes; texts that are equal so
/// (`7`, `07`) by all their bytes. A total order, and equal only for equal texts.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        match (left.first(), right.first()) {
            (Some(l), Some(r)) if l.is_ascii_digit() && r.is_ascii_digit() => {
                let (number_l, rest_l) = split_number(left);
                let (number_r, rest_r) = split_number(right);
                // Without leading zeros the longer number is the larger one: no parsing, no overflow.
                let order = number_l.len().cmp(&number_r.len()).then_with(|| number_l.cmp(number_r));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (rest_l, rest_r);
            }
            (Some(l), Some(r)) if l == r => (left, right) = (&left[1..], &right[1..]),
            (Some(l), Some(r)) => return l.cmp(r),
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
        }
    }
}

/// The leading digits without leading zeros, and what follows them.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let start = text[..end].iter().position(|&b| b != b'0').unwrap_or(end);
    (&text[start..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_ordered_as_people_count() {
        let mut keys = ["f/10.jpg", "f/9.jpg", "f/1.jpg", "f/010.jpg", "f/a.jpg", "e/99", "f/100.jpg", "f"];
        keys.sort_by(|a, b| natural_order(a, b));
        assert_eq!(
            keys,
            ["e/99", "f", "f/1.jpg", "f/9.jpg", "f/010.jpg", "f/10.jpg", "f/100.jpg", "f/a.jpg"]
        );
        let huge = "9".repeat(400);
        assert_eq!(natural_order(&huge, &format!("1{huge}")), Ordering::Less);
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in "[ab0-2/.]{0,6}", b in "[ab0-2/.]{0,6}", c in "[ab0-2/.]{0,6}") {
            let order = natural_order(&a, &b);
            prop_assert_eq!(order, natural_order(&b, &a).reverse(), "antisymmetric");
            prop_assert_eq!(order == Ordering::Equal, a == b, "equal only for equal texts");
            if order != Ordering::Greater && natural_order(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural_order(&a, &c), Ordering::Greater, "transitive");
            }
        }

        #[test]
        fn numbers_are_ordered_by_value(a in 0u64..100_000, b in 0u64..100_000, zeros in 0usize..4) {
            let padded = format!("frame-{}{a}.jpg", "0".repeat(zeros));
            let order = natural_order(&padded, &format!("frame-{b}.jpg"));
            if a != b {
                prop_assert_eq!(order, a.cmp(&b));
            }
        }
    }
}
