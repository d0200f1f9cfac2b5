//! One request and its answer: addressed, signed, sent, and sent again where the answer says what was wrong with it.
//!
//! Corrected here, and nowhere else: the region (301 or 400 with the right one), the clock (403 with a `Date` far from ours)
//! and keys that ran out (the sources are read again). Anything that may merely pass is left to the retry layer.

use super::S3Options;
use super::address::{Address, is_region};
use super::credentials::{Credentials, Surroundings};
use super::digest::{Payload, SourceError};
use super::errors::{Answer, Refused};
use super::sign::{self, PayloadHash, ToSign};
use super::wire::{self, Element};
use crate::error::{Error, Kind, Result};
use crate::sys::Clock;
use crate::sys::http;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest answer read into memory, bytes: a page of 1,000 keys of 1,024 bytes, each byte encoded as three, and room.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest error document read, bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// One attempt, and one more for each thing that can be corrected.
const ATTEMPTS_MAX: usize = 4;
/// Differences of clocks up to this do no harm: S3 allows 15 minutes.
const SKEW_MIN_NS: i64 = 300 * 1_000_000_000;

/// A request in the making.
pub(super) struct Call {
    method: Method,
    key: Option<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    payload: Payload,
    sha256: Option<String>,
}

impl Call {
    /// A request about an object.
    pub fn object(method: Method, key: &str) -> Call {
        Call { key: Some(key.to_owned()), ..Call::bucket(method) }
    }

    /// A request about the bucket.
    pub fn bucket(method: Method) -> Call {
        Call { method, key: None, query: Vec::new(), headers: Vec::new(), payload: Payload::Empty, sha256: None }
    }

    /// Adds a parameter; an empty value is sent as `name=`.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header; `name` in lower case.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Call {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds headers.
    pub fn headers(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Call {
        self.headers.extend(headers);
        self
    }

    /// Sets the body; `sha256` in hexadecimal where it takes part in the signature.
    pub fn body(mut self, payload: Payload, sha256: Option<String>) -> Call {
        self.payload = payload;
        self.sha256 = sha256;
        self
    }
}

/// What a server answered with a status of 2xx.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub response: reqwest::Response,
}

impl Reply {
    /// A header's text; `None` where it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The etag; empty where the server names none.
    pub fn etag(&self) -> String {
        self.header("etag").map(wire::etag).unwrap_or_default()
    }

    /// Reads the rest, so that the connection can be used again.
    pub async fn drain(self) -> Result<()> {
        body(self.response, REFUSAL_BYTES_MAX).await.map(drop)
    }

    /// Reads a document; one that is an `<Error>` is a refusal, whatever the status said.
    pub async fn document(self) -> Answer<Element> {
        let bytes = body(self.response, ANSWER_BYTES_MAX).await?;
        let root = wire::parse(&bytes)?;
        if root.name == "Error" { Err(Refused::inside(&root)) } else { Ok(root) }
    }
}

/// A header's text; `None` where it is absent or not text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn body(mut response: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| http::transport(&e))? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(Error::new(Kind::Corrupt, format!("the server's answer is over {bytes_max} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What may change while a drive is mounted.
struct Now {
    region: String,
    credentials: Credentials,
    /// What to add to our clock to get the server's, nanoseconds.
    skew_ns: i64,
}

/// Sends requests to one bucket.
pub(super) struct Client {
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    options: S3Options,
    pub address: Address,
    now: Mutex<Now>,
    requests: AtomicU64,
}

impl Client {
    /// Makes a client; sends nothing. `Config` or `SignIn`: the settings do not suffice.
    pub fn new(options: S3Options, clock: Arc<dyn Clock>) -> Result<Client> {
        let around = Surroundings::read(&options);
        let endpoint = options.endpoint.clone().or_else(|| around.endpoint());
        let (address, named) = Address::new(endpoint.as_deref(), &options.bucket, options.path_style)?;
        let region = options.region.clone().or(named).or_else(|| around.region()).unwrap_or_else(|| "us-east-1".into());
        if !is_region(&region) {
            return Err(Error::new(Kind::Config, format!("\"{}\" is not a region", region.escape_debug())));
        }
        let credentials = around.credentials(&options)?;
        let http = http::client(&http::HttpOptions { ca_file: options.ca_file.clone(), follow_redirects: false })?;
        let now = Mutex::new(Now { region, credentials, skew_ns: 0 });
        Ok(Client { http, clock, options, address, now, requests: AtomicU64::new(0) })
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> String {
        self.lock().region.clone()
    }

    /// Sets the region, as an earlier mount found it.
    pub fn set_region(&self, region: &str) {
        if is_region(region) {
            self.lock().region = region.to_owned();
        }
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The time by our clock, nanoseconds since 1970.
    pub fn wall_ns(&self) -> i64 {
        self.clock.wall_ns()
    }

    /// Sends `call`. The body of the answer is still to be read.
    pub async fn send(&self, call: &Call) -> Answer<Reply> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.send_once(call).await {
                Ok(reply) => return Ok(reply),
                Err((refused, headers)) => {
                    if attempt >= ATTEMPTS_MAX || !self.correct(&refused, &headers) {
                        return Err(refused);
                    }
                }
            }
        }
    }

