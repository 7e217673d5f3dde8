//! The promises of a fleet: real processes over a real Kafka, S3 server and database.

mod at_start;
mod crash;
mod elsewhere;
mod outages;
mod owners;
