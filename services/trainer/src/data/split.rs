//! Which faces are learned from, which are looked at while learning, and which are touched once, at the end.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::faces::{Face, Faces};
use crate::data::near_duplicates::{Fingerprint, Index};
use crate::data::photos::Naming;
use crate::files::write_whole;

/// A side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// Learned from.
    Train,
    /// Looked at while learning; calibration and thresholds are fitted on it.
    Validation,
    /// Touched once, for the table.
    Test,
}

/// The faces' sides, as kept beside the weights: names and photos as digests only, enough to know them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Split {
    /// How sides are decided, for people.
    pub(crate) rule: String,
    /// Which name told whose photo it is: who asks again asks by the same.
    #[serde(default)]
    pub(crate) naming: Naming,
    pub(crate) faces: Vec<Placed>,
    /// Whom the bundle that training started from knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inherited: Vec<Placed>,
}

/// Beside the weights.
const FILE: &str = "split.json";

/// A face and its side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) side: Side,
    /// The first 16 digits of the SHA-256 of the identity's name.
    pub(crate) identity: String,
    /// The photo's fingerprint.
    pub(crate) photo: Fingerprint,
}

impl Split {
    pub(crate) fn of(faces: &Faces, naming: Naming) -> Self {
        let placed = |(side, face): (Side, &Face)| Placed {
            side,
            identity: short(&face.identity),
            photo: face.fingerprint,
        };
        let faces = sides(faces).into_iter().zip(&faces.faces).map(placed).collect();
        Self { rule: rule(), naming, faces, inherited: Vec::new() }
    }

    /// What the bundle in `folder` says of whom it knows; `None`: nothing.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Puts it into the bundle in `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(FILE), serde_json::to_string(self)?.as_bytes())
    }

    /// Takes over whom `parent` knows: of these people none is tested with, and none that it learned from is validated with,
    /// in none of their photos.
    pub(crate) fn inherit(&mut self, faces: &Faces, parent: &Self) {
        let people = |of: &Known<'_>| faces.people_with(|face| of.has(face));
        let (known, learned) = (people(&parent.known()), people(&parent.on(|side| side == Side::Train)));
        for (placed, person) in self.faces.iter_mut().zip(&*faces.people.numbers()) {
            let tested = placed.side == Side::Test && known.contains(person);
            if tested || placed.side == Side::Validation && learned.contains(person) {
                placed.side = Side::Train;
            }
        }
        let known = parent.faces.iter().filter(|placed| placed.side != Side::Test);
        self.inherited = known.chain(&parent.inherited).cloned().collect();
    }

    /// Whoever it was calibrated with is known as well.
    pub(crate) fn calibrated_with(&mut self, faces: &[&Face]) {
        let known = self.known();
        let new = faces.iter().filter(|face| !known.has(face)).map(|face| Placed {
            side: Side::Validation,
            identity: short(&face.identity),
            photo: face.fingerprint,
        });
        let new: Vec<Placed> = new.collect();
        self.inherited.extend(new);
    }

    /// Numbers of the faces on that side.
    pub(crate) fn members(&self, side: Side) -> Vec<usize> {
        let on = self.faces.iter().enumerate().filter(|(_, placed)| placed.side == side);
        on.map(|(index, _)| index).collect()
    }

    /// Everybody who was learned from or validated with.
    pub(crate) fn known(&self) -> Known<'_> {
        self.on(|side| side != Side::Test)
    }

    fn on(&self, wanted: impl Fn(Side) -> bool) -> Known<'_> {
        let known: Vec<&Placed> =
            self.faces.iter().chain(&self.inherited).filter(|placed| wanted(placed.side)).collect();
        let identities = known.iter().map(|placed| &*placed.identity).collect();
        Known { identities, photos: Index::of(known.iter().map(|placed| placed.photo)) }
    }

    /// Changes with any face or side.
    pub(crate) fn digest(&self) -> String {
        let lines =
            self.faces.iter().map(|face| format!("{:?} {} {:?}\n", face.side, face.identity, face.photo));
        hex::encode(Sha256::digest(lines.collect::<String>()))
    }
}

fn short(identity: &str) -> String {
    hex::encode(Sha256::digest(identity.as_bytes()))[..16].to_owned()
}

/// Whom a bundle knows.
pub(crate) struct Known<'a> {
    /// Digests of their names.
    identities: HashSet<&'a str>,
    photos: Index,
}

impl Known<'_> {
    /// Whether the identity or a near-duplicate of the photo is known.
    pub(crate) fn has(&self, face: &Face) -> bool {
        self.identities.contains(&*short(&face.identity))
            || self.photos.near(face.fingerprint).next().is_some()
    }
}

/// Percent of the identities that are tested with, and that are validated with.
const TEST: u64 = 17;
const VALIDATION: u64 = 10;

/// For people.
fn rule() -> String {
    format!(
        "SHA-256 of the identity's name (identities that share a near-duplicate photo count as one, under the first of their \
         names) modulo 100: below {TEST} test, below {} validation, else train",
        TEST + VALIDATION
    )
}

