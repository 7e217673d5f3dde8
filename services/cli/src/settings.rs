//! The command line's configuration: defaults, file, environment, a standalone's data folder, flags.

use std::path::{Path, PathBuf};

use media::S3Settings;
use ops::config::{ConfigError, HumanDuration, Problems, Secret};
use serde::{Deserialize, Serialize};

use crate::arguments::Global;
use crate::failure::{Failure, Status};

const DEFAULTS: &str = include_str!("../defaults.toml");

/// `TOUCHSTONE__CONNECTION__ENDPOINT`
const ENVIRONMENT_PREFIX: &str = "TOUCHSTONE";

/// What a standalone writes into its data folder, and `make fleet` into its own.
const CONNECTION_FILE: &str = "connection.toml";

/// Every knob; `defaults.toml` and the room `media` explain them.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) connection: Connection,
    pub(crate) upload: Upload,
    pub(crate) s3: S3Settings,
    /// The other table of the room `media`; nothing is decoded here.
    #[serde(rename = "decode", skip_serializing)]
    _decode: toml::Table,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Connection {
    pub(crate) endpoint: String,
    pub(crate) query: String,
    pub(crate) tenant: String,
    pub(crate) data: String,
    pub(crate) connect_timeout: HumanDuration,
    pub(crate) call_deadline: HumanDuration,
    pub(crate) keepalive_interval: HumanDuration,
    pub(crate) keepalive_timeout: HumanDuration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) concurrency: u32,
}

/// The part of `connection.toml` that matters here.
#[derive(Deserialize)]
struct Standalone {
    endpoint: String,
    /// A fleet's; a standalone has one address for both.
    #[serde(default)]
    query: String,
    bucket: String,
    s3: StandaloneStore,
}

#[derive(Deserialize)]
struct StandaloneStore {
    endpoint: String,
    region: String,
    access_key_id: String,
    secret_access_key: Secret,
}

impl Settings {
    /// Reads all layers and checks the result.
    pub(crate) fn load(global: &Global, environment: Vec<(String, String)>) -> Result<Self, Failure> {
        let file = global.config.clone().or_else(|| usual_file(&environment));
        let defaults = format!("{DEFAULTS}\n{}", media::DEFAULTS);
        let mut settings: Self =
            ops::config::load(&defaults, file.as_deref(), ENVIRONMENT_PREFIX, environment.into_iter())?;
        if let Some(folder) = &global.data {
            settings.connection.data = folder.display().to_string();
        }
        if !settings.connection.data.is_empty() {
            let folder = PathBuf::from(&settings.connection.data);
            settings.connect_to(read_standalone(&folder)?);
        }
        if let Some(endpoint) = &global.endpoint {
            settings.connection.endpoint.clone_from(endpoint);
            settings.connection.query.clear();
        }
        if let Some(query) = &global.query {
            settings.connection.query.clone_from(query);
        }
        if let Some(tenant) = &global.tenant {
            settings.connection.tenant.clone_from(tenant);
        }
        settings.check()?;
        Ok(settings)
    }

    fn connect_to(&mut self, standalone: Standalone) {
        self.connection.endpoint = standalone.endpoint;
        self.connection.query = standalone.query;
        self.upload.bucket = standalone.bucket;
        self.s3.endpoint = standalone.s3.endpoint;
        self.s3.region = standalone.s3.region;
        self.s3.path_style = true;
        self.s3.access_key_id = standalone.s3.access_key_id;
        self.s3.secret_access_key = standalone.s3.secret_access_key;
    }

    fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        let Connection { endpoint, query, tenant, .. } = &self.connection;
        for (key, address) in [("connection.endpoint", endpoint), ("connection.query", query)] {
            problems.require(
                address.is_empty() || address.starts_with("http://") || address.starts_with("https://"),
                key,
                format_args!("must start with http:// or https://, got {address:?}"),
            );
        }
        let tenant_ok = (1..=63).contains(&tenant.len())
            && tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let want = format_args!("must be 1 to 63 of a-z, 0-9 and -, got {tenant:?}").to_string();
        problems.require(tenant_ok, "connection.tenant", want);
        for (key, time) in [
            ("connection.connect_timeout", self.connection.connect_timeout),
            ("connection.call_deadline", self.connection.call_deadline),
            ("connection.keepalive_interval", self.connection.keepalive_interval),
            ("connection.keepalive_timeout", self.connection.keepalive_timeout),
        ] {
            problems.require(!time.get().is_zero(), key, "must be longer than nothing");
        }
        problems.require(self.upload.concurrency > 0, "upload.concurrency", "must be at least 1");
        problems.absorb(self.s3.clone().check());
        problems.into_result()
    }
}

