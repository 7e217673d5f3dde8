//! `connection.toml`: what a client of this standalone has to know, so that nobody types it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::object_store::Credentials;
use crate::start::Addresses;

/// Requests are signed for this region; the embedded store takes any.
const REGION: &str = "us-east-1";

const HEADER: &str = "\
# Written by touchstone-standalone at every start, and removed when it ends in good order.
# Whoever can read this file can read and replace its media.
";

#[derive(serde::Serialize)]
struct Connection<'a> {
    endpoint: String,
    admin: String,
    bucket: &'a str,
    s3: Store<'a>,
}

#[derive(serde::Serialize)]
struct Store<'a> {
    endpoint: &'a str,
    region: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
}

/// Where it lies in a data folder.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("connection.toml")
}

/// Writes the file for this user's eyes only; whole, or not at all.
pub(crate) fn write(
    folder: &Path,
    addresses: &Addresses,
    bucket: &str,
    credentials: &Credentials,
) -> io::Result<()> {
    let connection = Connection {
        endpoint: format!("http://{}", addresses.grpc),
        admin: addresses.admin.map(|admin| format!("http://{admin}")).unwrap_or_default(),
        bucket,
        s3: Store {
            endpoint: &addresses.s3,
            region: REGION,
            access_key_id: &credentials.access_key,
            secret_access_key: credentials.secret_key.expose(),
        },
    };
    let text = toml::to_string(&connection).map_err(io::Error::other)?;
    let partial = path(folder).with_extension("partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // of a start that was cut off
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(HEADER.as_bytes())?;
    file.write_all(text.as_bytes())?;
    fs::rename(&partial, path(folder))
}

/// Takes the file away: its ports are free for others now.
pub(crate) fn remove(folder: &Path) {
    if let Err(error) = fs::remove_file(path(folder))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "connection.toml stays behind");
    }
}
