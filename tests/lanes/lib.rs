//! What makes both lanes of the Makefile build their dependencies alike, and so once.
//!
//! Cargo chooses the features of a dependency for a whole selection of packages. The lanes select different packages,
//! and a handful of features near the roots (serde's, tokio's) differed between them: a hundred crates above those, the
//! AWS client, librdkafka and SQLite among them, were built twice. This package asks for what either lane asks for. It
//! is part of every selection, and nobody depends on it: what is shipped has nothing of it.
//!
//! It has no code. `tidy` says what is missing in its Cargo.toml.
