//! Samples by number: which face, which forgery, which losses; for learning and for evaluation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use forensics::CROP_SIDE;

use crate::chance::{Draw, Purpose};
use crate::data::faces::Faces;
use crate::forge::{Degradation, Forged, Manipulation, Recipe, View};
use crate::picture::{Picture, WIDE_SIDE};

/// A face and its forgery, u8 RGB `[256, 256, 3]` each.
pub(crate) struct Pair {
    pub(crate) authentic: Vec<u8>,
    pub(crate) forged: Vec<u8>,
    /// Where the forgery can be seen to differ from the face: of each cell of the network's last map, row by row, the share
    /// of the pixels; −1 where nobody knows: it was given.
    pub(crate) changed: [f32; MAP_SIDE * MAP_SIDE],
    /// How the forgery was made; `None`: it was given.
    pub(crate) recipe: Option<Recipe>,
}

/// Side of the network's last map of features.
pub(crate) const MAP_SIDE: usize = CROP_SIDE / CELL;
const CELL: usize = 32;
/// Where the map's first feature looks: two convolutions without padding, of stride 2 and 1, put it on pixel 3, and the
/// four halvings after them put feature k on pixel 32 k + 3 (`architecture.rs`). A cell is what is nearest to its feature.
const FIRST: usize = 3;
/// Mean difference of the channels from which a pixel has changed. Chosen: of less, little is left after the losses.
const LEVEL: f32 = 1.0;

/// Faces of one side of the split, as pairs without end.
#[derive(Clone)]
pub(crate) struct Pairs {
    faces: Arc<Faces>,
    /// The number of each face's person.
    people: Arc<[u32]>,
    /// Which of the faces are authentic: forgeries are made of them.
    members: Arc<[usize]>,
    /// Forgeries that were given.
    given: Arc<[Given]>,
    seed: u64,
    /// The epoch whose order was asked for last, and the order: to shuffle many faces for each pair would take longer than
    /// the pair. The lock guards this alone.
    order: Arc<Mutex<(u64, Arc<[u32]>)>>,
}

/// A forgery that nobody here made, and what it is told from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    face: usize,
    /// Authentic faces of the same person; where there are none, anybody's.
    twins: Arc<[usize]>,
}

/// Of ten forgeries, how many are self-blended, swapped and regional. Chosen: regional ones are the hardest, and half of
/// them are self-blended, half swapped.
const MIX: [(Manipulation, f32); 3] =
    [(Manipulation::SelfBlended, 0.4), (Manipulation::Swapped, 0.25), (Manipulation::Regional, 0.35)];
/// Share of the pairs whose forgery is a given one, where there are any. Chosen: the forge's stay half, so that what a few
/// given ones have in common is not all that is learned.
const GIVEN: f32 = 0.5;
/// A donor is the one of so many drawn faces whose landmarks lie nearest to the target's.
const CANDIDATES: usize = 12;

impl Pairs {
    pub(crate) fn new(faces: Arc<Faces>, members: Vec<usize>, seed: u64) -> Self {
        let people = faces.people.numbers();
        Self::of((faces, people), members, seed)
    }

    fn of((faces, people): (Arc<Faces>, Arc<[u32]>), members: Vec<usize>, seed: u64) -> Self {
        let order = Arc::new(Mutex::new((u64::MAX, Arc::from([]))));
        Self { faces, people, members: members.into(), given: Arc::from([]), seed, order }
    }

    /// The same with `forgeries`, numbers of faces that are no member's, learned from as well.
    pub(crate) fn with_given(self, forgeries: Vec<usize>) -> Self {
        let mut of: HashMap<u32, Vec<usize>> = HashMap::new();
        for &member in &*self.members {
            of.entry(self.people[member]).or_default().push(member);
        }
        // Shared: a person may have thousands of each.
        let of: HashMap<u32, Arc<[usize]>> =
            of.into_iter().map(|(person, faces)| (person, faces.into())).collect();
        let twins = |face: usize| of.get(&self.people[face]).cloned().unwrap_or_default();
        let given = forgeries.into_iter().map(|face| Given { face, twins: twins(face) }).collect();
        Self { given, ..self }
    }

