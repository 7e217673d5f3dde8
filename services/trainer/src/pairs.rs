//! Samples by number: which face, which forgery, which losses; for learning and for evaluation.

use std::sync::Arc;

use anyhow::Result;

use crate::draw::{Draw, Purpose};
use crate::faces::{Faces, WIDE_SIDE};
use crate::forge::{Degradation, Forged, Manipulation, Recipe, View};

/// A face and its forgery, u8 RGB `[256, 256, 3]` each.
pub(crate) struct Pair {
    pub(crate) authentic: Vec<u8>,
    pub(crate) forged: Vec<u8>,
    pub(crate) recipe: Recipe,
}

/// Faces of one side of the split, as pairs without end.
#[derive(Clone)]
pub(crate) struct Pairs {
    faces: Arc<Faces>,
    /// Which of the faces.
    members: Arc<Vec<usize>>,
    seed: u64,
}

/// Of ten forgeries, how many are self-blended, swapped and regional. Chosen: regional ones are the hardest, and half of
/// them are self-blended, half swapped.
const MIX: [(Manipulation, f32); 3] =
    [(Manipulation::SelfBlended, 0.4), (Manipulation::Swapped, 0.25), (Manipulation::Regional, 0.35)];
/// A donor is the one of so many drawn faces whose landmarks lie nearest to the target's.
const CANDIDATES: usize = 12;

impl Pairs {
    pub(crate) fn new(faces: Arc<Faces>, members: Vec<usize>, seed: u64) -> Self {
        Self { faces, members: Arc::new(members), seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Pair `index` of learning: every face once in each epoch, in an order of the epoch's own.
    pub(crate) fn learned(&self, index: u64) -> Result<Pair> {
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
        let view = View::drawn(WIDE_SIDE, &mut draw);
        let losses = Degradation::training(&mut draw);
        Ok(Pair {
            authentic: losses.apply(view.of(&made.twin)),
            forged: losses.apply(view.of(&made.picture)),
            recipe,
        })
    }

    /// Whose turn it is at `index`.
    fn face(&self, index: u64) -> usize {
        let count = self.members.len() as u64;
        let order = Draw::new(self.seed, Purpose::Order, index / count).order(self.members.len());
        self.members[order[(index % count) as usize] as usize]
    }

    /// The `number`-th forgery of the `member`-th face and its authentic twin, as the fleet would cut them, before any loss.
    pub(crate) fn forged(
        &self,
        member: usize,
        manipulation: Manipulation,
        number: u64,
    ) -> Result<(Forged, Recipe)> {
        let mut draw = self.evaluation(member, number, 1 + manipulation as u64);
        let (Forged { twin, picture }, recipe) =
            self.forgery(self.members[member], manipulation, &mut draw)?;
        Ok((Forged { twin: View::MIDDLE.of(&twin), picture: View::MIDDLE.of(&picture) }, recipe))
    }

    /// What sample `number` of the `member`-th face goes through: the same for the face and for each of its forgeries.
    pub(crate) fn losses(&self, member: usize, number: u64) -> Degradation {
        Degradation::upload(&mut self.evaluation(member, number, 0))
    }

    pub(crate) fn identity(&self, member: usize) -> &str {
        &self.faces.faces[self.members[member]].identity
    }

    /// The shorter side of the face in its photo, in pixels.
    pub(crate) fn size(&self, member: usize) -> f32 {
        self.faces.faces[self.members[member]].size
    }

    fn evaluation(&self, member: usize, number: u64, use_: u64) -> Draw {
        // By name, not by place: a face's draws do not depend on who else is tested.
        let name = self.identity(member).bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Draw::new(self.seed ^ name, Purpose::Evaluation, number << 3 | use_)
    }

    fn forgery(&self, face: usize, manipulation: Manipulation, draw: &mut Draw) -> Result<(Forged, Recipe)> {
        let wide = self.faces.wide(face)?;
        let candidates = self.candidates(face, draw);
        let recipe = Recipe::drawn(manipulation, candidates.len().min(1), draw);
        let donor = match recipe.donor {
            Some(_) => Some(self.faces.wide(candidates[0])?),
            None => None,
        };
        let forged = recipe.forge(&wide, donor.as_ref(), draw);
        // Landmarks without extent were refused when the face was cut.
        let forged = forged.ok_or_else(|| {
            anyhow::anyhow!("{}: landmarks without extent", self.faces.faces[face].identity)
        })?;
        Ok((forged, recipe))
    }

    /// Drawn faces of others, the one most like `face` in its landmarks first.
    fn candidates(&self, face: usize, draw: &mut Draw) -> Vec<usize> {
        let mine = &self.faces.faces[face];
        let mut drawn: Vec<usize> =
            (0..CANDIDATES).map(|_| self.members[draw.below(self.members.len())]).collect();
        drawn.retain(|other| self.faces.faces[*other].identity != mine.identity);
        let distance = |other: &usize| -> f32 {
            let pairs = mine.landmarks.iter().zip(&self.faces.faces[*other].landmarks);
            pairs.map(|(a, b)| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sum()
        };
        drawn.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::faces::tests::painted;

    #[test]
    fn an_epoch_shows_every_face_once_and_every_kind_of_forgery_comes() {
        let pairs = Pairs::new(Arc::new(painted(6)), vec![0, 2, 3, 5], 1);
        let mut kinds = BTreeSet::new();
        for index in 0..24 {
            let pair = pairs.learned(index).unwrap();
            assert_ne!(pair.authentic, pair.forged, "pair {index}");
            kinds.insert(pair.recipe.manipulation);
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
        assert_eq!(recipe.donor, None);
    }

    /// Who else is tested changes nothing about what a face goes through.
    #[test]
    fn an_evaluations_draw_goes_by_name() {
        let faces = Arc::new(painted(6));
        let (few, many) = (Pairs::new(Arc::clone(&faces), vec![3], 5), Pairs::new(faces, vec![0, 3, 4], 5));
        for number in 0..3 {
            assert_eq!(few.losses(0, number), many.losses(1, number));
        }
        assert_ne!(many.losses(0, 0), many.losses(1, 0));
        assert_ne!(many.losses(0, 0), many.losses(0, 1));
    }
}