    async fn send_once(&self, call: &Call) -> std::result::Result<Reply, (Refused, HeaderMap)> {
        let bare = |error: Error| (Refused::from(error), HeaderMap::new());
        let request = self.signed(call).map_err(bare)?;
        let failed = SourceError::default();
        let request = request.body(call.payload.body(&failed));
        self.requests.fetch_add(1, Ordering::Relaxed);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(bare(failed.take().unwrap_or_else(|| http::transport(&error)))),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if response.status().is_success() {
            return Ok(Reply { status, headers, response });
        }
        // An error document that cannot be read leaves the status, which suffices.
        let document = body(response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let wait = header(&headers, "retry-after").and_then(|text| self.wait(text));
        let mut refused = Refused::read(status, &document, wait);
        if let Some(region) = header(&headers, "x-amz-bucket-region") {
            refused.region = Some(region.to_owned());
        }
        Err((refused, headers))
    }

    fn signed(&self, call: &Call) -> Result<reqwest::RequestBuilder> {
        let now = self.lock();
        let url = self.address.url(&now.region, call.key.as_deref(), &call.query)?;
        let payload = match (&call.payload, &call.sha256) {
            (Payload::Empty, _) => PayloadHash::Empty,
            (_, Some(hex)) => PayloadHash::Sha256(hex),
            (_, None) => PayloadHash::Unsigned,
        };
        let to_sign = ToSign {
            method: call.method.as_str(),
            url: url.as_str(),
            headers: &call.headers,
            payload,
            region: &now.region,
            at_ns: self.clock.wall_ns().saturating_add(now.skew_ns),
        };
        let added = sign::headers(&now.credentials, &to_sign)?;
        drop(now);
        let mut headers = HeaderMap::new();
        for (name, value) in call.headers.iter().chain(&added) {
            let usable =
                HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
            let Some((name, value)) = usable else {
                return Err(Error::new(Kind::Invalid, format!("header {} cannot be sent", name.escape_debug())));
            };
            headers.append(name, value);
        }
        if matches!(call.method, Method::PUT | Method::POST) {
            headers.insert("content-length", HeaderValue::from(call.payload.len()));
        }
        // A store that compresses on the way (Google's) would break ranges and lengths.
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        Ok(self.http.request(call.method.clone(), url).headers(headers))
    }

    /// Learns from a refusal; whether the request has a better chance now.
    fn correct(&self, refused: &Refused, headers: &HeaderMap) -> bool {
        let mut now = self.lock();
        if let Some(region) = refused.region.as_deref().filter(|region| is_region(region))
            && matches!(refused.status, 301 | 307 | 400 | 403)
            && *region != now.region
        {
            tracing::info!(from = now.region, to = region, "the bucket is in another region");
            now.region = region.to_owned();
            return true;
        }
        if refused.status == 403
            && let Some(skew) = header(headers, "date").and_then(|date| self.skew_ns(date))
            && (skew - now.skew_ns).abs() > SKEW_MIN_NS
        {
            tracing::warn!(
                seconds = skew / 1_000_000_000,
                "our clock differs from the server's; following the server's"
            );
            now.skew_ns = skew;
            return true;
        }
        if matches!(
            refused.code.as_str(),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId"
        ) && let Ok(fresh) = Surroundings::read(&self.options).credentials(&self.options)
            && fresh != now.credentials
        {
            now.credentials = fresh;
            return true;
        }
        false
    }

    fn skew_ns(&self, date: &str) -> Option<i64> {
        let server = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(server.as_nanos()).ok().map(|server| server - self.clock.wall_ns())
    }

    /// `Retry-After`: seconds or a date (RFC 9110, 10.2.3); an hour at most.
    fn wait(&self, text: &str) -> Option<Duration> {
        let wait = match text.trim().parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => Duration::from_nanos(self.skew_ns(text)?.max(0).unsigned_abs()),
        };
        Some(wait.min(Duration::from_secs(3_600)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
