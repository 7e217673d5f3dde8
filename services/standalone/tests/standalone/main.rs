//! Standalones in this process, with the scripted engines: what their users see of them.
#![recursion_limit = "256"] // the future of everything in one process is deep

mod command_line;
mod life;
mod stage;
