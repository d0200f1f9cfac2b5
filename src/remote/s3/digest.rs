//! Hashes of what is to be sent, and the bodies that carry it.
//!
//! A body is hashed before it is sent (`Content-MD5`, over plain http also SHA-256), so it is read twice from the local disk
//! unless it is small. Trailing checksums (`aws-chunked`) would save that and are refused by many stores.

use crate::error::{Error, Kind, Result};
use crate::remote::Body;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Up to this many bytes are read once and kept in memory while they are sent.
const IN_MEMORY_MAX: u64 = 1 << 20;
/// How much of a larger body is read at once.
const CHUNK: u64 = 1 << 20;

/// A body ready to be sent, any number of times.
#[derive(Clone)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Part of a source, read while it is sent.
    Source(Body, Range<u64>),
}

/// Hashes of a payload.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    pub md5: [u8; 16],
    /// In hexadecimal, where it was asked for.
    pub sha256: Option<String>,
}

/// Whether the SHA-256 is needed beside the MD5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Md5,
    Md5AndSha256,
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The bytes that lower- or upper-case hexadecimal stands for; `None` for anything else.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

impl Hashes {
    /// Hashes of bytes in memory.
    pub fn of(bytes: &[u8], want: Want) -> Hashes {
        let mut both = Both::new(want);
        both.update(bytes);
        both.finish()
    }

    /// What the etag of this content is, where etags are MD5 sums.
    pub fn etag(&self) -> String {
        hex(&self.md5)
    }
}

struct Both {
    md5: Md5,
    sha256: Option<Sha256>,
}

impl Both {
    fn new(want: Want) -> Both {
        Both { md5: Md5::new(), sha256: (want == Want::Md5AndSha256).then(Sha256::new) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    fn finish(self) -> Hashes {
        Hashes { md5: self.md5.finalize().into(), sha256: self.sha256.map(|sha256| hex(&sha256.finalize())) }
    }
}

/// Hashes `range` of `body`, off the async threads where it is long. Errors are the source's.
pub(super) async fn prepare(body: &Body, range: Range<u64>, want: Want) -> Result<(Hashes, Payload)> {
    if range.end > body.size() || range.start > range.end {
        return Err(Error::new(Kind::Invalid, format!("{range:?} of a content of {} bytes", body.size())));
    }
    if range.end - range.start <= IN_MEMORY_MAX {
        let bytes = if range.is_empty() { Bytes::new() } else { body.read(range)? };
        return Ok((Hashes::of(&bytes, want), Payload::Bytes(bytes)));
    }
    let (source, span) = (body.clone(), range.clone());
    let hashes = blocking(move || {
        let mut both = Both::new(want);
        let mut at = span.start;
        while at < span.end {
            let next = span.end.min(at + CHUNK);
            both.update(&source.read(at..next)?);
            at = next;
        }
        Ok(both.finish())
    })
    .await?;
    Ok((hashes, Payload::Source(body.clone(), range)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Kind::Unavailable, "reading what is to be sent was broken off")),
    }
}

/// Where a source's own error waits while the HTTP client reports only a broken body.
#[derive(Clone, Default)]
pub(super) struct SourceError(Arc<Mutex<Option<Error>>>);

impl SourceError {
    /// The error, if there was one.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl Payload {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        match self {
            Payload::Empty => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Source(_, range) => range.end - range.start,
        }
    }

    /// The client's body; an error of the source is left in `failed`.
    pub fn body(&self, failed: &SourceError) -> reqwest::Body {
        match self {
            Payload::Empty => reqwest::Body::from(Bytes::new()),
            Payload::Bytes(bytes) => reqwest::Body::from(bytes.clone()),
            Payload::Source(source, range) => {
                let (source, failed, end) = (source.clone(), failed.clone(), range.end);
                reqwest::Body::wrap_stream(futures_util::stream::try_unfold(range.start, move |at| {
                    let (source, failed) = (source.clone(), failed.clone());
                    async move {
                        if at >= end {
                            return Ok::<_, std::io::Error>(None);
                        }
                        let next = end.min(at + CHUNK);
                        match blocking(move || source.read(at..next)).await {
                            Ok(bytes) => Ok(Some((bytes, next))),
                            Err(error) => {
                                failed.set(error);
                                Err(std::io::Error::other("the content could not be read"))
                            }
                        }
                    }
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
        assert_eq!(unhex("00fF10"), Some(vec![0, 255, 16]));
        assert_eq!((unhex("0"), unhex("zz"), unhex("é")), (None, None, None));
    }

    #[test]
    fn the_empty_content_has_its_well_known_md5() {
        assert_eq!(Hashes::of(b"", Want::Md5).etag(), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
