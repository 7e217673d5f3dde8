//! `touchstone`: the command line for people.
//!
//! In go files, folders, `s3://` URIs and questions; out come verdicts as a table or as JSON, one object a line,
//! and an exit code of `sysexits.h`.
//!
//! It knows neither log nor SQL and judges nothing: everything goes over gRPC, but for uploads (the room `media`)
//! and model bundles (the room `models`, feature `torch`). It never asks a question back, so that scripts can use it.
//!
//! Start reading at [`run`], then `arguments.rs`, which is the manual, then `submit.rs`.
//!
//! Before you change anything: commands, flags, JSON fields and exit codes are a contract with people's scripts.
//! Standard output carries answers only; progress, hints and errors go to standard error.

mod arguments;
mod client;
mod commands;
mod failure;
mod filter;
mod run;
mod settings;
mod submit;
mod terminal;
mod time;
mod verdict_view;

pub use arguments::command;
pub use failure::Status;
pub use run::{Surroundings, run};
