//! Building and sending requests: signing, bodies from a source, redirects. Says nothing on what an answer means.

use super::address::Address;
use super::auth::Auth;
use super::errors;
use crate::error::{Context, Error, Kind, Result};
use crate::remote::Body;
use crate::sys::{Clock, http};
use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Method, Response, StatusCode};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Bytes read from a source at once: small enough to start at once, large enough for the disk.
const PIECE_BYTES: u64 = 256 << 10;
/// Redirects followed for one request; servers need one or two.
const REDIRECTS_MAX: usize = 5;

/// The way to one server.
pub(super) struct Link {
    client: reqwest::Client,
    pub address: Address,
    auth: Auth,
    pub clock: Arc<dyn Clock>,
}

/// What a request carries.
#[derive(Clone)]
pub(super) enum Content {
    Nothing,
    Xml(String),
    /// Part of a source, streamed with its length said before.
    Source(Body, Range<u64>),
}

/// One request. Headers are names in lower case and values.
pub(super) struct Call<'a> {
    pub method: &'static str,
    /// Absolute on the server, escaped.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub content: Content,
    /// The task in the user's nouns, for messages.
    pub doing: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: &'static str, path: String, doing: &'a str) -> Self {
        Call { method, path, headers: Vec::new(), content: Content::Nothing, doing }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a header where there is a value.
    pub(super) fn with_some(self, name: &'static str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }
}

impl Link {
    pub(super) fn new(client: reqwest::Client, address: Address, auth: Auth, clock: Arc<dyn Clock>) -> Link {
        Link { client, address, auth, clock }
    }

    /// Sends a request and gives the answer, whatever its status; only 401 (after signing as asked) and redirects are dealt
    /// with here. Redirects to another host are followed for GET alone, and without credentials.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response> {
        let (mut path, mut redirects, mut signed_again) = (call.path.clone(), 0, false);
        loop {
            let header = self.auth.header(call.method, &path)?;
            let signed = header.is_some();
            let response = self.attempt(call, &self.address.url(&path), header).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED => {
                    if signed_again || !self.auth.learn(response.headers(), signed) {
                        return Err(self.refused(call, response).await);
                    }
                    signed_again = true;
                    errors::page(response).await;
                }
                status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let target = location.and_then(|location| self.address.redirect(&path, location));
                    redirects += 1;
                    match target {
                        Some((there, true)) if redirects <= REDIRECTS_MAX && status != StatusCode::SEE_OTHER => {
                            path = there
                        }
                        Some((there, false)) if call.method == "GET" => return self.follow(call, there).await,
                        Some((there, false)) => {
                            let host = there.split('/').take(3).collect::<Vec<_>>().join("/");
                            let text = format!("{}: the server says that its address is {host}", call.doing);
                            return Err(Error::new(Kind::Config, text));
                        }
                        _ => return Err(self.refused(call, response).await),
                    }
                }
                _ => return Ok(response),
            }
        }
    }

    /// As [`Link::send`], and any status outside 200 to 299 is an error.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Response> {
        let response = self.send(call).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(call, response).await) }
    }

    /// The error that an answer stands for.
    pub(super) async fn refused(&self, call: &Call<'_>, response: Response) -> Error {
        errors::refused(call.method, call.doing, response, self.clock.as_ref()).await
    }

    /// Follows a redirect of a GET to other hosts, without credentials.
    async fn follow(&self, call: &Call<'_>, mut url: String) -> Result<Response> {
        for _ in 0..REDIRECTS_MAX {
            let response = self.attempt(call, &url, None).await?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = location.and_then(|to| reqwest::Url::parse(&url).ok()?.join(to).ok());
            match next.filter(|next| matches!(next.scheme(), "http" | "https")) {
                Some(next) => url = next.to_string(),
                None => return Err(self.refused(call, response).await),
            }
        }
        Err(Error::new(Kind::Unavailable, format!("{}: redirected in a circle", call.doing)))
    }

    async fn attempt(&self, call: &Call<'_>, url: &str, auth: Option<HeaderValue>) -> Result<Response> {
        let method = Method::from_bytes(call.method.as_bytes()).expect("methods are constants of this crate");
        // Bytes are wanted as they are: a server that packs them weakens its etag (nginx) or changes it (Apache).
        let mut request = self.client.request(method, url).header(ACCEPT_ENCODING, "identity");
        for (name, value) in &call.headers {
            let value = HeaderValue::from_str(value).map_err(|_| {
                Error::new(Kind::Invalid, format!("{}: a character that no header may hold", call.doing))
            })?;
            request = request.header(HeaderName::from_static(name), value);
        }
        if let Some(auth) = auth {
            request = request.header(AUTHORIZATION, auth);
        }
        let failure = Arc::new(Mutex::new(None));
        request = match &call.content {
            Content::Nothing if matches!(call.method, "PUT" | "MKCOL") => request.header(CONTENT_LENGTH, "0"),
            Content::Nothing => request,
            Content::Xml(text) => request.header(CONTENT_TYPE, "application/xml; charset=utf-8").body(text.clone()),
            Content::Source(_, range) if range.is_empty() => request.header(CONTENT_LENGTH, "0"),
            Content::Source(body, range) => request
                .header(CONTENT_LENGTH, (range.end - range.start).to_string())
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(stream_of(body.clone(), range.clone(), failure.clone())),
        };
        let sent = request.send().await;
        // A source that failed cut the request; that is the cause, whatever the transport says.
        if let Some(error) = failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            return Err(Error::context(error, call.doing));
        }
        sent.map_err(|error| http::transport(&error)).context(call.doing)
    }
}

/// A source as a request body. Its first error ends the request before its announced length, so that the server sees a cut
/// request; the error itself is left in `failure`.
fn stream_of(body: Body, range: Range<u64>, failure: Arc<Mutex<Option<Error>>>) -> reqwest::Body {
    let end = range.end;
    let pieces = stream::unfold(range.start, move |at| {
        let (body, failure) = (body.clone(), failure.clone());
        async move {
            if at >= end {
                return None;
            }
            let next = end.min(at + PIECE_BYTES);
            let read = match tokio::task::spawn_blocking(move || body.read(at..next)).await {
                Ok(Ok(piece)) if piece.len() as u64 == next - at => Ok(piece),
                Ok(Ok(_)) => Err(Error::new(Kind::Changed, "the source gave fewer bytes than it has")),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::new(Kind::Disk, "reading the source was given up")),
            };
            let item = read.map_err(|error| {
                let told = std::io::Error::other(error.message().to_owned());
                *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                told
            });
            let next = if item.is_ok() { next } else { end };
            Some((item as std::io::Result<Bytes>, next))
        }
    });
    reqwest::Body::wrap_stream(pieces)
}
