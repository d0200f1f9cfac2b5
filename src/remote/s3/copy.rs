//! Copies on the server's side: of files, of parts of them, and of an object onto itself with other attributes.

use super::S3Remote;
use super::client::Call;
use super::meta;
use super::multipart::Target;
use super::object::{Head, changed, lost, result_etag};
use super::upload::{RACES_MAX, Stored, condition_header};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, RemotePath, Version};
use crate::remote::{Condition, Part};
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;

/// Largest object that one CopyObject takes, bytes (`API/API_CopyObject.html`: 5 GB).
pub(super) const COPY_BYTES_MAX: u64 = 5 << 30;
/// Parts of larger copies, bytes; 10,000 of them are 9.7 TiB.
const COPY_PART_BYTES: u64 = 1 << 30;
/// Parts copied at once.
const COPY_PARTS_AT_ONCE: usize = 4;

/// When an object was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// By the request before this one.
    JustNow,
    /// In a listing, or several requests ago.
    Earlier,
}

/// An object and what was seen of it.
pub(super) struct Origin<'a> {
    pub key: &'a str,
    pub head: &'a Head,
    pub seen: Seen,
}

impl S3Remote {
    /// Copies one object as it was when its HEAD was taken. `headers`: what replaces its attributes; `None` keeps them.
    ///
    /// `Changed`: the source is another now. `Precondition`: `condition` does not hold at `to`. `NotFound`: no source.
    pub(super) async fn copy_key(
        &self,
        from: Origin<'_>,
        to: &str,
        headers: Option<Vec<(String, String)>>,
        condition: &Condition,
    ) -> Result<Stored> {
        if from.head.size > COPY_BYTES_MAX {
            match self.copy_in_parts(&from, to, headers.clone(), condition).await {
                // Google's store and Storj copy any size in one call instead.
                Err(error) if error.kind == Kind::Unsupported => {}
                done => return done,
            }
        }
        for race in 1.. {
            let guard = condition_header(condition, self.probe.copy_target, self.probe.copy_target);
            if guard.is_none() && *condition != Condition::Any {
                self.look(to, condition).await?;
            }
            self.source_is_unchanged(&from).await?;
            let mut call = Call::object(Method::PUT, to)
                .header("x-amz-copy-source", self.client.address.copy_source(from.key))
                .header("x-amz-copy-source-if-match", format!("\"{}\"", from.head.etag))
                .headers(guard);
            if let Some(headers) = &headers {
                call = call.header("x-amz-metadata-directive", "REPLACE").headers(headers.clone());
            }
            let answer = match self.client.send(&call).await {
                Ok(reply) => reply.document().await,
                Err(refused) => Err(refused),
            };
            match answer {
                Ok(root) => return self.copied(&from, to, result_etag(&root)?).await,
                Err(refused) if refused.is_precondition() => {
                    self.look(to, condition).await?;
                    return Err(changed());
                }
                Err(refused) if refused.code == "ConditionalRequestConflict" && race < RACES_MAX => {}
                Err(refused) => return Err(refused.error),
            }
        }
        Err(Error::new(Kind::Unavailable, "others keep writing to it"))
    }

    /// Where the server does not watch the source, we look.
    async fn source_is_unchanged(&self, from: &Origin<'_>) -> Result<()> {
        if self.probe.copy_source || from.seen == Seen::JustNow {
            return Ok(());
        }
        match self.head(from.key).await? {
            Some(now) if now.etag == from.head.etag => Ok(()),
            Some(_) => Err(changed()),
            None => Err(Error::new(Kind::NotFound, "no such file")),
        }
    }

    async fn copied(&self, from: &Origin<'_>, to: &str, etag: String) -> Result<Stored> {
        if etag == from.head.etag {
            return Ok(Stored { verified: self.file_entry(from.head).hash.is_some(), etag });
        }
        // The copy of an object that came in parts, or is encrypted, has an etag of its own.
        let etag = self.compare_size(to, &etag, from.head.size).await?;
        Ok(Stored { etag, verified: false })
    }

