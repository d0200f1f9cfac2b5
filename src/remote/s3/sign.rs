//! Signatures: AWS's own signer (`aws-sigv4`), and a clock that follows the server's.
//!
//! Signed are `host` and every `x-amz-*` header, plus `content-md5` and the conditions; hop-by-hop headers, `range`,
//! `content-length` and `accept-encoding` are not, since proxies and Google's store change them.
//! Source: "Signature Calculations for the Authorization Header" (`API/sig-v4-header-based-auth.html`).

use super::credentials::Credentials;
use crate::error::{Error, Kind, Result};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use std::time::{Duration, UNIX_EPOCH};

/// How the body takes part in the signature.
#[derive(Clone, Copy, Debug)]
pub(super) enum PayloadHash<'a> {
    /// No body.
    Empty,
    /// Left to TLS, and to `content-md5`, which is signed.
    Unsigned,
    /// The body's SHA-256, in hexadecimal.
    Sha256(&'a str),
}

/// What one signature covers.
pub(super) struct ToSign<'a> {
    pub method: &'a str,
    /// The whole address, already percent-encoded once.
    pub url: &'a str,
    /// Lower-case names.
    pub headers: &'a [(String, String)],
    pub payload: PayloadHash<'a>,
    pub region: &'a str,
    /// Nanoseconds since 1970, by the server's clock.
    pub at_ns: i64,
}

/// Whether a header is part of the signature.
fn is_signed(name: &str) -> bool {
    name.starts_with("x-amz-") || matches!(name, "host" | "content-md5" | "content-type" | "if-match" | "if-none-match")
}

/// The headers to add: `authorization`, `x-amz-date`, `x-amz-content-sha256`, `x-amz-security-token`.
pub(super) fn headers(credentials: &Credentials, to_sign: &ToSign<'_>) -> Result<Vec<(String, String)>> {
    let fail = |e: &dyn std::fmt::Display| Error::new(Kind::Invalid, format!("sign the request: {e}"));
    let identity = aws_credential_types::Credentials::new(
        credentials.access_key_id.as_str(),
        credentials.secret_access_key.as_str(),
        credentials.session_token.clone(),
        None,
        "fourwheel",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(to_sign.region)
        .name("s3")
        .time(UNIX_EPOCH + Duration::from_nanos(to_sign.at_ns.max(0).unsigned_abs()))
        .settings(settings)
        .build()
        .map_err(|e| fail(&e))?
        .into();
    let signed = to_sign.headers.iter().filter(|(name, _)| is_signed(name)).map(|(n, v)| (n.as_str(), v.as_str()));
    let body = match to_sign.payload {
        PayloadHash::Empty => SignableBody::Bytes(&[]),
        PayloadHash::Unsigned => SignableBody::UnsignedPayload,
        PayloadHash::Sha256(hex) => SignableBody::Precomputed(hex.to_owned()),
    };
    let request = SignableRequest::new(to_sign.method, to_sign.url, signed, body).map_err(|e| fail(&e))?;
    let (instructions, _) = sign(request, &parameters).map_err(|e| fail(&e))?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of `API/sig-v4-header-based-auth.html`, with the headers that they sign.
    fn authorization(method: &str, path: &str, headers: &[(&str, &str)], payload: PayloadHash<'_>) -> String {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let url = format!("https://examplebucket.s3.amazonaws.com{path}");
        let at_ns = super::super::wire::time_ns("2013-05-24T00:00:00Z").unwrap();
        let to_sign = ToSign { method, url: &url, headers: &headers, payload, region: "us-east-1", at_ns };
        let found = super::headers(&credentials, &to_sign).unwrap();
        let value = &found.iter().find(|(name, _)| name == "authorization").unwrap().1;
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn signatures_are_those_that_aws_publishes() {
        assert_eq!(
            authorization("GET", "/?lifecycle", &[], PayloadHash::Empty),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            authorization("GET", "/?max-keys=2&prefix=J", &[], PayloadHash::Empty),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn what_is_not_signed_does_not_change_the_signature() {
        let plain = authorization("GET", "/a", &[], PayloadHash::Empty);
        let with = [("accept-encoding", "identity"), ("range", "bytes=0-9")];
        assert_eq!(plain, authorization("GET", "/a", &with, PayloadHash::Empty));
        let conditional = [("if-match", "\"a\"")];
        assert_ne!(plain, authorization("GET", "/a", &conditional, PayloadHash::Empty));
    }
}
