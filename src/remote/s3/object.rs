//! One object or directory: what is there, and reading it.
//!
//! A file costs one HEAD to look at and one GET to read. That nothing is there is said only after a listing agreed: a HEAD that
//! fails has no body, so 404 may also mean that the bucket is gone.

use super::S3Remote;
use super::client::{Call, Reply, header};
use super::digest::unhex;
use super::errors::Answer;
use super::keys::directory_entry;
use super::list::Depth;
use super::meta;
use super::probe::Markers;
use super::wire;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Hash, HashKind, RemotePath, Version};
use crate::remote::ByteStream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::Method;
use reqwest::header::HeaderMap;
use std::ops::Range;

/// What a HEAD says.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub size: u64,
    /// Without quotes; empty where the server names none.
    pub etag: String,
    /// `Last-Modified`, nanoseconds since 1970.
    pub modified_ns: Option<i64>,
    pub headers: HeaderMap,
}

impl Head {
    fn of(reply: &Reply) -> Result<Head> {
        let size = reply.header("content-length").and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| Error::new(Kind::Corrupt, "the server names no size"))?;
        let modified_ns = reply
            .header("last-modified")
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|at| i64::try_from(at.as_nanos()).ok());
        Ok(Head { size, etag: reply.etag(), modified_ns, headers: reply.headers.clone() })
    }

    /// Whether this is the content of `version`.
    pub fn is(&self, version: &Version) -> bool {
        self.etag == version.as_str()
    }
}

