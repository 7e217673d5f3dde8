//! Who is who: names that share a photo are one person.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::data::near_duplicates::{Fingerprint, Index};

/// The people whom some faces show.
pub(crate) struct People {
    /// The number of each face's person.
    numbers: Arc<[u32]>,
    /// Of each person the first of their names.
    names: Vec<String>,
}

impl People {
    /// Of `faces`, by the name that each has and by its photo. Two are of one person if they share a name or nearly a photo.
    /// `copies` are names that some of these photos have as well.
    pub(crate) fn of(faces: &[(&str, Fingerprint)], copies: &[(&str, Fingerprint)]) -> Self {
        let shown = [faces, copies].concat();
        let mut names: Vec<String> = Vec::new();
        let mut numbers = HashMap::new();
        let number = |(group, (name, _)): (usize, &(&str, Fingerprint))| {
            let number = *numbers.entry(group).or_insert(names.len());
            match names.get_mut(number) {
                None => names.push((*name).to_owned()),
                Some(first) if *name < first.as_str() => *first = (*name).to_owned(),
                Some(_) => {}
            }
            number as u32
        };
        let mut numbers: Vec<u32> = groups(&shown).into_iter().zip(&shown).map(number).collect();
        numbers.truncate(faces.len());
        Self { numbers: numbers.into(), names }
    }

    /// The number of each face's person.
    pub(crate) fn numbers(&self) -> Arc<[u32]> {
        Arc::clone(&self.numbers)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// How many these faces show.
    pub(crate) fn shown_by(&self, faces: &[usize]) -> usize {
        faces.iter().map(|&face| self.numbers[face]).collect::<HashSet<u32>>().len()
    }

    /// The first name of a face's person.
    pub(crate) fn first_name(&self, face: usize) -> &str {
        &self.names[self.numbers[face] as usize]
    }
}

/// Numbers of the groups that names and photos belong to.
fn groups(shown: &[(&str, Fingerprint)]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..shown.len()).collect();
    let mut by_name = HashMap::new();
    for (index, (name, _)) in shown.iter().enumerate() {
        let first = *by_name.entry(*name).or_insert(index);
        join(&mut parent, first, index);
    }
    let index = Index::of(shown.iter().map(|(_, print)| *print));
    for (one, (_, print)) in shown.iter().enumerate() {
        for other in index.near(*print) {
            join(&mut parent, one, other);
        }
    }
    (0..shown.len()).map(|index| root(&mut parent, index)).collect()
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
    fn a_name_and_a_photo_both_make_one_person_of_two() {
        let print = |word: u64| Fingerprint([word, 0, u64::MAX, word]);
        let faces = [
            ("dora", print(0)),
            ("bob", print(u64::MAX)),
            ("dora", print(0xffff_ffff)),
            ("cy", print(0b111)),
            ("dan", print(0x5555_5555_5555_5555)),
        ];
        let found = People::of(&faces, &[]);
        assert_eq!(*found.numbers(), [0, 1, 0, 0, 2], "one name; six bits apart; and nothing in common");
        assert_eq!([0, 1, 2, 3, 4].map(|face| found.first_name(face)), ["cy", "bob", "cy", "cy", "dan"]);
        let copied = People::of(&faces, &[("ada", print(u64::MAX)), ("ada", faces[4].1)]);
        assert_eq!(*copied.numbers(), [0, 1, 0, 0, 1], "two photos that ada has as well");
        assert_eq!((copied.count(), copied.first_name(4)), (2, "ada"));
    }
}
