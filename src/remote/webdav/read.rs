//! Reading content: ranges bound to a version, and exactly the bytes that were asked for.

use super::WebDav;
use super::list;
use super::props::{Tag, composed, is_composed, quoted};
use super::request::Call;
use crate::error::{Error, Kind, Result};
use crate::model::{RemotePath, Version};
use crate::remote::ByteStream;
use crate::sys::http;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED};
use std::ops::Range;

/// What an answer says about the version that its bytes are of.
#[derive(Debug, PartialEq, Eq)]
enum Pinned {
    Yes,
    No,
    /// It does not say.
    Silent,
}

/// Reads `range` of `version` at `path`.
///
/// The range is asked for with If-Range (RFC 9110, 13.1.5), so that a server whose file has changed gives the whole of it
/// with status 200; the tag of the answer is compared besides. A server that says nothing of tags is asked by PROPFIND.
pub(super) async fn read(dav: &WebDav, path: &RemotePath, version: &Version, range: Range<u64>) -> Result<ByteStream> {
    let doing = format!("read {}..{} of \"{path}\"", range.start, range.end);
    if range.is_empty() {
        let seen = list::look(dav, path).await?;
        return match list::version_of(seen.as_ref()) {
            Some(there) if there == version => Ok(Box::pin(stream::empty())),
            _ if seen.is_none() => Err(Error::new(Kind::NotFound, format!("{doing}: it is not there"))),
            _ => Err(changed(&doing)),
        };
    }
    let bind = quoted(version);
    let bound = bind.is_some();
    let response = get(dav, path, &range, bind, &doing).await?;
    match (response.status().as_u16(), pinned(&response, version)) {
        (206, Pinned::Yes) => partial(response, &range, doing),
        (206, Pinned::Silent) if bound => partial(response, &range, doing),
        (_, Pinned::No) => Err(changed(&doing)),
        // A tag that is weak (Apache, for a second after a write) does not satisfy If-Range: the same range without it.
        (200, Pinned::Yes) if bound && range.start > 0 => {
            let response = get(dav, path, &range, None, &doing).await?;
            match (response.status().as_u16(), pinned(&response, version)) {
                (206, Pinned::Yes) => partial(response, &range, doing),
                // A server without ranges.
                (200, Pinned::Yes) => Ok(exactly(response, range.start, range.end - range.start, doing)),
                _ => Err(changed(&doing)),
            }
        }
        (200, Pinned::Yes) => Ok(exactly(response, range.start, range.end - range.start, doing)),
        (_, Pinned::Silent) => {
            // The look comes after the answer began, so what it sees is at least as new as the bytes.
            let seen = list::look(dav, path).await?;
            match list::version_of(seen.as_ref()) {
                Some(there) if there == version => {}
                _ => return Err(changed(&doing)),
            }
            let skip = if response.status().as_u16() == 206 { 0 } else { range.start };
            Ok(exactly(response, skip, range.end - range.start, doing))
        }
        (status, _) => Err(Error::new(Kind::Corrupt, format!("{doing}: unexpected status {status}"))),
    }
}

async fn get(
    dav: &WebDav,
    path: &RemotePath,
    range: &Range<u64>,
    bind: Option<String>,
    doing: &str,
) -> Result<Response> {
    let call = Call::new("GET", dav.link.address.path(path, false), doing)
        .with("range", format!("bytes={}-{}", range.start, range.end - 1))
        .with_some("if-range", bind);
    dav.link.ask(&call).await
}

fn changed(doing: &str) -> Error {
    Error::new(Kind::Changed, format!("{doing}: that version is no longer there"))
}

fn text(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn pinned(response: &Response, version: &Version) -> Pinned {
    if !is_composed(version) {
        return match text(response, ETAG).and_then(Tag::parse) {
            Some(tag) if tag.version == *version => Pinned::Yes,
            Some(_) => Pinned::No,
            None => Pinned::Silent,
        };
    }
    // A version made of size and time: both are in the answer.
    let total = match response.status().as_u16() {
        206 => text(response, CONTENT_RANGE).and_then(|range| range.rsplit('/').next()?.parse().ok()),
        _ => response.content_length(),
    };
    match (total, text(response, LAST_MODIFIED).and_then(super::dates::parse)) {
        (Some(total), Some(time)) if composed(total, Some(time)) == *version => Pinned::Yes,
        (Some(_), Some(_)) => Pinned::No,
        _ => Pinned::Silent,
    }
}

/// The body of a 206 for `range`; its Content-Range must begin where asked (RFC 9110, 14.4).
fn partial(response: Response, range: &Range<u64>, doing: String) -> Result<ByteStream> {
    let starts = text(&response, CONTENT_RANGE).and_then(|text| {
        let span = text.trim().strip_prefix("bytes")?.trim_start().split('/').next()?;
        span.split('-').next()?.trim().parse::<u64>().ok()
    });
    match starts {
        Some(start) if start == range.start => Ok(exactly(response, 0, range.end - range.start, doing)),
        Some(start) => Err(Error::new(Kind::Corrupt, format!("{doing}: the answer begins at {start}"))),
        // Several ranges were not asked for; a single one always says where it is.
        None => Err(Error::new(Kind::Corrupt, format!("{doing}: a part without Content-Range"))),
    }
}

/// `length` bytes of a body after `skip`; fewer are `Corrupt` (a cut connection is what the transport says), more are left.
fn exactly(response: Response, skip: u64, length: u64, doing: String) -> ByteStream {
    let body = Box::pin(response.bytes_stream());
    Box::pin(stream::unfold((body, skip, length), move |(mut body, mut skip, left)| {
        let doing = doing.clone();
        async move {
            if left == 0 {
                return None;
            }
            loop {
                let mut chunk: Bytes = match body.next().await {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Some((Err(http::transport(&error).context(doing)), (body, 0, 0))),
                    None => {
                        let error = Error::new(Kind::Corrupt, format!("{doing}: the answer is {left} bytes short"));
                        return Some((Err(error), (body, 0, 0)));
                    }
                };
                let skipped = skip.min(chunk.len() as u64);
                chunk = chunk.split_off(skipped as usize);
                skip -= skipped;
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                if !chunk.is_empty() {
                    let left = left - chunk.len() as u64;
                    return Some((Ok(chunk), (body, skip, left)));
                }
            }
        }
    }))
}
