//! The key pair of the embedded store.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ops::config::Secret;
use serde::{Deserialize, Serialize};

/// What a client signs its requests with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Says who signs; no secret.
    pub access_key: String,
    /// Signs.
    pub secret_key: Secret,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    access_key: String,
    secret_key: String,
}

impl Credentials {
    /// Reads the pair kept in `path`, or makes one that only this user can read.
    pub(super) fn load_or_make(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => {
                // An operator may have copied the folder about.
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                let stored: Stored = toml::from_str(&text).map_err(|_| {
                    // Not toml's own message, which quotes the line.
                    io::Error::new(io::ErrorKind::InvalidData, "credentials.toml cannot be read")
                })?;
                Ok(Credentials { access_key: stored.access_key, secret_key: Secret::new(stored.secret_key) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let credentials = Self::random()?;
                credentials.keep(path)?;
                Ok(credentials)
            }
            Err(error) => Err(error),
        }
    }

    fn random() -> io::Result<Self> {
        let bytes = random::<40>()?;
        let (name, secret) = bytes.split_at(8);
        Ok(Credentials {
            access_key: format!("TS{}", hex::encode_upper(name)),
            secret_key: Secret::new(URL_SAFE_NO_PAD.encode(secret)),
        })
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        let stored =
            Stored { access_key: self.access_key.clone(), secret_key: self.secret_key.expose().to_string() };
        let text = toml::to_string(&stored).map_err(io::Error::other)?;
        let partial = path.with_extension("partial");
        drop(fs::remove_file(&partial)); // from a start that was cut off
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }
}

/// Bytes from the system's source of randomness.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_for_the_next_start_and_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        let first = Credentials::load_or_make(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Credentials::load_or_make(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(first.secret_key.expose()));

        let other = folder.path().join("other.toml");
        assert_ne!(Credentials::load_or_make(&other).unwrap(), first);
        fs::write(&path, "secret_key = 'canary").unwrap();
        assert!(!Credentials::load_or_make(&path).unwrap_err().to_string().contains("canary"));
    }
}
