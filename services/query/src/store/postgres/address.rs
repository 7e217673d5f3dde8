//! Where the server is, who we are to it, and how the way there is guarded: what the URL says, checked.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};

/// A checked `postgresql://` URL. What it shows of itself never has the password.
#[derive(Clone)]
pub struct Address {
    pub(super) config: tokio_postgres::Config,
    /// With it every connection is encrypted, to a server whose certificate was verified.
    pub(super) tls: Option<Arc<ClientConfig>>,
    place: Arc<str>,
}

impl Address {
    /// Reads `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`.
    ///
    /// `sslmode=verify-full` encrypts, and verifies the server's name and certificate, against the machine's
    /// authorities or those of `sslrootcert=FILE`. `require` is taken as the same: encryption to nobody known
    /// protects little. `disable` does neither, and is the default on loopback alone.
    ///
    /// # Errors
    /// What is wrong and what would be right, without quoting the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (stem, parameters) = split(url)?;
        let (mut kept, mut mode, mut roots) = (Vec::new(), None, None);
        for parameter in parameters {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => roots = Some(value),
                _ => kept.push(parameter),
            }
        }
        let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        let parsed: Result<tokio_postgres::Config, _> = format!("{stem}{query}").parse();
        let mut config = parsed.map_err(|error| with_causes(&error))?;
        let place = place(&config)?;
        let tls = match mode {
            None if config.get_hosts().iter().all(is_local) && config.get_hostaddrs().is_empty() => None,
            None => {
                return Err(
                    "must say sslmode=verify-full; or sslmode=disable, where the way to the server is \
                                guarded by other means"
                        .to_owned(),
                );
            }
            Some("disable") => None,
            Some("require" | "verify-full") => Some(Arc::new(client_config(roots.map(Path::new))?)),
            Some("allow" | "prefer") => {
                return Err(
                    "sslmode allow and prefer go unencrypted without a word: say verify-full, or disable"
                        .to_owned(),
                );
            }
            Some("verify-ca") => {
                return Err("sslmode verify-ca is not known here: say verify-full".to_owned());
            }
            Some(_) => return Err("sslmode must be verify-full, require or disable".to_owned()),
        };
        if tls.is_none() && roots.is_some() {
            return Err("sslrootcert goes with sslmode=verify-full".to_owned());
        }
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if config.get_application_name().is_none() {
            config.application_name("touchstone-query");
        }
        Ok(Self { config, tls, place: place.into() })
    }

    /// For people: everything but the password.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// What stands before the parameters, and the parameters.
fn split(url: &str) -> Result<(&str, Vec<&str>), String> {
    let scheme = ["postgresql://", "postgres://"].into_iter().find(|scheme| url.starts_with(scheme));
    let scheme = scheme.ok_or("must begin with postgresql://")?;
    // A password may hold a question mark.
    let host = url.find('@').map_or(scheme.len(), |at| at + 1);
    Ok(match url[host..].find('?') {
        Some(at) => (&url[..host + at], url[host + at + 1..].split('&').filter(|p| !p.is_empty()).collect()),
        None => (url, Vec::new()),
    })
}

fn place(config: &tokio_postgres::Config) -> Result<String, String> {
    // The library would take the name of this process's user for each.
    let user = config.get_user().ok_or("must name a user: postgresql://USER@HOST/DATABASE")?;
    let database = config.get_dbname().ok_or("must name a database: postgresql://USER@HOST/DATABASE")?;
    let ports = config.get_ports();
    let mut hosts = Vec::new();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        hosts.push(match host {
            // What follows it would be the end of a password, and be shown.
            Host::Tcp(name) if name.contains('@') => {
                return Err("an @ in the password is written %40".to_owned());
            }
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        });
    }
    if hosts.is_empty() {
        return Err("must name a host: postgresql://USER@HOST/DATABASE".to_owned());
    }
    Ok(format!("postgresql://{user}@{}/{database}", hosts.join(",")))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn client_config(roots: Option<&Path>) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    let added = match roots {
        Some(file) => {
            let named = |error: &dyn fmt::Display| format!("sslrootcert {}: {error}", file.display());
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| named(&error))?;
            let certificates: Result<Vec<_>, _> = certificates.collect();
            store.add_parsable_certificates(certificates.map_err(|error| named(&error))?)
        }
        None => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if added.0 == 0 {
        return Err("no certificate authority was found: name a PEM file with sslrootcert=FILE".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// An error and what it comes from; the library's own text is but the headline.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_password() {
        let address = Address::parse("postgresql://ada:s3cret?%40@localhost:5433/verdicts").unwrap();
        assert_eq!(address.place(), "postgresql://ada@localhost:5433/verdicts");
        assert_eq!(address.config.get_password(), Some(&b"s3cret?@"[..]));
        assert!(!format!("{address:?} {:?}", address.config).contains("s3cret"));
        let beside = Address::parse("postgresql://ada@127.0.0.1/v?password=s3cret").unwrap();
        assert!(beside.has_password() && !beside.place().contains("s3cret"));
    }

    #[test]
    fn a_wrong_url_is_told_what_would_be_right_and_never_quoted() {
        let wrong = |url: &str| {
            let error = Address::parse(url).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
            error
        };
        assert!(wrong("mysql://u:s3cret@h/d").contains("postgresql://"));
        assert!(wrong("postgresql://u:a@s3cret@localhost/d").contains("%40"));
        assert!(wrong("postgresql://localhost/d").contains("user"));
        assert!(wrong("postgresql://u:s3cret@localhost").contains("database"));
        assert!(wrong("postgresql://u:s3cret@/d").contains("host"));
        assert!(wrong("postgresql://u:s3cret@localhost/d?colour=red").contains("colour"));
        assert!(wrong("postgresql://u:s3cret@localhost:s3cret/d").contains("port"));
    }

    #[test]
    fn beyond_loopback_the_url_says_how_the_way_is_guarded() {
        let of = |url: &str| Address::parse(url).map(|address| address.tls.is_some());
        assert_eq!(of("postgresql://u@[::1]/d"), Ok(false));
        assert_eq!(of("postgresql://u@db.example:5432/d?sslmode=disable"), Ok(false));
        assert!(of("postgresql://u@db.example/d").unwrap_err().contains("sslmode=verify-full"));
        assert!(of("postgresql://u@localhost,db.example/d").unwrap_err().contains("sslmode"));
        for weak in ["allow", "prefer", "verify-ca", "yes"] {
            assert!(of(&format!("postgresql://u@localhost/d?sslmode={weak}")).is_err(), "{weak}");
        }
        let missing = of("postgresql://u@db.example/d?sslmode=verify-full&sslrootcert=/no/such.pem");
        assert!(missing.unwrap_err().contains("/no/such.pem"));
    }
}
