//! The store's settings: as written ([`S3Settings`]), and checked ([`S3Config`]).

use std::time::Duration;

use ops::config::{ByteSize, ConfigError, HumanDuration, Problems, Secret};
use serde::{Deserialize, Serialize};

/// The table `[s3]` as written; each knob is explained in [`crate::DEFAULTS`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct S3Settings {
    pub endpoint: String,
    pub region: String,
    pub path_style: bool,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Secret,
    pub expected_bucket_owner: String,
    pub connect_timeout: HumanDuration,
    pub attempt_timeout: HumanDuration,
    pub operation_timeout: HumanDuration,
    pub stall_timeout: HumanDuration,
    pub connections_max: u32,
    pub object_bytes_max: ByteSize,
    pub bytes_in_flight_max: ByteSize,
    pub attempts_max: u32,
    pub retry_ratio: f64,
    pub retry_reserve: u32,
    pub backoff_base: HumanDuration,
    pub backoff_max: HumanDuration,
    pub prefix_objects_max: u32,
}

/// Who we are to the store.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Keys from the configuration.
    Keys {
        /// The access key.
        access_key_id: String,
        /// Its secret.
        secret_access_key: Secret,
        /// The token of temporary keys.
        session_token: Option<Secret>,
    },
    /// AWS' default chain, refreshed before they expire.
    DefaultChain,
}

/// Checked settings of one store.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The store's URL; `None` for AWS itself.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Bucket in the path instead of in the host's name.
    pub path_style: bool,
    /// Who we are.
    pub credentials: Credentials,
    /// The account that must own every bucket.
    pub expected_bucket_owner: Option<String>,
    /// For opening a connection.
    pub connect_timeout: Duration,
    /// For one attempt: to the response's head, and again for its body.
    pub attempt_timeout: Duration,
    /// For one operation with all its attempts.
    pub operation_timeout: Duration,
    /// A body that stands still for so long is given up.
    pub stall_timeout: Duration,
    /// Requests in flight, and idle connections kept.
    pub connections_max: usize,
    /// Larger objects are refused.
    pub object_bytes_max: usize,
    /// Bytes of fetched objects in memory at once; at least `object_bytes_max`.
    pub bytes_in_flight_max: usize,
    /// Attempts of one operation, the first included.
    pub attempts_max: u32,
    /// Retries a request earns.
    pub retry_ratio: f64,
    /// Retries that may be saved up.
    pub retry_reserve: u32,
    /// The first pause is drawn from zero to this.
    pub backoff_base: Duration,
    /// No pause is longer.
    pub backoff_max: Duration,
    /// A prefix with more objects is refused.
    pub prefix_objects_max: usize,
}

