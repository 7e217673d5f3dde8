//! One end-to-end test per promise of the README.

mod bad_input;
mod crash;
mod default_model;
mod demo;
mod disk_full;
mod drain;
mod grpc;
mod own_model;
