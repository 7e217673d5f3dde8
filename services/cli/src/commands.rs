//! One file a command; `submit` is the large one and stands beside this module.

mod completions;
mod config;
mod get;
mod list;
#[cfg(feature = "torch")]
mod model;
mod verify;
mod watch;

pub(crate) use completions::completions;
pub(crate) use config::config;
pub(crate) use get::get;
pub(crate) use list::list;
#[cfg(feature = "torch")]
pub(crate) use model::model;
pub(crate) use verify::verify;
pub(crate) use watch::watch;
