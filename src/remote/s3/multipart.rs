//! Upload sessions: S3's multipart uploads.
//!
//! A session's text is the key, the upload's id and what `finish` compares; it stays good for as long as the server keeps the
//! upload (for ever, unless a rule of the bucket or [`S3Remote::sweep_abandoned`] ends it). Parts may come in any order and
//! more than once; all but the last must be of one size, since R2 refuses others.

use super::S3Remote;
use super::client::Call;
use super::copy::{Origin, Seen};
use super::digest::{Hashes, Payload, Want, hex, prepare, unhex};
use super::errors::Answer;
use super::meta;
use super::object::{changed, is_md5, is_opaque, lost, result_etag};
use super::upload::{RACES_MAX, Stored, condition_header};
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, RemotePath, Version};
use crate::remote::{Body, Condition, Part, Session};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Least size of a part but the last, bytes ("Amazon S3 multipart upload limits").
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;
/// Largest part, bytes (the same).
pub(super) const PART_BYTES_MAX: u64 = 5 << 30;
/// Parts of one upload (the same).
pub(super) const PARTS_MAX: u32 = 10_000;
/// An upload of ours that is older than this was given up: nothing stays unsent for a week without a sign.
const ABANDONED_NS: i64 = 7 * 86_400 * 1_000_000_000;
/// Most uploads swept at one connect; the next one goes on.
const ABANDONED_MAX: usize = 1_000;

/// One multipart upload on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub key: String,
    pub upload_id: String,
}

#[derive(Serialize, Deserialize)]
struct SessionText {
    target: Target,
    /// Bytes in all.
    size: u64,
    /// Bytes of each part but the last, as `begin` advises: 8 MiB, or what makes 10,000 parts of the whole.
    part_bytes: u64,
    /// The attributes that the upload was begun with, as headers.
    headers: Vec<(String, String)>,
}

fn read(session: &Session) -> Result<SessionText> {
    serde_json::from_str(&session.0).map_err(|e| Error::new(Kind::Invalid, format!("upload session: {e}")))
}

fn gone(refused: super::errors::Refused) -> Error {
    if refused.is_absent() {
        Error::new(Kind::NotFound, "the server no longer knows the upload")
    } else {
        refused.error
    }
}

