//! One bit for each input offset: whether an outcome of it was seen.

use std::collections::HashMap;
use std::ops::Range;

use forensics::InputPosition;
use stream::TopicPartition;

use super::snapshot::{Snapshot, named};

/// The bits of all media partitions.
pub(super) struct Ledger {
    partitions: HashMap<TopicPartition, Bits>,
}

/// What an outcome's input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The first outcome of this input.
    First,
    /// This input has one already.
    Again,
    /// Retention has removed the input: nothing can be said.
    BeyondRetention,
    /// No such partition, or an offset that nobody has committed.
    NotCommitted,
}

struct Bits {
    base: i64,
    end: i64,
    words: Vec<u64>,
}

impl Ledger {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let bits = |part: &super::snapshot::InputPart| Bits::new(part.low, part.end());
        let partitions = snapshot.inputs.iter().map(|part| (part.partition.clone(), bits(part)));
        Self { partitions: partitions.collect() }
    }

    /// Notes an outcome of `input`.
    pub(super) fn note(&mut self, input: &InputPosition) -> Entry {
        let Some(bits) = self.partitions.get_mut(&named(&input.topic, input.partition)) else {
            return Entry::NotCommitted;
        };
        if input.offset >= bits.end {
            Entry::NotCommitted
        } else if input.offset < bits.base {
            Entry::BeyondRetention
        } else if bits.set(input.offset) {
            Entry::Again
        } else {
            Entry::First
        }
    }

    /// Whether an outcome of this input was noted.
    pub(super) fn has(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.partitions.get(partition).is_some_and(|bits| bits.has(offset))
    }

    /// Those of these offsets of which an outcome was noted.
    pub(super) fn noted(&self, partition: &TopicPartition, offsets: Range<i64>) -> impl Iterator<Item = i64> {
        self.partitions.get(partition).into_iter().flat_map(move |bits| bits.ones(offsets.clone()))
    }
}

impl Bits {
    fn new(base: i64, end: i64) -> Self {
        let offsets = usize::try_from(end - base).unwrap_or(0);
        Self { base, end, words: vec![0; offsets.div_ceil(64)] }
    }

    fn place(&self, offset: i64) -> Option<(usize, u64)> {
        if !(self.base..self.end).contains(&offset) {
            return None;
        }
        let index = usize::try_from(offset - self.base).ok()?;
        Some((index / 64, 1 << (index % 64)))
    }

    /// Whether it was set before.
    fn set(&mut self, offset: i64) -> bool {
        let Some((word, bit)) = self.place(offset) else { return false };
        let before = self.words[word] & bit != 0;
        self.words[word] |= bit;
        before
    }

    fn has(&self, offset: i64) -> bool {
        self.place(offset).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Word by word: a gap of aborted records may be long.
    fn ones(&self, offsets: Range<i64>) -> impl Iterator<Item = i64> {
        let range = offsets.start.max(self.base)..offsets.end.min(self.end);
        let word = |offset: i64| usize::try_from((offset - self.base) / 64).unwrap_or(0);
        let words = if range.is_empty() { 0..0 } else { word(range.start)..word(range.end - 1) + 1 };
        let first = self.base + 64 * i64::try_from(words.start).unwrap_or(0);
        let words = self.words[words].iter().zip((0_i64..).map(move |n| first + 64 * n));
        words
            .filter(|(word, _)| **word != 0)
            .flat_map(|(&word, first)| {
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
            })
            .filter(move |offset| range.contains(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(
            base in 0_i64..1_000,
            offsets in proptest::collection::vec(0_i64..300, 0..200),
            from in 0_i64..300,
            length in 0_i64..300,
        ) {
            let (mut bits, mut set) = (Bits::new(base, base + 257), BTreeSet::new());
            for offset in offsets {
                let (offset, inside) = (base - 20 + offset, (20..277).contains(&offset));
                prop_assert_eq!(bits.set(offset), set.contains(&offset));
                if inside { set.insert(offset); }
            }
            for offset in base - 20..base + 280 {
                prop_assert_eq!(bits.has(offset), set.contains(&offset));
            }
            let range = base - 20 + from..base - 20 + from + length;
            let expected: Vec<i64> = set.range(range.clone()).copied().collect();
            prop_assert_eq!(bits.ones(range).collect::<Vec<_>>(), expected);
        }
    }
}
