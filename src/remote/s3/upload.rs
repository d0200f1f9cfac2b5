//! Storing whole objects: one request where the server obeys conditions, and a comparison of what it stored.

use super::S3Remote;
use super::client::Call;
use super::digest::{Hashes, Payload, prepare};
use super::meta;
use super::object::{is_md5, is_opaque, lost};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Hash, HashKind, Meta, RemotePath, Version};
use crate::remote::{Condition, PutRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;

/// Largest object of one PUT, bytes (`API/API_PutObject.html`: 5 GB, which S3 counts as GiB).
pub(super) const PUT_BYTES_MAX: u64 = 5 << 30;
/// How often a write that raced with another one is tried (409 ConditionalRequestConflict: "retry the request").
pub(super) const RACES_MAX: u32 = 4;

/// The header that makes the server check `condition`, where it obeys such.
pub(super) fn condition_header(condition: &Condition, create: bool, replace: bool) -> Option<(String, String)> {
    match condition {
        Condition::Absent if create => Some(("if-none-match".into(), "*".into())),
        Condition::Is(version) if replace => Some(("if-match".into(), format!("\"{}\"", version.as_str()))),
        _ => None,
    }
}

/// What was stored: its etag, and whether that is the MD5 that we computed.
pub(super) struct Stored {
    pub etag: String,
    pub verified: bool,
}

impl S3Remote {
    /// Stores a file.
    pub(super) async fn put_file(&self, path: &RemotePath, request: PutRequest) -> Result<Entry> {
        let size = request.body.size();
        if size > PUT_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, format!("{size} bytes; one request stores {PUT_BYTES_MAX}")));
        }
        let (key, _) = self.object_key(path).await?;
        let headers = meta::headers(&request.meta, FileKind::File)?;
        let (hashes, payload) = prepare(&request.body, 0..size, self.want()).await?;
        let stored = self.put_key(&key, payload, &hashes, headers, &request.condition).await?;
        Ok(self.written(size, stored, &request.meta))
    }

    /// The entry of a file just written.
    pub(super) fn written(&self, size: u64, stored: Stored, meta: &Meta) -> Entry {
        Entry {
            kind: FileKind::File,
            id: None,
            size,
            hash: stored.verified.then(|| Hash { kind: HashKind::Md5, hex: stored.etag.clone() }),
            version: (!stored.etag.is_empty()).then(|| Version::new(stored.etag)),
            server_mtime_ns: None,
            meta: Some(Meta { xattrs: Some(meta.xattrs.clone().unwrap_or_default()), ..meta.clone() }),
        }
    }

    /// Stores one object under `condition`. `Precondition`: it did not hold, and nothing was stored.
    pub(super) async fn put_key(
        &self,
        key: &str,
        payload: Payload,
        hashes: &Hashes,
        headers: Vec<(String, String)>,
        condition: &Condition,
    ) -> Result<Stored> {
        let size = payload.len();
        let mut guard = condition_header(condition, self.probe.create, self.probe.replace);
        for race in 1.. {
            if guard.is_none() && *condition != Condition::Any {
                self.look(key, condition).await?;
            }
            let call = Call::object(Method::PUT, key)
                .header("content-md5", BASE64.encode(hashes.md5))
                .headers(headers.clone())
                .headers(guard.clone())
                .body(payload.clone(), hashes.sha256.clone());
            match self.client.send(&call).await {
                Ok(reply) => {
                    let (etag, opaque) = (reply.etag(), is_opaque(&reply.headers));
                    reply.drain().await?;
                    return self.compare(key, etag, opaque, hashes, size).await;
                }
                Err(refused) if refused.is_precondition() => return Err(lost()),
                // If-Match where no object is.
                Err(refused) if refused.is_absent() && guard.is_some() => return Err(lost()),
                Err(refused) if refused.code == "ConditionalRequestConflict" && race < RACES_MAX => {
                    self.look(key, condition).await?;
                }
                Err(refused) if refused.is_not_implemented() && guard.is_some() => guard = None,
                Err(refused) => return Err(refused.error),
            }
        }
        Err(Error::new(Kind::Unavailable, "others keep writing to it"))
    }

    async fn compare(&self, key: &str, etag: String, opaque: bool, hashes: &Hashes, size: u64) -> Result<Stored> {
        if etag.eq_ignore_ascii_case(&hashes.etag()) {
            return Ok(Stored { etag, verified: true });
        }
        if self.probe.etag_md5 && is_md5(&etag) && !opaque {
            return Err(Error::new(Kind::Corrupt, "the server stored other bytes than were sent"));
        }
        // Of an empty marker there is nothing to compare, and some stores have no etag for it.
        if key.ends_with('/') && size == 0 {
            return Ok(Stored { etag, verified: false });
        }
        let etag = self.compare_size(key, &etag, size).await?;
        Ok(Stored { etag, verified: false })
    }

    /// Makes a directory: writes its marker.
    pub(super) async fn make_directory(&self, path: &RemotePath, meta: &Meta) -> Result<Entry> {
        let exists = || Error::new(Kind::Exists, "it is there already");
        if path.is_root() {
            return Err(exists());
        }
        let (directory, file) = tokio::join!(self.stat_directory(path), self.object(path));
        if directory?.is_some() || file?.is_some() {
            return Err(exists());
        }
        match self
            .put_marker(&self.layout.directory(path), meta::headers(meta, FileKind::Directory)?, &Condition::Absent)
            .await
        {
            Err(error) if error.kind == Kind::Precondition => return Err(exists()),
            other => other?,
        }
        let mut entry = super::keys::directory_entry(None);
        entry.meta = Some(Meta { xattrs: Some(meta.xattrs.clone().unwrap_or_default()), ..meta.clone() });
        Ok(entry)
    }

    /// Writes an empty marker; `key` ends in `/`. The type is the one of the S3 console and s3fs.
    pub(super) async fn put_marker(
        &self,
        key: &str,
        mut headers: Vec<(String, String)>,
        condition: &Condition,
    ) -> Result<()> {
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/x-directory".into()));
        }
        let hashes = Hashes::of(b"", self.want());
        self.put_key(key, Payload::Bytes(bytes::Bytes::new()), &hashes, headers, condition).await.map(drop)
    }
}
