//! The S3 client, set up once: no redirects, no proxy, no retries of its own, few checks twice.

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls;

use super::config::{Credentials, S3Config};

pub(super) async fn build(config: &S3Config) -> Client {
    let mut builder = match &config.credentials {
        Credentials::Keys { access_key_id, secret_access_key, session_token } => {
            let keys = aws_sdk_s3::config::Credentials::new(
                access_key_id,
                secret_access_key.expose(),
                session_token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "touchstone",
            );
            Builder::new().credentials_provider(keys)
        }
        Credentials::DefaultChain => {
            // The chain gets a client of its own: it may have to ask an https endpoint where the store is http.
            let chain = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(config.region.clone()))
                .http_client(https_client(config))
                .load()
                .await;
            let mut builder = Builder::new();
            builder.set_credentials_provider(chain.credentials_provider());
            if let Some(cache) = chain.identity_cache() {
                builder.set_identity_cache(cache);
            }
            builder
        }
    };
    builder.set_endpoint_url(config.endpoint.clone());
    let plain = config.endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let http = if plain { http_client(config) } else { https_client(config) };
    let config = builder
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .force_path_style(config.path_style)
        .http_client(http)
        // Retries are ours: only we know of bodies cut in the middle, and of the budget.
        .retry_config(RetryConfig::disabled())
        // On the client, not on each call: an override costs a copy of the whole configuration per request.
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(config.connect_timeout)
                .read_timeout(config.attempt_timeout)
                .build(),
        )
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .upload_enabled(false)
                .grace_period(config.stall_timeout)
                .build(),
        )
        // Every body is hashed with SHA-256 by us; uploads are signed over their SHA-256.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    Client::from_conf(config)
}

/// Without TLS, and so without the system's certificates: a store on loopback must not need any.
fn http_client(config: &S3Config) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().pool_max_idle_per_host(config.connections_max).build_http()
}

fn https_client(config: &S3Config) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(config.connections_max)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}