/// `$XDG_CONFIG_HOME/touchstone/cli.toml` or `~/.config/touchstone/cli.toml`, if it is there.
fn usual_file(environment: &[(String, String)]) -> Option<PathBuf> {
    let variable = |wanted: &str| {
        let found = environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("touchstone/cli.toml")).filter(|file| file.is_file())
}

fn read_standalone(folder: &Path) -> Result<Standalone, Failure> {
    let path = folder.join(CONNECTION_FILE);
    let start = format!("start one there: touchstone-standalone --data {}", folder.display());
    let text =
        std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error).next(start.clone()))?;
    // The parser's own message would quote the line, and that may be the secret's.
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        Failure::new(Status::Usage, format_args!("{}: {}", path.display(), error.message())).next(start)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn load(line: &str, environment: &[(&str, &str)]) -> Result<Settings, Failure> {
        let global = Arguments::try_parse_from(line.split(' ')).unwrap().global;
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::load(&global, environment.collect())
    }

    #[test]
    fn a_flag_beats_the_data_folder_beats_the_environment_beats_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cli.toml");
        std::fs::write(&file, "[connection]\ntenant = \"of-file\"\nendpoint = \"http://of-file\"\n").unwrap();
        std::fs::write(
            folder.path().join(CONNECTION_FILE),
            "endpoint = \"http://of-data\"\nquery = \"http://query-of-data\"\nbucket = \"media\"\nadmin = \"http://x\"\n[s3]\nendpoint = \
             \"http://127.0.0.1:1\"\nregion = \"here\"\naccess_key_id = \"key\"\nsecret_access_key = \"hush\"\n",
        )
        .unwrap();
        let line = format!("touchstone list --config {}", file.display());
        assert_eq!(load(&line, &[]).unwrap().connection.tenant, "of-file");
        let environment = [
            ("TOUCHSTONE__CONNECTION__TENANT", "of-env"),
            ("TOUCHSTONE__CONNECTION__ENDPOINT", "http://of-env"),
        ];
        let settings = load(&line, &environment).unwrap();
        assert_eq!(
            (&*settings.connection.tenant, &*settings.connection.endpoint),
            ("of-env", "http://of-env")
        );
        let line = format!("{line} --data {}", folder.path().display());
        let settings = load(&line, &environment).unwrap();
        assert_eq!(settings.connection.endpoint, "http://of-data");
        assert_eq!(settings.connection.query, "http://query-of-data");
        assert_eq!((&*settings.upload.bucket, settings.s3.secret_access_key.expose()), ("media", "hush"));
        assert!(!ops::config::render(&settings).contains("hush"), "config show hides secrets");
        let settings =
            load(&format!("{line} --endpoint http://of-flag --tenant of-flag"), &environment).unwrap();
        assert_eq!(
            (&*settings.connection.tenant, &*settings.connection.endpoint),
            ("of-flag", "http://of-flag")
        );
        assert_eq!(settings.connection.query, "", "the folder's goes with the folder's endpoint");
    }

    #[test]
    fn all_that_is_wrong_is_listed() {
        let error = load(
            "touchstone list --endpoint 127.0.0.1:7411",
            &[("TOUCHSTONE__CONNECTION__TENANT", "Acme"), ("TOUCHSTONE__UPLOAD__CONCURRENCY", "0")],
        )
        .unwrap_err();
        assert_eq!(error.status, Status::Usage);
        for part in ["connection.endpoint", "connection.tenant", "upload.concurrency"] {
            assert!(error.cause.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_folder_without_a_standalone_says_how_to_start_one() {
        let error = load("touchstone list --data /nowhere/at/all", &[]).unwrap_err();
        assert_eq!(error.status, Status::NoInput);
        assert!(
            error.to_string().contains("next: start one there: touchstone-standalone --data /nowhere/at/all")
        );
    }
}
