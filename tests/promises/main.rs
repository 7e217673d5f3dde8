//! One end-to-end test per promise of the README.

mod bad_input;
mod crash;
mod demo;
mod disk_full;
mod drain;
mod grpc;