    /// The same with so many faces at most, spread over all.
    pub(crate) fn at_most(&self, count: usize) -> Self {
        let same = (Arc::clone(&self.faces), Arc::clone(&self.people));
        Self::of(same, spread(&self.members, count), self.seed)
    }

    pub(crate) fn faces(&self) -> Arc<Faces> {
        Arc::clone(&self.faces)
    }

    /// The number of each face's person.
    pub(crate) fn people(&self) -> Arc<[u32]> {
        Arc::clone(&self.people)
    }

    /// Numbers of the authentic faces.
    pub(crate) fn members(&self) -> &[usize] {
        &self.members
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Pair `index` of learning: every face once in each epoch, in an order of the epoch's own, but for the pairs whose turn
    /// a given forgery takes.
    pub(crate) fn learned(&self, index: u64) -> Result<Pair> {
        if let Some(pair) = self.given(index)? {
            return Ok(pair);
        }
        let face = self.face(index);
        let mut draw = Draw::new(self.seed, Purpose::Pair, index);
        let kind = draw.within(0.0, 1.0);
        let mut below = 0.0;
        let drawn = MIX.iter().find(|(_, share)| {
            below += share;
            kind < below
        });
        let manipulation = drawn.map_or(Manipulation::Regional, |(manipulation, _)| *manipulation);
        let (made, recipe) = self.forgery(face, manipulation, &mut draw)?;
        Ok(pair([&made.twin, &made.picture], Some(recipe), &mut draw))
    }

    /// A given forgery and an authentic face, if one's turn is at `index`. It draws from a stream of its own: without given
    /// forgeries every other pair is what it would be.
    fn given(&self, index: u64) -> Result<Option<Pair>> {
        let mut draw = Draw::new(self.seed, Purpose::Given, index);
        if self.given.is_empty() || !draw.chance(GIVEN) {
            return Ok(None);
        }
        let [authentic, forged] = self.matched(&mut draw);
        let pictures = [self.faces.wide(authentic)?.picture, self.faces.wide(forged)?.picture];
        // The two need not even be the same photo.
        let changed = [-1.0; MAP_SIDE * MAP_SIDE];
        Ok(Some(Pair { changed, ..pair([&pictures[0], &pictures[1]], None, &mut draw) }))
    }

    /// An authentic face and the given forgery that is told from it.
    fn matched(&self, draw: &mut Draw) -> [usize; 2] {
        let Given { face, twins } = &self.given[draw.below(self.given.len())];
        let authentic = if twins.is_empty() { draw.one_of(&self.members) } else { draw.one_of(twins) };
        [authentic, *face]
    }

    /// Whose turn it is at `index`.
    fn face(&self, index: u64) -> usize {
        let count = self.members.len() as u64;
        let (epoch, place) = (index / count, index % count);
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != epoch {
            let order = Draw::new(self.seed, Purpose::Order, epoch).order(self.members.len());
            *kept = (epoch, order.into());
        }
        self.members[kept.1[place as usize] as usize]
    }

    /// The `number`-th forgery of a face and its authentic twin, as the fleet would cut them, before any loss.
    pub(crate) fn forged(
        &self,
        face: usize,
        manipulation: Manipulation,
        number: u64,
    ) -> Result<(Forged, Recipe)> {
        let mut draw = self.evaluation(face, number, 1 + manipulation as u64);
        let (Forged { twin, picture }, recipe) = self.forgery(face, manipulation, &mut draw)?;
        Ok((Forged { twin: View::MIDDLE.of(&twin), picture: View::MIDDLE.of(&picture) }, recipe))
    }

    /// What sample `number` of a face goes through: the same for the face and for each of its forgeries.
    pub(crate) fn losses(&self, face: usize, number: u64) -> Degradation {
        Degradation::upload(&mut self.evaluation(face, number, 0))
    }

    fn evaluation(&self, face: usize, number: u64, use_: u64) -> Draw {
        // By name, not by place: what a face goes through does not depend on who else is tested. Its donors do.
        let name = self.faces.faces[face].draw_name();
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Draw::new(self.seed ^ hash, Purpose::Evaluation, number << 3 | use_)
    }

    fn forgery(&self, face: usize, manipulation: Manipulation, draw: &mut Draw) -> Result<(Forged, Recipe)> {
        let wide = self.faces.wide(face)?;
        let candidates = self.candidates(face, draw);
        let recipe = Recipe::drawn(manipulation, !candidates.is_empty(), draw);
        let donor = candidates.first().filter(|_| recipe.has_donor);
        let donor = donor.map(|&donor| self.faces.wide(donor)).transpose()?;
        let forged = recipe.forge(&wide, donor.as_ref(), draw);
        // Landmarks without extent were refused when the face was cut.
        let forged = forged.ok_or_else(|| {
            anyhow::anyhow!("{}: landmarks without extent", self.faces.faces[face].path.display())
        })?;
        Ok((forged, recipe))
    }

    /// Drawn faces of others, the one most like `face` in its landmarks first.
    fn candidates(&self, face: usize, draw: &mut Draw) -> Vec<usize> {
        let mine = &self.faces.faces[face];
        let mut drawn: Vec<usize> =
            (0..CANDIDATES).map(|_| self.members[draw.below(self.members.len())]).collect();
        drawn.retain(|other| self.people[*other] != self.people[face]);
        let distance = |other: &usize| -> f32 {
            let pairs = mine.landmarks.iter().zip(&self.faces.faces[*other].landmarks);
            pairs.map(|(a, b)| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sum()
        };
        drawn.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        drawn
    }
}

/// So many of `members` at most, spread over all.
pub(crate) fn spread(members: &[usize], count: usize) -> Vec<usize> {
    let kept = members.len().min(count);
    (0..kept).map(|place| members[place * members.len() / kept]).collect()
}

/// Authentic and forged, seen from one place and through the same losses.
fn pair([authentic, forged]: [&Picture; 2], recipe: Option<Recipe>, draw: &mut Draw) -> Pair {
    let view = View::drawn(WIDE_SIDE, draw);
    let losses = Degradation::training(draw);
    let [authentic, forged] = [authentic, forged].map(|picture| view.of(picture));
    let changed = changed([&authentic, &forged], &losses);
    Pair { authentic: losses.apply(authentic), forged: losses.apply(forged), changed, recipe }
}

/// Of each cell of [`Pair::changed`] the share of the pixels that differ and are not erased.
fn changed([authentic, forged]: [&Picture; 2], losses: &Degradation) -> [f32; MAP_SIDE * MAP_SIDE] {
    let (mut changed, mut all) = ([0.0; MAP_SIDE * MAP_SIDE], [0.0; MAP_SIDE * MAP_SIDE]);
    for (at, (a, b)) in authentic.pixels.iter().zip(&forged.pixels).enumerate() {
        let (x, y) = (at % CROP_SIDE, at / CROP_SIDE);
        let cell = nearest_feature(y) * MAP_SIDE + nearest_feature(x);
        let apart = (0..3).map(|channel| (a[channel] - b[channel]).abs()).sum::<f32>();
        all[cell] += 1.0;
        if apart >= 3.0 * LEVEL && !losses.erases(x, y) {
            changed[cell] += 1.0;
        }
    }
    std::array::from_fn(|cell| changed[cell] / all[cell])
}

fn nearest_feature(pixel: usize) -> usize {
    ((pixel + CELL / 2 - FIRST) / CELL).min(MAP_SIDE - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::data::faces::Face;
    use crate::data::faces::tests::{painted, unpainted};
    use crate::data::near_duplicates::Fingerprint;

    #[test]
    fn an_epoch_shows_every_face_once_and_every_kind_of_forgery_comes() {
        let pairs = Pairs::new(Arc::new(painted(6)), vec![0, 2, 3, 5], 1);
        let mut kinds = BTreeSet::new();
        for index in 0..24 {
            let pair = pairs.learned(index).unwrap();
            assert_ne!(pair.authentic, pair.forged, "pair {index}");
            kinds.insert(pair.recipe.unwrap().manipulation);
        }
        for epoch in 0..6 {
            let shown: BTreeSet<usize> = (0..4).map(|place| pairs.face(epoch * 4 + place)).collect();
            assert_eq!(shown, BTreeSet::from([0, 2, 3, 5]), "epoch {epoch}");
        }
        let order = |epoch: u64| [0, 1, 2, 3].map(|place| pairs.face(epoch * 4 + place));
        assert!((1..6).any(|epoch| order(epoch) != order(0)));
        assert_eq!(kinds.len(), 3);
    }

    #[test]
    fn a_donor_is_somebody_else_of_the_same_side_and_a_lone_face_has_none() {
        let pairs = Pairs::new(Arc::new(painted(6)), vec![1, 4], 1);
        for index in 0..20 {
            let mut draw = Draw::new(2, Purpose::Pair, index);
            assert!(pairs.candidates(1, &mut draw).iter().all(|donor| *donor == 4));
        }
        let alone = Pairs::new(Arc::new(painted(2)), vec![0], 1);
        let (_, recipe) = alone.forged(0, Manipulation::Swapped, 0).unwrap();
        assert!(!recipe.has_donor);
    }

    /// Whoever changes what a number stands for gives the forge another version: means of the pictures, since the last digits
    /// of powers and sines are the machine's own.
    #[test]
    fn samples_are_those_of_this_version() {
        let pairs = Pairs::new(Arc::new(painted(6)), (0..6).collect(), 1);
        let mean = |values: &mut dyn Iterator<Item = u8>| values.map(f64::from).sum::<f64>() / 196_608.0;
        let found = [0, 1, 2, 3].map(|index| {
            let Pair { authentic, forged, changed, .. } = pairs.learned(index).unwrap();
            let mut apart = authentic.iter().zip(&forged).map(|(a, b)| a.abs_diff(*b));
            let changed =
                (1..).zip(changed).map(|(cell, share)| f64::from(cell) * f64::from(share)).sum::<f64>();
            [mean(&mut authentic.iter().copied()), mean(&mut apart), changed / 64.0]
        });
        let near = found.as_flattened().iter().zip(PINNED.as_flattened()).all(|(a, b)| (a - b).abs() < 0.05);
        assert!(near, "forge {}: {found:.3?}", crate::forge::VERSION);
    }

    /// Mean brightness of the face, mean difference of its forgery, and of the changed cells the later the more.
    const PINNED: [[f64; 3]; 4] =
        [[117.803, 0.972, 9.434], [95.800, 0.116, 2.190], [108.819, 0.174, 9.633], [97.262, 1.147, 8.833]];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Where nothing was forged nothing tells the two apart: view and losses are one draw for both.
        #[test]
        fn both_classes_go_through_the_same(seed in any::<u64>(), index in any::<u64>()) {
            let picture = crate::picture::tests::face(seed % 8).picture;
            let pair = pair([&picture, &picture], None, &mut Draw::new(seed, Purpose::Pair, index));
            prop_assert!(pair.authentic == pair.forged && pair.changed == [0.0; 64]);
            let other = crate::picture::tests::face(seed % 8 + 1).picture;
            let pair = super::pair([&picture, &other], None, &mut Draw::new(seed, Purpose::Pair, index));
            prop_assert!(pair.authentic != pair.forged);
        }

        /// However it was turned, mirrored and erased.
        #[test]
        fn the_cell_that_looks_most_different_has_changed(seed in any::<u64>(), index in any::<u64>()) {
            let picture = crate::picture::tests::face(seed % 8).picture;
            let mut pasted = picture.clone();
            for (x, y) in (80..150).flat_map(|x| (80..120).map(move |y| (x, y))) {
                pasted.pixels[y * WIDE_SIDE + x] = [255.0, 255.0, 0.0];
            }
            let pair = pair([&picture, &pasted], None, &mut Draw::new(seed, Purpose::Pair, index));
            let mut apart = [0u64; MAP_SIDE * MAP_SIDE];
            for (at, (a, b)) in pair.authentic.iter().zip(&pair.forged).enumerate() {
                let (x, y) = (at / 3 % CROP_SIDE, at / 3 / CROP_SIDE);
                apart[nearest_feature(y) * MAP_SIDE + nearest_feature(x)] += u64::from(a.abs_diff(*b));
            }
            let most = (0..apart.len()).max_by_key(|&cell| apart[cell]).unwrap();
            // What was pasted may be erased, all of it: no cell looks different then.
            prop_assume!(apart[most] > 0);
            prop_assert!(pair.changed[most] > 0.0, "{most}: {apart:?} {:?}", pair.changed);
        }
    }

    #[test]
    fn a_cell_is_changed_by_as_much_as_was_pasted_into_it() {
        let picture = crate::picture::tests::face(1).picture.middle();
        let mut pasted = picture.clone();
        // The lower half of the cell about (67, 35), in the second row and third column, and a corner of the last.
        for (x, y) in (51..83).flat_map(|x| (35..51).map(move |y| (x, y))).chain([(255, 255)]) {
            pasted.pixels[y * CROP_SIDE + x][1] += 4.0;
        }
        let found = changed([&picture, &pasted], &Degradation::none());
        let expected = |cell: usize| match cell {
            10 => 0.5,
            63 => 1.0 / (45.0 * 45.0),
            _ => 0.0,
        };
        assert_eq!(found, std::array::from_fn(expected));
    }

    /// Who else is tested changes nothing about what a face goes through.
    #[test]
    fn an_evaluations_draw_goes_by_name() {
        let mut named = painted(6).faces;
        named[4].identity = named[3].identity.clone();
        let faces = Arc::new(unpainted(named));
        let (few, many) = (Pairs::new(Arc::clone(&faces), vec![3], 5), Pairs::new(faces, vec![0, 3, 4], 5));
        for number in 0..3 {
            assert_eq!(few.losses(3, number), many.losses(3, number));
        }
        assert_ne!(many.losses(0, 0), many.losses(3, 0));
        assert_ne!(many.losses(3, 0), many.losses(3, 1));
        assert_ne!(many.losses(3, 0), many.losses(4, 0), "another photo of the same person");
    }

    #[test]
    fn few_faces_of_many_are_spread_over_all() {
        let pairs = Pairs::new(Arc::new(painted(1)), (0..1000).collect(), 1);
        let few = pairs.at_most(10);
        assert_eq!(few.members(), (0..1000).step_by(100).collect::<Vec<_>>());
        assert_eq!(pairs.at_most(1000).members(), pairs.members());
        assert_eq!(pairs.at_most(5000).members(), pairs.members());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whoever is on this side, of however many people: a given forgery stands beside its own person's authentic face if
        /// there is one, beside a member in any case.
        #[test]
        fn a_given_forgery_stands_beside_its_own_person(
            people in prop::collection::vec(0u8..4, 4..12),
            forged in prop::collection::vec(any::<bool>(), 12),
            seed in any::<u64>(),
        ) {
            let one = &painted(1).faces[0];
            // Each by a name of its own, and of one person by nearly the same photo.
            let named = |(face, person): (usize, &u8)| Face {
                identity: format!("{face}"),
                fingerprint: Fingerprint([u64::from(*person + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15); 4]),
                ..one.clone()
            };
            let faces = unpainted(people.iter().enumerate().map(named).collect());
            let (given, members): (Vec<usize>, Vec<usize>) = (0..people.len()).partition(|&face| forged[face]);
            prop_assume!(!members.is_empty() && !given.is_empty());
            let pairs = Pairs::new(Arc::new(faces), members.clone(), seed).with_given(given.clone());
            for index in 0..40 {
                let [authentic, forged] = pairs.matched(&mut Draw::new(seed, Purpose::Given, index));
                prop_assert!(members.contains(&authentic) && given.contains(&forged));
                let has_twin = members.iter().any(|&member| people[member] == people[forged]);
                prop_assert!(!has_twin || people[authentic] == people[forged]);
            }
        }
    }

    #[test]
    fn given_forgeries_take_half_of_the_turns_and_leave_the_others_as_they_were() {
        let faces = Arc::new(painted(6));
        let alone = Pairs::new(Arc::clone(&faces), vec![0, 1, 2, 3], 1);
        let both = alone.clone().with_given(vec![4, 5]);
        let mut given = 0;
        for index in 0..30 {
            let (one, other) = (alone.learned(index).unwrap(), both.learned(index).unwrap());
            match other.recipe {
                Some(_) => assert_eq!((one.authentic, one.forged), (other.authentic, other.forged)),
                None => given += 1,
            }
        }
        assert!((8..=22).contains(&given), "{given} of 30");
    }
}
