//! Secrets: written literally or as `file:/path`, never shown.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// A secret: `"literal"`, or `"file:/path"` whose content (without the trailing line end) it is.
/// `Debug` and `Serialize` show where it came from, never what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    file: Option<String>,
}

impl Secret {
    /// A secret made within the process.
    pub fn new(value: impl Into<String>) -> Self {
        Secret { value: value.into(), file: None }
    }

    /// Reads `literal` or `file:/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("file:") else { return Ok(Secret::new(text)) };
        let content =
            std::fs::read_to_string(path).map_err(|error| format!("secret file {path}: {error}"))?;
        let value = content.trim_end_matches(['\n', '\r']);
        if value.is_empty() {
            return Err(format!("secret file {path}: is empty"));
        }
        Ok(Secret { value: value.to_string(), file: Some(text.to_string()) })
    }

    /// The secret itself: to hand to whoever asks for it, never to a log.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    fn shown(&self) -> &str {
        match &self.file {
            Some(file) => file,
            None if self.value.is_empty() => "",
            None => "[redacted]",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// serde's own messages quote the value they refuse; these do not.
struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret as text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Secret::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom("a secret is text: put it in quotes"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom("a secret is text: put it in quotes"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom("a secret is text: put it in quotes"))
    }
}
