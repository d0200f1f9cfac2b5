//! Who we are, said in a header: Basic (RFC 7617), Digest (RFC 7616), Bearer (RFC 6750).
//!
//! Basic goes out with every request from the first on, since a refused round trip per request halves the speed; but over
//! plain http the first request goes without it, so that a server that wants Digest never sees the password.

use crate::error::{Error, Kind, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use std::sync::Mutex;

/// What a person gave to sign in with.
#[derive(Clone)]
pub(super) enum Secret {
    None,
    Password { user: String, password: String },
    Bearer(String),
}

/// The scheme in use.
enum Scheme {
    /// Not known yet: the server is asked by a request without credentials.
    Ask,
    Basic,
    Digest(Box<WwwAuthenticateHeader>),
    Bearer,
    /// No credentials are there.
    Open,
}

/// Signs requests, and learns from refusals which way to sign.
pub(super) struct Auth {
    secret: Secret,
    scheme: Mutex<Scheme>,
}

impl Auth {
    /// `plain`: whether the connection can be overheard.
    pub(super) fn new(secret: Secret, plain: bool) -> Auth {
        let scheme = match (&secret, plain) {
            (Secret::None, _) => Scheme::Open,
            (Secret::Bearer(_), _) => Scheme::Bearer,
            (Secret::Password { .. }, false) => Scheme::Basic,
            (Secret::Password { .. }, true) => Scheme::Ask,
        };
        Auth { secret, scheme: Mutex::new(scheme) }
    }

    /// The Authorization header for a request of `method` on `path`; `None` where there is nothing to say yet.
    pub(super) fn header(&self, method: &str, path: &str) -> Result<Option<HeaderValue>> {
        let mut scheme = self.scheme.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let text = match (&mut *scheme, &self.secret) {
            (Scheme::Basic, Secret::Password { user, password }) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            (Scheme::Digest(prompt), Secret::Password { user, password }) => {
                let context =
                    AuthContext::new_with_method(user, password, path, None::<&[u8]>, HttpMethod::from(method));
                let answer = prompt.respond(&context);
                answer
                    .map_err(|e| Error::new(Kind::SignIn, format!("answer a Digest challenge: {e}")))?
                    .to_header_string()
            }
            (Scheme::Bearer, Secret::Bearer(token)) => format!("Bearer {token}"),
            _ => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Error::new(Kind::Config, "user, password or token holds a character that no header may"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Learns from a 401. True: sign again and repeat, once; false: the credentials are refused.
    /// `signed`: whether the refused request carried credentials.
    pub(super) fn learn(&self, answer: &HeaderMap, signed: bool) -> bool {
        if !matches!(self.secret, Secret::Password { .. }) {
            return false;
        }
        let challenges = || answer.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut scheme = self.scheme.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let was_digest = matches!(*scheme, Scheme::Digest(_));
        let digest =
            challenges().find(|text| starts_with(text, "digest")).and_then(|text| digest_auth::parse(text).ok());
        if let Some(prompt) = digest {
            // A nonce that ran out is no refusal of the password.
            let again = !signed || !was_digest || prompt.stale;
            *scheme = Scheme::Digest(Box::new(prompt));
            return again;
        }
        let offers_basic = challenges().any(|text| starts_with(text, "basic"));
        if offers_basic && !signed {
            *scheme = Scheme::Basic;
            return true;
        }
        false
    }
}

fn starts_with(text: &str, scheme: &str) -> bool {
    text.trim_start().get(..scheme.len()).is_some_and(|word| word.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Secret {
        Secret::Password { user: "me".into(), password: "secret".into() }
    }

    fn answer(challenges: &[&'static str]) -> HeaderMap {
        challenges.iter().map(|text| (WWW_AUTHENTICATE, HeaderValue::from_static(text))).collect()
    }

    fn said(auth: &Auth) -> String {
        auth.header("GET", "/x").unwrap().map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn over_plain_http_the_password_waits_until_basic_is_asked_for() {
        let auth = Auth::new(password(), true);
        assert_eq!(said(&auth), "");
        assert!(auth.learn(&answer(&["Basic realm=\"x\""]), false));
        assert_eq!(said(&auth), "Basic bWU6c2VjcmV0");
        assert!(!auth.learn(&answer(&["Basic realm=\"x\""]), true));
    }

    #[test]
    fn over_tls_basic_goes_out_at_once() {
        assert!(said(&Auth::new(password(), false)).starts_with("Basic "));
    }

    #[test]
    fn digest_is_preferred_and_a_stale_nonce_is_renewed() {
        let auth = Auth::new(password(), true);
        let fresh = "Digest realm=\"x\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"";
        assert!(auth.learn(&answer(&["Basic realm=\"x\"", fresh]), false));
        assert!(said(&auth).starts_with("Digest ") && !said(&auth).contains("secret"));
        assert!(said(&auth).contains("nc=00000003"), "the count goes up");
        assert!(auth.learn(&answer(&["Digest realm=\"x\", nonce=\"n2\", stale=true, qop=\"auth\""]), true));
        assert!(!auth.learn(&answer(&[fresh]), true));
    }

    #[test]
    fn a_refused_token_stays_refused() {
        let auth = Auth::new(Secret::Bearer("t".into()), true);
        assert_eq!(said(&auth), "Bearer t");
        assert!(!auth.learn(&answer(&["Basic realm=\"x\""]), true));
    }
}