    async fn copy_in_parts(
        &self,
        from: &Origin<'_>,
        to: &str,
        headers: Option<Vec<(String, String)>>,
        condition: &Condition,
    ) -> Result<Stored> {
        if !self.probe.part_copy {
            return Err(Error::new(Kind::Unsupported, "the server copies no parts"));
        }
        let headers = match headers {
            Some(headers) => headers,
            None => meta::rewritten(&from.head.headers, &Meta::default(), FileKind::File)?,
        };
        let upload_id = self.create_upload(to, headers).await?;
        let target = Target { key: to.to_owned(), upload_id };
        match self.parts_and_end(from, &target, condition).await {
            Ok(stored) => Ok(stored),
            Err(error) => {
                // The first error is the one that matters; what is left over is swept after a week.
                let _ = self.abort_upload(&target).await;
                Err(error)
            }
        }
    }

    async fn parts_and_end(&self, from: &Origin<'_>, target: &Target, condition: &Condition) -> Result<Stored> {
        let size = from.head.size;
        let version = Version::new(from.head.etag.as_str());
        let ranges =
            (0..size.div_ceil(COPY_PART_BYTES)).map(|n| n * COPY_PART_BYTES..((n + 1) * COPY_PART_BYTES).min(size));
        let copies = ranges.zip(1_u32..).map(|(range, number)| {
            let version = &version;
            async move {
                let size = range.end - range.start;
                let tag = self.copy_part(target, number, from.key, version, Some(range)).await?;
                Ok::<_, Error>(Part { number, size, tag })
            }
        });
        let parts: Vec<Part> = futures_util::stream::iter(copies).buffered(COPY_PARTS_AT_ONCE).try_collect().await?;
        self.complete_upload(target, &parts, condition).await
    }

    /// Copies a file to another path.
    pub(super) async fn copy_file(
        &self,
        from: &RemotePath,
        version: &Version,
        to: &RemotePath,
        condition: &Condition,
    ) -> Result<Entry> {
        let Some((key, head)) = self.object(from).await? else { return Err(self.no_object(from).await) };
        if !head.is(version) {
            return Err(changed());
        }
        let (target, _) = self.object_key(to).await?;
        let stored =
            self.copy_key(Origin { key: &key, head: &head, seen: Seen::JustNow }, &target, None, condition).await?;
        Ok(self.written(head.size, stored, &meta::read(&head.headers, FileKind::File)))
    }

    /// Changes a file's attributes: copies it onto itself.
    pub(super) async fn set_file_meta(
        &self,
        path: &RemotePath,
        version: Option<&Version>,
        change: &Meta,
    ) -> Result<Entry> {
        let Some((key, head)) = self.object(path).await? else { return Err(self.no_object(path).await) };
        if version.is_some_and(|version| !head.is(version)) {
            return Err(lost());
        }
        let headers = meta::rewritten(&head.headers, change, FileKind::File)?;
        let stored = match self
            .copy_key(Origin { key: &key, head: &head, seen: Seen::JustNow }, &key, Some(headers), &Condition::Any)
            .await
        {
            Err(error) if error.kind == Kind::Changed => return Err(lost()),
            done => done?,
        };
        let meta = meta::merged(meta::read(&head.headers, FileKind::File), change);
        Ok(self.written(head.size, stored, &meta))
    }

    /// Changes a directory's attributes: writes its marker anew, or for the first time.
    pub(super) async fn set_directory_meta(&self, path: &RemotePath, change: &Meta) -> Result<Entry> {
        let prefix = self.layout.directory(path);
        if prefix.is_empty() {
            return Err(Error::new(Kind::Unsupported, "a bucket's root keeps no attributes"));
        }
        let Some(mut entry) = self.stat_directory(path).await? else {
            self.must_be_directory(path).await?;
            return Err(Error::new(Kind::NotFound, "no such directory"));
        };
        match self.head(&prefix).await? {
            // What lies under the marker's key may be data: never replace it by an empty object.
            Some(head) if head.size > 0 => {
                let headers = meta::rewritten(&head.headers, change, FileKind::Directory)?;
                self.copy_key(
                    Origin { key: &prefix, head: &head, seen: Seen::JustNow },
                    &prefix,
                    Some(headers),
                    &Condition::Any,
                )
                .await?;
            }
            Some(head) => {
                let headers = meta::rewritten(&head.headers, change, FileKind::Directory)?;
                self.put_marker(&prefix, headers, &Condition::Is(Version::new(head.etag))).await?;
            }
            None => {
                let all = meta::merged(entry.meta.clone().unwrap_or_default(), change);
                self.put_marker(&prefix, meta::headers(&all, FileKind::Directory)?, &Condition::Absent).await?;
            }
        }
        entry.meta = Some(meta::merged(entry.meta.unwrap_or_default(), change));
        Ok(entry)
    }
}