/// The side of each face by [`rule`]: a function of the names, so that neither order nor number of the photos nor any result
/// can move an identity. Only a photo that makes one person of two can.
fn sides(faces: &Faces) -> Vec<Side> {
    (0..faces.faces.len()).map(|face| side(faces.people.first_name(face))).collect()
}

fn side(name: &str) -> Side {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let place = digest[..8].iter().fold(0u64, |number, byte| (number << 8 | u64::from(*byte)) % 100);
    match place {
        place if place < TEST => Side::Test,
        place if place < TEST + VALIDATION => Side::Validation,
        _ => Side::Train,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::faces::tests::unpainted;

    fn face(identity: &str, word: u64) -> Face {
        let fingerprint = Fingerprint([word, !word, word.rotate_left(9), word.rotate_left(21)]);
        let path = format!("{identity}.jpg").into();
        Face { identity: identity.to_owned(), path, landmarks: [[0.0; 2]; 5], size: 100.0, fingerprint }
    }

    #[test]
    fn a_name_decides_whatever_stands_beside_it() {
        let fingerprint = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let faces: Vec<Face> =
            (0..2000).map(|index| face(&format!("p{index}"), fingerprint(index))).collect();
        let all = sides(&unpainted(faces.clone()));
        let share = |side| all.iter().filter(|found| **found == side).count() as f64 / 2000.0;
        assert!((share(Side::Test) - 0.17).abs() < 0.03, "{}", share(Side::Test));
        assert!((share(Side::Validation) - 0.10).abs() < 0.03, "{}", share(Side::Validation));
        let reversed: Vec<Face> = faces.iter().rev().take(500).cloned().collect();
        assert!(sides(&unpainted(reversed)).iter().rev().eq(&all[1500..]));
    }

    #[test]
    fn a_bundle_knows_whom_its_parent_knew_and_whom_it_was_calibrated_with() {
        let people = |from: u64, to: u64| -> Vec<Face> {
            (from..to).map(|i| face(&format!("p{i}"), (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
        };
        let (old, new) = (people(0, 100), people(50, 150));
        let (old, new) = (unpainted(old), unpainted(new));
        let parent = Split::of(&old, Naming::File);
        let known = parent.known();
        let mut child = Split::of(&new, Naming::File);
        // As if another naming had put them elsewhere.
        child.faces.iter_mut().step_by(3).for_each(|placed| placed.side = Side::Validation);
        child.inherit(&new, &parent);
        let learned = parent.on(|side| side == Side::Train);
        for (place, face) in new.faces.iter().enumerate() {
            let side = child.faces[place].side;
            assert!(side != Side::Test || !known.has(face), "{}", face.identity);
            assert!(side != Side::Validation || !learned.has(face), "{}", face.identity);
        }
        assert!(child.faces.iter().any(|placed| placed.side == Side::Validation), "others stay");
        let before = child.known();
        let is_new = |face: &Face| new.faces.contains(face);
        assert!(old.faces.iter().all(|face| before.has(face) == known.has(face) || is_new(face)));
        let tested: Vec<&Face> = new.faces.iter().filter(|face| !before.has(face)).collect();
        child.calibrated_with(&tested[..1]);
        assert!(child.known().has(tested[0]) && !child.known().has(tested[1]));
    }

    /// The parent went by the files' names and learned from one photo of each person: the child, which goes by the folders',
    /// neither validates nor tests with any photo of them.
    #[test]
    fn whoever_is_known_by_one_photo_is_known_by_all() {
        let photos =
            |person: u64| [0, 1].map(|photo| (2 * person + photo + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let named = |person: u64| photos(person).map(|photo| face(&format!("p{person}"), photo));
        let new = unpainted((0..100).flat_map(named).collect());
        let learned = |person| Placed {
            side: Side::Train,
            ..Split::of(&unpainted(vec![face("1", photos(person)[0])]), Naming::File).faces[0].clone()
        };
        let parent = Split { faces: (0..50).map(learned).collect(), ..Split::default() };
        let mut child = Split::of(&new, Naming::Folder);
        child.inherit(&new, &parent);
        for (person, sides) in child.faces.chunks(2).enumerate() {
            assert_eq!(sides[0].side, sides[1].side, "person {person}");
            assert!(person >= 50 || sides[0].side == Side::Train, "person {person}");
        }
        assert!(!child.members(Side::Test).is_empty() && !child.members(Side::Validation).is_empty());
    }

    #[test]
    fn neither_an_identity_nor_a_photo_stands_on_two_sides() {
        let mut faces: Vec<Face> = (0..200u64)
            .map(|i| face(&format!("p{}", i / 2), i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        faces.push(face("another-name", 1));
        let found = sides(&unpainted(faces));
        assert!(found.chunks(2).take(100).all(|pair| pair[0] == pair[1]));
        assert_eq!(found[0], found[200], "the same photo under another name");
    }
}