/// Whether an object's etag says nothing of its content: encrypted with keys of KMS or of the customer
/// ("Checking object integrity", etags).
pub(super) fn is_opaque(headers: &HeaderMap) -> bool {
    header(headers, "x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// Whether an etag has the form of an MD5 sum.
pub(super) fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && unhex(etag).is_some()
}

impl S3Remote {
    /// Looks at a key. `None`: asked, and no such key (or no such bucket, see above).
    pub(super) async fn head(&self, key: &str) -> Result<Option<Head>> {
        match self.client.send(&Call::object(Method::HEAD, key)).await {
            Ok(reply) => Head::of(&reply).map(Some),
            Err(refused) if refused.is_absent() => Ok(None),
            // The answer to a HEAD has no body, so why it was refused is learnt from the least GET.
            Err(refused) if matches!(refused.status, 400 | 403) && refused.code.is_empty() => {
                let call = Call::object(Method::GET, key).header("range", "bytes=0-0");
                Err(self.client.send(&call).await.err().unwrap_or(refused).error)
            }
            Err(refused) => Err(refused.error),
        }
    }

    /// A file's entry.
    pub(super) fn file_entry(&self, head: &Head) -> Entry {
        let md5 = self.probe.etag_md5 && is_md5(&head.etag) && !is_opaque(&head.headers);
        Entry {
            kind: FileKind::File,
            id: None,
            size: head.size,
            version: (!head.etag.is_empty()).then(|| Version::new(head.etag.as_str())),
            hash: md5.then(|| Hash { kind: HashKind::Md5, hex: head.etag.to_ascii_lowercase() }),
            server_mtime_ns: head.modified_ns,
            meta: Some(meta::read(&head.headers, FileKind::File)),
        }
    }

    /// The key of the object at `path`, with its HEAD where one was needed: only a made-up name costs a look.
    pub(super) async fn object_key(&self, path: &RemotePath) -> Result<(String, Option<Head>)> {
        let plain = self.layout.file(path);
        let Some(other) = self.layout.suffixed(path) else { return Ok((plain, None)) };
        if let Some(head) = self.head(&plain).await? {
            return Ok((plain, Some(head)));
        }
        match self.head(&other).await? {
            Some(head) => Ok((other, Some(head))),
            None => Ok((plain, None)),
        }
    }

    /// The key and HEAD of the object at `path`; `None` where no object is.
    pub(super) async fn object(&self, path: &RemotePath) -> Result<Option<(String, Head)>> {
        let (key, head) = self.object_key(path).await?;
        let head = match head {
            Some(head) => Some(head),
            None => match self.head(&key).await {
                // Stores over a file system fail so at the name of a directory.
                Err(error) if error.kind == Kind::Unavailable && self.is_directory(path).await? => None,
                head => head?,
            },
        };
        Ok(head.map(|head| (key, head)))
    }

    /// Whether a directory is at `path`, at the cost of one listing.
    pub(super) async fn is_directory(&self, path: &RemotePath) -> Result<bool> {
        let prefix = self.layout.directory(path);
        let keys = self.keys(&prefix, Depth::All, 1, None).await?;
        Ok(!keys.objects.is_empty() || (self.probe.markers == Markers::Unlisted && self.head(&prefix).await?.is_some()))
    }

    /// What is at `path`, attributes included.
    pub(super) async fn stat_path(&self, path: &RemotePath) -> Result<Option<Entry>> {
        if !path.is_root() {
            // A name that is both was listed as a directory; what is listed and what is looked at must agree.
            if self.is_clash(path)
                && let Some(directory) = self.stat_directory(path).await?
            {
                return Ok(Some(directory));
            }
            if let Some((_, head)) = self.object(path).await? {
                return Ok(Some(self.file_entry(&head)));
            }
        }
        self.stat_directory(path).await
    }

    /// The directory at `path`, with the attributes of its marker; `None` where there is none. The root is always there.
    pub(super) async fn stat_directory(&self, path: &RemotePath) -> Result<Option<Entry>> {
        let prefix = self.layout.directory(path);
        let keys = self.keys(&prefix, Depth::All, 1, None).await?;
        let first = keys.objects.first();
        let listed = first.is_some_and(|object| object.key == prefix);
        let looked_at = match self.probe.markers {
            Markers::Listed => listed,
            Markers::Unlisted => !prefix.is_empty(),
            Markers::Useless => false,
        };
        let marker = if looked_at { self.head(&prefix).await? } else { None };
        let hadoop = match &marker {
            None if first.is_none() && self.saw_hadoop() && !path.is_root() => {
                self.head(&self.layout.hadoop(path)).await?
            }
            _ => None,
        };
        if first.is_none() && marker.is_none() && hadoop.is_none() && !path.is_root() {
            return Ok(None);
        }
        let found = marker.or(hadoop);
        let mut entry = directory_entry(found.as_ref().and_then(|head| head.modified_ns));
        entry.meta = Some(found.map(|head| meta::read(&head.headers, FileKind::Directory)).unwrap_or_default());
        Ok(Some(entry))
    }

    /// `NotFound` or `NotDirectory` unless a directory is there.
    pub(super) async fn must_be_directory(&self, path: &RemotePath) -> Result<()> {
        if self.stat_directory(path).await?.is_some() {
            return Ok(());
        }
        let kind = if self.object(path).await?.is_some() { Kind::NotDirectory } else { Kind::NotFound };
        Err(Error::new(kind, if kind == Kind::NotFound { "no such directory" } else { "not a directory" }))
    }

    /// The error for an object that is not there: `IsDirectory` if a directory has the name.
    pub(super) async fn no_object(&self, path: &RemotePath) -> Error {
        match self.stat_directory(path).await {
            Ok(Some(_)) => Error::new(Kind::IsDirectory, "it is a directory"),
            Ok(None) => Error::new(Kind::NotFound, "no such file"),
            Err(error) => error,
        }
    }

    /// Reads `range` of `version`.
    pub(super) async fn read_object(
        &self,
        path: &RemotePath,
        version: &Version,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        if range.is_empty() {
            let found = self.object(path).await?;
            return match found {
                Some((_, head)) if head.is(version) => Ok(Box::pin(futures_util::stream::empty())),
                Some(_) => Err(changed()),
                None => Err(self.no_object(path).await),
            };
        }
        let mut answer = self.get(&self.layout.file(path), version, &range).await;
        if matches!(&answer, Err(refused) if refused.is_absent() || refused.is_precondition())
            && let Some(other) = self.layout.suffixed(path)
        {
            answer = self.get(&other, version, &range).await;
        }
        match answer {
            Ok(reply) => exactly(reply, version, range),
            Err(refused) if refused.is_precondition() || refused.status == 416 => Err(changed()),
            Err(refused) if refused.is_absent() => Err(self.no_object(path).await),
            Err(refused) => Err(refused.error),
        }
    }

    async fn get(&self, key: &str, version: &Version, range: &Range<u64>) -> Answer<Reply> {
        let call = Call::object(Method::GET, key)
            .header("range", format!("bytes={}-{}", range.start, range.end - 1))
            .header("if-match", format!("\"{}\"", version.as_str()));
        self.client.send(&call).await
    }

    /// Fails unless `condition` holds at `key` now; returns what is there.
    pub(super) async fn look(&self, key: &str, condition: &crate::remote::Condition) -> Result<Option<Head>> {
        use crate::remote::Condition;
        let head = self.head(key).await?;
        let holds = match (condition, &head) {
            (Condition::Any, _) | (Condition::Absent, None) => true,
            (Condition::Is(version), Some(head)) => head.is(version),
            (Condition::Absent, Some(_)) | (Condition::Is(_), None) => false,
        };
        if holds { Ok(head) } else { Err(lost()) }
    }

    /// What a multipart or unusual etag leaves to be compared after a write: the size. Returns the etag that stands.
    pub(super) async fn compare_size(&self, key: &str, etag: &str, size: u64) -> Result<String> {
        let Some(head) = self.head(key).await? else {
            return Err(Error::new(Kind::Unavailable, "what was just stored is not there"));
        };
        // Another etag is another writer's, who came after us: of our own content nothing more can be learnt.
        if !etag.is_empty() && head.etag != etag {
            return Ok(etag.to_owned());
        }
        if head.size != size {
            let why = format!("the server stored {} bytes of {size}", head.size);
            return Err(Error::new(Kind::Corrupt, why));
        }
        Ok(head.etag)
    }
}

/// A condition did not hold.
pub(super) fn lost() -> Error {
    Error::new(Kind::Precondition, "somebody else changed it first")
}

/// The version read is no longer served.
pub(super) fn changed() -> Error {
    Error::new(Kind::Changed, "the server has another version now")
}

/// The body as exactly the bytes of `range` of `version`, or an error in the stream.
fn exactly(reply: Reply, version: &Version, range: Range<u64>) -> Result<ByteStream> {
    // A server that ignores If-Match serves what it has; its own etag tells.
    let etag = reply.etag();
    if !etag.is_empty() && etag != version.as_str() {
        return Err(changed());
    }
    let wanted = range.end - range.start;
    let length = reply.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let starts = match (reply.status, reply.header("content-range")) {
        // Also with status 200: gofakes3 (rclone serve s3) sends parts with it.
        (_, Some(text)) => {
            text.strip_prefix("bytes ").and_then(|rest| rest.split_once('-')).and_then(|(start, _)| start.parse().ok())
        }
        (206, None) => Some(range.start),
        // The whole object, which is right only if that was asked for.
        _ => Some(0),
    };
    if starts != Some(range.start) || length.is_some_and(|length| length != wanted) {
        return Err(Error::new(Kind::Corrupt, "the server sent another range than the one asked for"));
    }
    let mut left = wanted;
    let counted = reply.response.bytes_stream().map(move |piece| -> Result<Bytes> {
        let piece = piece.map_err(|e| crate::sys::http::transport(&e))?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| Error::new(Kind::Corrupt, "the server sent more than was asked for"))?;
        Ok(piece)
    });
    Ok(whole(counted.boxed(), wanted))
}

/// Adds an error at the end of a stream that is too short, and ends it after its first error.
fn whole(stream: futures_util::stream::BoxStream<'static, Result<Bytes>>, wanted: u64) -> ByteStream {
    Box::pin(futures_util::stream::unfold(Some((stream, wanted)), |state| async move {
        let (mut stream, left) = state?;
        match stream.next().await {
            Some(Ok(piece)) => {
                let left = left.saturating_sub(piece.len() as u64);
                Some((Ok(piece), Some((stream, left))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if left > 0 => Some((Err(Error::new(Kind::Corrupt, format!("{left} bytes are missing"))), None)),
            None => None,
        }
    }))
}

/// The etag of a copy's answer.
pub(super) fn result_etag(root: &wire::Element) -> Result<String> {
    root.must("ETag").map(wire::etag)
}
