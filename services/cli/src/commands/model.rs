//! `touchstone model`: filled in when the room `models` offers bundles.

use crate::arguments::Model;
use crate::failure::{Failure, Status};
use crate::terminal::Terminal;

pub(crate) fn model(_what: Model, _terminal: &mut Terminal) -> Result<Status, Failure> {
    Err(Failure::new(Status::Software, "not built yet"))
}
