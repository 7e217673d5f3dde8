//! Configuration in three layers: the service's `defaults.toml`, a file, the environment.
//!
//! A service deserialises a *raw* struct with [`load`], then checks it into a `Config` whose fields need no
//! further checking, collecting what is wrong in [`Problems`]: an operator sees every error at once.

mod layers;
mod secret;
mod units;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use secret::Secret;
pub use units::{ByteSize, HumanDuration};

use layers::Layers;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One sentence for each thing, naming the key and where it was set.
    pub errors: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not valid:")?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// Reads `Raw` from `defaults`, then `file`, then the environment's `PREFIX__SECTION__KEY` variables
/// (`__` goes one level down; values are TOML, bare text, or `a,b,c` where the default is a list).
///
/// A key that `Raw` does not know is an error, and so is a value that does not fit; all are listed.
/// `Raw` itself must not say `deny_unknown_fields`, which would stop at the first.
pub fn load<Raw: DeserializeOwned>(
    defaults: &str,
    file: Option<&Path>,
    env_prefix: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Raw, ConfigError> {
    let mut layers = Layers::new(defaults).map_err(|error| ConfigError { errors: vec![error] })?;
    if let Some(file) = file {
        layers.add_file(file);
    }
    layers.add_environment(env_prefix, env);
    layers.read().map_err(|errors| ConfigError { errors })
}

/// The effective configuration as TOML, for the log and for `config show`: a [`Secret`] serialises as its
/// file's name or as `[redacted]`.
pub fn render<T: Serialize>(config: &T) -> String {
    toml::to_string(config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// Collects what is wrong while a raw configuration is checked.
#[derive(Debug, Default)]
pub struct Problems {
    errors: Vec<String>,
}

impl Problems {
    /// Notes that `key` is wrong, and why.
    pub fn add(&mut self, key: &str, why: impl fmt::Display) {
        self.errors.push(format!("{key}: {why}"));
    }

    /// Notes that `key` is wrong unless `holds`.
    pub fn require(&mut self, holds: bool, key: &str, why: impl fmt::Display) {
        if !holds {
            self.add(key, why);
        }
    }

    /// The value of `result`; an error is noted for `key` and `None` given.
    pub fn take<T, E: fmt::Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(key, error)).ok()
    }

    /// Takes over what another check found.
    pub fn absorb<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.errors.extend(error.errors)).ok()
    }

    /// `value` if nothing was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigError { errors: self.errors }) }
    }

    /// Nothing, or everything that was wrong.
    pub fn into_result(self) -> Result<(), ConfigError> {
        self.finish(())
    }
}

#[cfg(test)]
mod tests;