impl S3Remote {
    /// Opens a session.
    pub(super) async fn begin_upload(&self, path: &RemotePath, size: u64, meta: &Meta) -> Result<Session> {
        let least = size.div_ceil(u64::from(PARTS_MAX));
        if least > PART_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, format!("{size} bytes do not fit into {PARTS_MAX} parts")));
        }
        let part_bytes = least.next_multiple_of(1 << 20).clamp(8 << 20, PART_BYTES_MAX);
        let (key, _) = self.object_key(path).await?;
        let headers = meta::headers(meta, FileKind::File)?;
        let upload_id = self.create_upload(&key, headers.clone()).await?;
        let text = SessionText { target: Target { key, upload_id }, size, part_bytes, headers };
        let text =
            serde_json::to_string(&text).map_err(|e| Error::new(Kind::Invalid, format!("note the upload: {e}")))?;
        Ok(Session(text))
    }

    /// Starts an upload; returns its id.
    pub(super) async fn create_upload(&self, key: &str, headers: Vec<(String, String)>) -> Result<String> {
        let call = Call::object(Method::POST, key).query("uploads", "").headers(headers);
        let root = self.client.send(&call).await?.document().await?;
        root.must("UploadId").map(str::to_owned)
    }

    /// Sends one part.
    pub(super) async fn upload_part(
        &self,
        session: &Session,
        number: u32,
        body: Body,
        range: Range<u64>,
    ) -> Result<Part> {
        let session = read(session)?;
        if body.size() != session.size {
            return Err(Error::new(Kind::Changed, "the content's size is not the one that the upload was begun for"));
        }
        let (hashes, payload) = prepare(&body, range, self.want()).await?;
        let size = payload.len();
        let tag = self.send_part(&session.target, number, payload, &hashes).await.map_err(gone)?;
        Ok(Part { number, size, tag })
    }

    /// Sends one part's bytes; returns its etag.
    pub(super) async fn send_part(
        &self,
        target: &Target,
        number: u32,
        payload: Payload,
        hashes: &Hashes,
    ) -> Answer<String> {
        let call = Call::object(Method::PUT, &target.key)
            .query("partNumber", number.to_string())
            .query("uploadId", target.upload_id.as_str())
            .header("content-md5", BASE64.encode(hashes.md5))
            .body(payload, hashes.sha256.clone());
        let reply = self.client.send(&call).await?;
        let (etag, opaque) = (reply.etag(), is_opaque(&reply.headers));
        reply.drain().await?;
        if self.probe.etag_md5 && is_md5(&etag) && !opaque && !etag.eq_ignore_ascii_case(&hashes.etag()) {
            return Err(Error::new(Kind::Corrupt, "the server stored other bytes than were sent").into());
        }
        Ok(etag)
    }

    /// Lets the server copy a part of a session.
    pub(super) async fn copy_session_part(
        &self,
        session: &Session,
        number: u32,
        from: &RemotePath,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        let session = read(session)?;
        let (key, _) = self.object_key(from).await?;
        let size = range.end.saturating_sub(range.start);
        let tag = self.copy_part(&session.target, number, &key, version, Some(range)).await?;
        Ok(Part { number, size, tag })
    }

    /// Lets the server copy a part: `range` of an object, or all of it. Returns the part's etag.
    ///
    /// `Changed`: the source is another now. `NotFound`: it, or the upload, is gone.
    pub(super) async fn copy_part(
        &self,
        target: &Target,
        number: u32,
        from: &str,
        version: &Version,
        range: Option<Range<u64>>,
    ) -> Result<String> {
        let mut call = Call::object(Method::PUT, &target.key)
            .query("partNumber", number.to_string())
            .query("uploadId", target.upload_id.as_str())
            .header("x-amz-copy-source", self.client.address.copy_source(from))
            .header("x-amz-copy-source-if-match", format!("\"{}\"", version.as_str()));
        if let Some(range) = range {
            if range.is_empty() {
                return Err(Error::new(Kind::Invalid, "an empty part cannot be copied"));
            }
            call = call.header("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = match self.client.send(&call).await {
            Ok(reply) => reply.document().await,
            Err(refused) => Err(refused),
        };
        match answer {
            // Where the server does not watch the source, its version afterwards tells which bytes were copied.
            Ok(root) if self.probe.part_source || self.head(from).await?.is_some_and(|head| head.is(version)) => {
                result_etag(&root)
            }
            Ok(_) => Err(changed()),
            Err(refused) if refused.is_precondition() => Err(changed()),
            Err(refused) => Err(gone(refused)),
        }
    }

    /// Which parts the server holds, in order.
    pub(super) async fn list_parts(&self, session: &Session) -> Result<Vec<Part>> {
        let target = read(session)?.target;
        let (mut parts, mut after) = (Vec::new(), 0_u64);
        loop {
            let call = Call::object(Method::GET, &target.key)
                .query("uploadId", target.upload_id.as_str())
                .query("max-parts", "1000")
                .query("part-number-marker", after.to_string());
            let root = self.client.send(&call).await.map_err(gone)?.document().await.map_err(gone)?;
            for part in root.all("Part") {
                let number = u32::try_from(part.number("PartNumber")?)
                    .map_err(|_| Error::new(Kind::Corrupt, "a part's number"))?;
                parts.push(Part { number, size: part.number("Size")?, tag: part.must("ETag").map(wire::etag)? });
            }
            let last = parts.last().map_or(0, |part| u64::from(part.number));
            if !root.flag("IsTruncated") || last <= after {
                return Ok(parts);
            }
            after = last;
        }
    }

    /// Puts a session's parts together.
    pub(super) async fn finish_upload(
        &self,
        session: &Session,
        parts: &[Part],
        meta: &Meta,
        condition: &Condition,
    ) -> Result<Entry> {
        let session = read(session)?;
        let gapless = parts.iter().zip(1..).all(|(part, number)| part.number == number);
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if !gapless || parts.is_empty() || size != session.size {
            let why = format!("{} parts with {size} bytes of {}", parts.len(), session.size);
            return Err(Error::new(Kind::Invalid, why));
        }
        let stored = self.complete_upload(&session.target, parts, condition).await?;
        if meta::headers(meta, FileKind::File)? == session.headers {
            return Ok(self.written(size, stored, meta));
        }
        // The attributes changed while the parts were on their way.
        let Some(head) = self.head(&session.target.key).await? else { return Err(changed()) };
        let headers = meta::rewritten(&head.headers, meta, FileKind::File)?;
        let origin = Origin { key: &session.target.key, head: &head, seen: Seen::JustNow };
        let stored = Box::pin(self.copy_key(origin, &session.target.key, Some(headers), &Condition::Any)).await?;
        Ok(self.written(size, stored, meta))
    }

    /// Completes an upload under `condition`, and compares what the server made of it. Safe to repeat after a lost answer.
    pub(super) async fn complete_upload(
        &self,
        target: &Target,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Stored> {
        let body = wire::complete_body(parts.iter().map(|part| (part.number, part.tag.as_str())));
        let hashes = Hashes::of(body.as_bytes(), Want::Md5AndSha256);
        let expected = composite(parts);
        let size = parts.iter().map(|part| part.size).sum();
        for race in 1.. {
            let guard = condition_header(condition, self.probe.finish_create, self.probe.finish_replace);
            if guard.is_none() && *condition != Condition::Any {
                self.look(&target.key, condition).await?;
            }
            let call = Call::object(Method::POST, &target.key)
                .query("uploadId", target.upload_id.as_str())
                .headers(guard)
                .header("content-type", "application/xml")
                .body(Payload::Bytes(body.clone().into()), hashes.sha256.clone());
            let answer = match self.client.send(&call).await {
                Ok(reply) => reply.document().await,
                Err(refused) => Err(refused),
            };
            match answer {
                Ok(root) => {
                    let etag = root.text_of("ETag").map(wire::etag).unwrap_or_default();
                    return self.completed(&target.key, etag, expected, size).await;
                }
                Err(refused) if refused.is_precondition() => return Err(lost()),
                Err(refused) if refused.code == "ConditionalRequestConflict" && race < RACES_MAX => {
                    self.look(&target.key, condition).await?;
                }
                Err(refused) if refused.is_absent() => {
                    return self.completed_before(target, expected, size, condition, refused.code == "NoSuchKey").await;
                }
                Err(refused) => return Err(refused.error),
            }
        }
        Err(Error::new(Kind::Unavailable, "others keep writing to it"))
    }

    async fn completed(&self, key: &str, etag: String, expected: Option<String>, size: u64) -> Result<Stored> {
        if !etag.is_empty() && Some(&etag) == expected.as_ref() {
            return Ok(Stored { etag, verified: false });
        }
        let etag = self.compare_size(key, &etag, size).await?;
        Ok(Stored { etag, verified: false })
    }

    /// The upload is gone: it may have been completed, and only the answer was lost.
    async fn completed_before(
        &self,
        target: &Target,
        expected: Option<String>,
        size: u64,
        condition: &Condition,
        no_such_key: bool,
    ) -> Result<Stored> {
        let head = self.head(&target.key).await?;
        if let (Some(head), Some(expected)) = (&head, &expected)
            && head.etag == *expected
            && head.size == size
        {
            return Ok(Stored { etag: head.etag.clone(), verified: false });
        }
        // If-Match where no object is, too, is 404.
        if no_such_key || (head.is_none() && matches!(condition, Condition::Is(_))) {
            return Err(lost());
        }
        Err(Error::new(Kind::NotFound, "the server no longer knows the upload"))
    }

    /// Drops a session.
    pub(super) async fn abort_session(&self, session: &Session) -> Result<()> {
        self.abort_upload(&read(session)?.target).await
    }

    /// Drops an upload; one that is gone is no error.
    pub(super) async fn abort_upload(&self, target: &Target) -> Result<()> {
        let call = Call::object(Method::DELETE, &target.key).query("uploadId", target.upload_id.as_str());
        match self.client.send(&call).await {
            Ok(reply) => reply.drain().await,
            Err(refused) if refused.is_absent() => Ok(()),
            Err(refused) => Err(refused.error),
        }
    }

    /// Drops uploads below our prefix that were begun more than a week ago: parts of an upload that never ends cost money for
    /// ever. An upload does not say which program began it, so those of others below the prefix end too; a drive that must
    /// not do this is read-only, or has its bucket's own rule. Returns how many.
    pub(super) async fn sweep_abandoned(&self) -> Result<usize> {
        let call = Call::bucket(Method::GET)
            .query("uploads", "")
            .query("prefix", self.layout.prefix())
            .query("max-uploads", ABANDONED_MAX.to_string());
        let root = self.client.send(&call).await?.document().await?;
        let now = self.client.wall_ns();
        let mut dropped = 0;
        for upload in root.all("Upload") {
            let Some(begun) = upload.text_of("Initiated").and_then(wire::time_ns) else { continue };
            let (Some(key), Some(id)) = (upload.text_of("Key"), upload.text_of("UploadId")) else { continue };
            if now.saturating_sub(begun) > ABANDONED_NS && key.starts_with(self.layout.prefix()) {
                self.abort_upload(&Target { key: key.to_owned(), upload_id: id.to_owned() }).await?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

/// The etag of an upload on servers like AWS: the MD5 of the parts' MD5s, and their number. `None` where the tags are no MD5s.
fn composite(parts: &[Part]) -> Option<String> {
    let mut all = Md5::new();
    for part in parts {
        if !is_md5(&part.tag) {
            return None;
        }
        all.update(unhex(&part.tag)?);
    }
    Some(format!("{}-{}", hex(&all.finalize()), parts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_an_upload_is_foretold() {
        // The MD5 of the 16 bytes of md5("") is 59adb24ef3cdbe0297f05b395827453f.
        let part = |tag: &str| Part { number: 1, size: 0, tag: tag.into() };
        let empty = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(composite(&[part(empty)]).as_deref(), Some("59adb24ef3cdbe0297f05b395827453f-1"));
        assert_eq!(composite(&[part("opaque")]), None);
    }

    #[test]
    fn a_session_that_is_not_ours_is_refused() {
        assert_eq!(read(&Session("x".into())).err().map(|e| e.kind), Some(Kind::Invalid));
    }
}
