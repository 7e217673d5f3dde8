//! Photos become faces on one side of a split.

pub(crate) mod faces;
pub(crate) mod labels;
pub(crate) mod near_duplicates;
pub(crate) mod people;
pub(crate) mod photos;
pub(crate) mod split;