impl S3Settings {
    /// The checked configuration, or everything that is wrong with it.
    pub fn check(self) -> Result<S3Config, ConfigError> {
        let mut problems = Problems::default();
        let endpoint = (!self.endpoint.is_empty()).then_some(self.endpoint);
        if let Some(url) = &endpoint
            && let Err(why) = check_endpoint(url)
        {
            problems.add("s3.endpoint", why);
        }
        problems.require(!self.region.is_empty(), "s3.region", "is empty; any name will do for most stores");
        let keys = (self.access_key_id.is_empty(), self.secret_access_key.is_empty());
        problems.require(
            keys.0 == keys.1,
            "s3.access_key_id",
            "give both access_key_id and secret_access_key, or neither for the default chain",
        );
        let owner = (!self.expected_bucket_owner.is_empty()).then_some(self.expected_bucket_owner);
        let owner_ok = |owner: &String| owner.bytes().all(|b| b.is_ascii_alphanumeric());
        problems.require(
            owner.as_ref().is_none_or(owner_ok),
            "s3.expected_bucket_owner",
            "is not an account id",
        );
        for (key, duration) in [
            ("s3.connect_timeout", self.connect_timeout),
            ("s3.attempt_timeout", self.attempt_timeout),
            ("s3.operation_timeout", self.operation_timeout),
            ("s3.stall_timeout", self.stall_timeout),
        ] {
            problems.require(!duration.get().is_zero(), key, "must be longer than nothing");
        }
        problems.require(self.connections_max > 0, "s3.connections_max", "must be at least 1");
        problems.require(self.attempts_max > 0, "s3.attempts_max", "must be at least 1");
        problems.require((0.0..=1.0).contains(&self.retry_ratio), "s3.retry_ratio", "must be 0 to 1");
        problems.require(self.prefix_objects_max > 0, "s3.prefix_objects_max", "must be at least 1");
        let (object, in_flight) = (self.object_bytes_max.as_usize(), self.bytes_in_flight_max.as_usize());
        problems.require(object > 0, "s3.object_bytes_max", "must be at least 1 byte");
        problems.require(
            object <= in_flight && u32::try_from(in_flight).is_ok(),
            "s3.bytes_in_flight_max",
            "must be at least object_bytes_max and below 4GiB",
        );
        let credentials = if self.access_key_id.is_empty() {
            Credentials::DefaultChain
        } else {
            Credentials::Keys {
                access_key_id: self.access_key_id,
                secret_access_key: self.secret_access_key,
                session_token: (!self.session_token.is_empty()).then_some(self.session_token),
            }
        };
        problems.finish(S3Config {
            endpoint,
            region: self.region,
            path_style: self.path_style,
            credentials,
            expected_bucket_owner: owner,
            connect_timeout: self.connect_timeout.get(),
            attempt_timeout: self.attempt_timeout.get(),
            operation_timeout: self.operation_timeout.get(),
            stall_timeout: self.stall_timeout.get(),
            connections_max: self.connections_max as usize,
            object_bytes_max: object,
            bytes_in_flight_max: in_flight,
            attempts_max: self.attempts_max,
            retry_ratio: self.retry_ratio,
            retry_reserve: self.retry_reserve,
            backoff_base: self.backoff_base.get(),
            backoff_max: self.backoff_max.get(),
            prefix_objects_max: self.prefix_objects_max as usize,
        })
    }
}

/// Scheme and authority only: no user, no path, no query; and never a link-local address, where clouds
/// keep their credentials.
fn check_endpoint(url: &str) -> Result<(), String> {
    let authority = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or("must start with http:// or https://")?
        .trim_end_matches('/');
    if authority.is_empty()
        || authority.contains(['/', '?', '#', '@'])
        || authority.contains(char::is_whitespace)
    {
        return Err("must be scheme, host and port only, such as http://127.0.0.1:9000".to_owned());
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let link_local = match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(v4)) => v4.is_link_local(),
        Ok(std::net::IpAddr::V6(v6)) => {
            v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local())
        }
        Err(_) => false,
    };
    if link_local { Err(format!("{host} is a link-local address")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Defaults {
        s3: S3Settings,
        decode: crate::DecodeSettings,
    }

    fn load() -> Defaults {
        ops::config::load(crate::DEFAULTS, None, "X", std::iter::empty()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn defaults() -> S3Settings {
        load().s3
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = defaults().check().unwrap();
        assert_eq!(config.object_bytes_max, 32 << 20);
        assert!(matches!(config.credentials, Credentials::DefaultChain));
        let decode = load().decode.check().unwrap();
        assert!(decode.threads > 0);
        assert_eq!(decode.limits, crate::DecodeLimits::default());
    }

    #[test]
    fn every_error_is_listed() {
        let mut settings = defaults();
        settings.endpoint = "http://user@169.254.169.254/".to_owned();
        settings.access_key_id = "only-one-half".to_owned();
        settings.attempts_max = 0;
        settings.bytes_in_flight_max = ByteSize::new(1);
        assert_eq!(settings.check().unwrap_err().errors.len(), 4);
    }

    #[test]
    fn an_endpoint_is_a_host_and_never_link_local() {
        for good in ["http://127.0.0.1:9000", "https://s3.example.com", "http://[::1]:9000", "http://store/"]
        {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "ftp://x",
            "http://",
            "http://a/b",
            "http://u:p@a",
            "http://a?x",
            "http://169.254.169.254",
            "http://[fe80::1]:80",
            "http://[::ffff:169.254.169.254]",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
