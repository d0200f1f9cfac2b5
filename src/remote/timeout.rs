//! The layer with deadlines: an answer within a time that fits the call, and content that keeps moving.
//!
//! A slow transfer is never cut, only one that stands still: a download when no byte comes, an upload when nothing more is
//! asked of its source, however long the whole takes.

use super::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session, Source,
};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Meta, Quota, Version};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What the system's socket may hold of an upload after its source was read: the most that Linux grows a send buffer to by
/// itself (`net.ipv4.tcp_wmem`, 4 MiB).
const SOCKET_BYTES: u64 = 4 << 20;

/// The deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// For calls on one entry, milliseconds.
    pub answer_ms: u64,
    /// For one page of a listing or of changes (besides the wait asked for), milliseconds: large folders take servers a while.
    pub page_ms: u64,
    /// For what a server may do by copying: rename, copy, putting parts together. Milliseconds.
    pub work_ms: u64,
    /// Until a download begins, milliseconds; below the 10 s that a program's read may take in all.
    pub first_byte_ms: u64,
    /// The longest pause within a download, milliseconds.
    pub download_pause_ms: u64,
    /// The longest pause within an upload, milliseconds.
    pub upload_pause_ms: u64,
    /// The slowest link that counts as moving, bytes a second: what was read of a source but may not have left yet is given
    /// time at this rate.
    pub bytes_per_s_min: u64,
}

impl Default for TimeoutPolicy {
    fn default() -> Self {
        TimeoutPolicy {
            answer_ms: 20_000,
            page_ms: 60_000,
            work_ms: 600_000,
            first_byte_ms: 9_000,
            download_pause_ms: 9_000,
            upload_pause_ms: 30_000,
            bytes_per_s_min: 32 << 10,
        }
    }
}

impl TimeoutPolicy {
    /// The deadline of a call that moves no content.
    fn answer(&self, call: Call) -> Duration {
        Duration::from_millis(match call {
            Call::Sweep | Call::List | Call::Changes => self.page_ms,
            Call::Rename | Call::Copy | Call::PartCopy | Call::Finish => self.work_ms,
            Call::Read => self.first_byte_ms,
            _ => self.answer_ms,
        })
    }
}

/// A remote that answers in time or fails with `TimedOut`.
pub struct Timeout {
    inner: Arc<dyn Remote>,
    policy: TimeoutPolicy,
}

impl Timeout {
    /// Puts deadlines on `inner`.
    pub fn new(inner: Arc<dyn Remote>, policy: TimeoutPolicy) -> Self {
        Timeout { inner, policy }
    }

    async fn answer<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.answer_after(call, 0, work).await
    }

    async fn answer_after<T>(&self, call: Call, wait_ms: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
        let deadline = self.policy.answer(call) + Duration::from_millis(wait_ms);
        match tokio::time::timeout(deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(late(call, "no answer", deadline)),
        }
    }

    /// Watches an upload that reads `upload`.
    async fn moving<T>(&self, call: Call, upload: &Upload, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(work);
        loop {
            let deadline = upload.deadline(&self.policy);
            match tokio::time::timeout_at(deadline, &mut work).await {
                Ok(result) => return result,
                Err(_) if upload.deadline(&self.policy) > deadline => {}
                Err(_) => return Err(late(call, "nothing moves", deadline - upload.lock().at)),
            }
        }
    }
}

fn late(call: Call, what: &str, after: Duration) -> Error {
    Error::new(Kind::TimedOut, format!("{}: {what} for {} s", call.name(), after.as_secs()))
}

/// A body that knows how far it was read, and when.
struct Upload {
    body: Body,
    /// Bytes that the call reads in all.
    size: u64,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy)]
struct Progress {
    at: Instant,
    bytes: u64,
    largest: u64,
}

impl Upload {
    fn new(body: Body, size: u64) -> Arc<Upload> {
        let progress = Mutex::new(Progress { at: Instant::now(), bytes: 0, largest: 0 });
        Arc::new(Upload { body, size, progress })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this upload counts as standing still, as far as is known now.
    fn deadline(&self, policy: &TimeoutPolicy) -> Instant {
        let progress = *self.lock();
        let unsent = progress.bytes.min(progress.largest + SOCKET_BYTES);
        let drain = Duration::from_secs(unsent / policy.bytes_per_s_min.max(1));
        let answer = if progress.bytes >= self.size { policy.answer_ms } else { 0 };
        progress.at + Duration::from_millis(policy.upload_pause_ms + answer) + drain
    }
}

impl Source for Upload {
    fn size(&self) -> u64 {
        self.body.size()
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.body.read(range)?;
        let mut progress = self.lock();
        progress.at = Instant::now();
        progress.bytes += bytes.len() as u64;
        progress.largest = progress.largest.max(bytes.len() as u64);
        Ok(bytes)
    }
}

#[async_trait]
impl Remote for Timeout {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.answer(Call::Sweep, self.inner.sweep(page)).await
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        self.answer(Call::List, self.inner.list(directory, page)).await
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        self.answer_after(Call::Changes, wait_ms, self.inner.changes(cursor, wait_ms)).await
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.answer(Call::Stat, self.inner.stat(place)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let began = Instant::now();
        let stream = self.answer(Call::Read, self.inner.read(place, version, range)).await?;
        let pause = Duration::from_millis(self.policy.download_pause_ms);
        let first = self.policy.answer(Call::Read).saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        Ok(Box::pin(futures_util::stream::unfold(Some((stream, first)), move |state| async move {
            let (mut stream, patience) = state?;
            match tokio::time::timeout(patience, stream.next()).await {
                Ok(Some(Ok(piece))) => Some((Ok(piece), Some((stream, pause)))),
                Ok(Some(Err(e))) => Some((Err(e), None)),
                Ok(None) => None,
                Err(_) => Some((Err(late(Call::Read, "no byte", patience)), None)),
            }
        })))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        self.answer(Call::ReadLink, self.inner.read_link(place)).await
    }

    async fn put(&self, place: &Place, mut request: PutRequest) -> Result<Entry> {
        let size = request.body.size();
        let upload = Upload::new(request.body, size);
        request.body = upload.clone();
        self.moving(Call::Put, &upload, self.inner.put(place, request)).await
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        self.answer(Call::PutLink, self.inner.put_link(place, target, meta)).await
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        self.answer(Call::Begin, self.inner.begin(place, size, meta, condition)).await
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        let upload = Upload::new(body, range.end.saturating_sub(range.start));
        self.moving(Call::Part, &upload, self.inner.part(session, number, upload.clone(), range)).await
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        self.answer(Call::PartCopy, self.inner.part_copy(session, number, from, version, range)).await
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.answer(Call::Parts, self.inner.parts(session)).await
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        self.answer(Call::Finish, self.inner.finish(session, parts, meta, condition)).await
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.answer(Call::Abort, self.inner.abort(session)).await
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.answer(Call::Mkdir, self.inner.mkdir(place, meta)).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.answer(Call::Rename, self.inner.rename(from, to, source, condition)).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.answer(Call::Remove, self.inner.remove(place, directory, condition)).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.answer(Call::Copy, self.inner.copy(from, version, to, condition)).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.answer(Call::SetMeta, self.inner.set_meta(place, directory, version, meta)).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.answer(Call::Quota, self.inner.quota()).await
    }
}
