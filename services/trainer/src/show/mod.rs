//! What was found out, for people: pictures, the card, and both in the bundle.

pub(crate) mod card;
pub(crate) mod pictures;
pub mod plots;
pub(crate) mod record;
pub mod sheet;
