//! OAUTHBEARER: a token that somebody else keeps fresh in a file.
//!
//! librdkafka asks for a token by an event that only a client's poll takes up. That will do for later ones. The first
//! must be there before the first request: many a client is asked before it is polled, and an administrator never is.

use std::ffi::{CString, c_char};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::bindings::rd_kafka_oauthbearer_set_token;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

/// Reads the token and what it says of itself. Only the broker checks its signature.
pub(crate) fn read(file: &Path) -> Result<OAuthToken, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("token file {shown}: {error}"))?;
    parse(text.trim()).map_err(|why| format!("token file {shown}: {why}"))
}

/// Gives a client the token of this file.
pub(crate) fn give<C: ClientContext>(client: &Client<C>, file: &Path) -> Result<(), String> {
    let OAuthToken { token, principal_name, lifetime_ms } = read(file)?;
    set(client, &token, &principal_name, lifetime_ms)
        .map_err(|why| format!("token file {}: {why}", file.display()))
}

fn set<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    principal: &str,
    lifetime_ms: i64,
) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "it has a NUL".to_owned());
    let (token, principal) = (text(token)?, text(principal)?);
    let mut said = [0u8; 256];
    #[allow(unsafe_code, reason = "rust-rdkafka gives tokens to clients that are polled, and to no others")]
    // SAFETY: the client lives as long as its borrow; the call copies both texts, which end with a NUL, reads no
    // extensions (their number is 0), and writes at most the buffer's length, a NUL at the end included.
    let answer = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            said.as_mut_ptr().cast::<c_char>(),
            said.len(),
        )
    };
    if answer == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let said = said.split(|byte| *byte == 0).next().unwrap_or_default();
    Err(String::from_utf8_lossy(said).into_owned())
}

fn parse(token: &str) -> Result<OAuthToken, &'static str> {
    let claims = token.split('.').nth(1).ok_or("is not a JWT: header.claims.signature")?;
    let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "its claims are not base64url")?;
    let claims: Claims = serde_json::from_slice(&json).map_err(|_| "its claims lack sub or exp")?;
    // Seconds since 1970, possibly with a fraction (RFC 7519, section 2).
    let lifetime_ms = (claims.exp * 1000.0) as i64;
    Ok(OAuthToken { token: token.to_owned(), principal_name: claims.sub, lifetime_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_name_and_its_end() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"worker","exp":1700000000.5,"iat":1}"#);
        let token = parse(&format!("e30.{claims}.")).expect("a token");
        assert_eq!((&*token.principal_name, token.lifetime_ms), ("worker", 1_700_000_000_500));
        for wrong in ["", "no", "e30.!!.", "e30.e30."] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
