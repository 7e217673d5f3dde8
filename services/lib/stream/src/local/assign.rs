//! Who gets which partition. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::TopicPartition;

/// A member, by the order in which it joined.
pub(crate) type MemberId = u64;

/// Shares the partitions among the members that want them: every partition has one owner as long as one member
/// wants it, nobody has two more than another who could take one of them, and nothing moves without need.
pub(crate) fn assign(
    wants: &BTreeMap<MemberId, BTreeSet<TopicPartition>>,
    current: &BTreeMap<TopicPartition, MemberId>,
) -> BTreeMap<TopicPartition, MemberId> {
    let mut owned: BTreeMap<MemberId, BTreeSet<TopicPartition>> =
        wants.keys().map(|member| (*member, BTreeSet::new())).collect();
    let partitions: BTreeSet<&TopicPartition> = wants.values().flatten().collect();
    for partition in partitions {
        let keeper =
            current.get(partition).filter(|owner| wants.get(owner).is_some_and(|w| w.contains(partition)));
        let owner = keeper.copied().unwrap_or_else(|| {
            let takers = wants.iter().filter(|(_, wanted)| wanted.contains(partition));
            let least = takers.min_by_key(|(member, _)| owned[member].len());
            *least.expect("each partition here is wanted by a member").0
        });
        owned.get_mut(&owner).expect("owners are members").insert(partition.clone());
    }
    while let Some((partition, from, to)) = unfair(wants, &owned) {
        owned.get_mut(&from).expect("owners are members").remove(&partition);
        owned.get_mut(&to).expect("owners are members").insert(partition);
    }
    owned
        .into_iter()
        .flat_map(|(member, set)| set.into_iter().map(move |partition| (partition, member)))
        .collect()
}

/// A partition whose move evens out. Each such move shrinks the sum of squares, so they come to an end.
fn unfair(
    wants: &BTreeMap<MemberId, BTreeSet<TopicPartition>>,
    owned: &BTreeMap<MemberId, BTreeSet<TopicPartition>>,
) -> Option<(TopicPartition, MemberId, MemberId)> {
    let mut members: Vec<(MemberId, usize)> =
        owned.iter().map(|(member, set)| (*member, set.len())).collect();
    members.sort_by_key(|(member, count)| (*count, *member));
    for (from, many) in members.iter().rev() {
        for (to, few) in members.iter().take_while(|(_, few)| few + 1 < *many) {
            debug_assert!(few < many);
            // The last ones move, so that a member's first partitions stay where they are.
            if let Some(partition) = owned[from].iter().rev().find(|partition| wants[to].contains(*partition))
            {
                return Some((partition.clone(), *from, *to));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partitions(topic: &str, count: i32) -> BTreeSet<TopicPartition> {
        (0..count).map(|index| TopicPartition::new(topic, index)).collect()
    }

    #[test]
    fn a_newcomer_takes_its_share_and_nothing_else_moves() {
        let wants = BTreeMap::from([(1, partitions("a", 4))]);
        let alone = assign(&wants, &BTreeMap::new());
        assert!(alone.values().all(|owner| *owner == 1));
        let wants = BTreeMap::from([(1, partitions("a", 4)), (2, partitions("a", 4))]);
        let both = assign(&wants, &alone);
        assert_eq!(both.values().filter(|owner| **owner == 2).count(), 2);
        let again = assign(&wants, &both);
        assert_eq!(again, both);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Members come and go; after each change the shares are complete, wanted, even, and moved only for evenness.
        #[test]
        fn shares_are_complete_even_and_sticky(
            changes in prop::collection::vec((0u64..6, any::<bool>(), any::<bool>()), 1..20),
            counts in (1i32..8, 0i32..8),
        ) {
            let mut wants = BTreeMap::new();
            let mut current = BTreeMap::new();
            for (member, joins, both) in changes {
                if joins {
                    let mut wanted = partitions("a", counts.0);
                    if both {
                        wanted.extend(partitions("b", counts.1));
                    }
                    wants.insert(member, wanted);
                } else {
                    wants.remove(&member);
                }
                let next = assign(&wants, &current);
                let wanted: BTreeSet<_> = wants.values().flatten().cloned().collect();
                prop_assert_eq!(next.keys().cloned().collect::<BTreeSet<_>>(), wanted);
                prop_assert!(next.iter().all(|(partition, owner)| wants[owner].contains(partition)));
                let count = |member: &u64| next.values().filter(|owner| *owner == member).count();
                for (partition, owner) in &next {
                    for other in wants.keys().filter(|other| wants[other].contains(partition)) {
                        prop_assert!(count(owner) <= count(other) + 1, "{partition} of {owner} could go to {other}");
                    }
                }
                prop_assert_eq!(assign(&wants, &next), next.clone());
                current = next;
            }
        }
    }
}
