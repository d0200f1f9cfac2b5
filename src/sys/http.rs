//! The one HTTP client: reqwest over rustls, HTTP/1.1, pooled.

use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

/// What a client is made of.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// Whether redirects are followed to the same host; never to another.
    pub follow_redirects: bool,
}

/// Makes a client: `connect_timeout` of 10 s, no limit on the whole request (bodies are long; the timeout layer watches
/// progress), TCP keep-alive, TCP_NODELAY. `Config`: `ca_file` cannot be used.
pub fn client(options: &HttpOptions) -> Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says only that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let redirect = if options.follow_redirects {
        reqwest::redirect::Policy::custom(|attempt| {
            let same = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
            if same && attempt.previous().len() < 10 { attempt.follow() } else { attempt.stop() }
        })
    } else {
        reqwest::redirect::Policy::none()
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("fourwheel/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(50))
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_nodelay(true)
        .redirect(redirect);
    if let Some(path) = &options.ca_file {
        for certificate in certificates(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|e| Error::new(Kind::Config, format!("set up TLS: {}", chain(&e))))
}

#[allow(clippy::disallowed_methods, reason = "a setting, read once at start")]
fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let refuse = |why: String| Error::new(Kind::Config, format!("ca_file {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| refuse(chain(&e)))?;
    if found.is_empty() { Err(refuse("holds no certificate".into())) } else { Ok(found) }
}

/// Converts a transport error: what never reached the server is `Offline`, a passed deadline `TimedOut`, the rest `Unavailable`.
pub fn transport(error: &reqwest::Error) -> Error {
    let kind = if error.is_connect() {
        Kind::Offline
    } else if error.is_timeout() {
        Kind::TimedOut
    } else {
        Kind::Unavailable
    };
    Error::new(kind, chain(error))
}

/// The error and its causes in one line, without the address (it may hold a secret).
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<reqwest::Error>() {
            Some(e) => strip(&e.to_string()),
            None => error.to_string(),
        };
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn strip(text: &str) -> String {
    match text.find(" for url (") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}
