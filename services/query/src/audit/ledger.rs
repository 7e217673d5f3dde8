//! One bit for each input offset: whether an outcome of it was seen.

use std::collections::HashMap;

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
        let bits = |part: &super::snapshot::InputPart| Bits::new(part.low, part.committed_later);
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

    /// Takes the outcome of an input record out; whether there was one.
    pub(super) fn take(&mut self, partition: &TopicPartition, offset: i64) -> bool {
        self.partitions.get_mut(partition).is_some_and(|bits| bits.clear(offset))
    }

    /// Offsets whose outcome no input record took.
    pub(super) fn left(&self, partition: &TopicPartition) -> impl Iterator<Item = i64> {
        self.partitions.get(partition).into_iter().flat_map(Bits::ones)
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

    /// Whether it was set before.
    fn clear(&mut self, offset: i64) -> bool {
        let Some((word, bit)) = self.place(offset) else { return false };
        let before = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        before
    }

    fn ones(&self) -> impl Iterator<Item = i64> {
        self.words.iter().zip((0_i64..).map(|n| self.base + 64 * n)).flat_map(|(&word, first)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(base in 0_i64..1_000, steps in proptest::collection::vec((any::<bool>(), 0_i64..300), 0..200)) {
            let (mut bits, mut set) = (Bits::new(base, base + 257), BTreeSet::new());
            for (add, offset) in steps {
                let (offset, inside) = (base - 20 + offset, (20..277).contains(&offset));
                let before = set.contains(&offset);
                if add {
                    prop_assert_eq!(bits.set(offset), before);
                    if inside { set.insert(offset); }
                } else {
                    prop_assert_eq!(bits.clear(offset), before);
                    set.remove(&offset);
                }
            }
            prop_assert_eq!(bits.ones().collect::<BTreeSet<_>>(), set);
        }
    }
}
