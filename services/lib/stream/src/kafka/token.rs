//! OAUTHBEARER: a token that somebody else keeps fresh in a file.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
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
