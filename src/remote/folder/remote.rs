//! The trait over the root. Each call runs on a thread that may block.

use super::root::{Root, fail};
use super::watch::{Shared, Watch};
use super::write::check_version;
use super::{FeedState, Folder};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Meta, Quota, RemotePath, Version};
use crate::remote::{
    Body, ByteStream, Capabilities, Change, ChangeFeed, Changes, Condition, Listing, Part, Place, PutRequest, Remote,
    Session,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of one piece of a stream.
const PIECE_BYTES: u64 = 256 << 10;

/// How often everything is looked at where not everything can be watched.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Folder {
    /// Runs `work` where it may block.
    async fn block<T: Send + 'static>(&self, work: impl FnOnce(&Root) -> Result<T> + Send + 'static) -> Result<T> {
        let root = self.root.clone();
        blocking(move || work(&root)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(Kind::Disk, format!("the folder's worker ended: {e}"))),
    }
}

fn no_sessions<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "a folder has no upload sessions"))
}

/// A read that is under way.
struct Reading {
    file: Arc<File>,
    path: RemotePath,
    version: Version,
    left: Range<u64>,
}

impl Reading {
    /// The next piece, checked to be of the version; `None` at the end.
    async fn next(mut self) -> Option<(Result<Bytes>, Reading)> {
        if self.left.is_empty() {
            return None;
        }
        let piece = self.left.start..self.left.end.min(self.left.start + PIECE_BYTES);
        let (file, path, version) = (self.file.clone(), self.path.clone(), self.version.clone());
        let read = blocking(move || {
            let mut bytes = vec![0; (piece.end - piece.start) as usize];
            let result = file.read_exact_at(&mut bytes, piece.start);
            // Before the result: a file that was cut short has changed.
            check_version(&file, &version, &path)?;
            result.map_err(|e| fail(format!("read {path}"), e))?;
            Ok(Bytes::from(bytes))
        });
        let result = read.await;
        match &result {
            Ok(bytes) => self.left.start += bytes.len() as u64,
            Err(_) => self.left.start = self.left.end,
        }
        Some((result, self))
    }
}

/// The running feed, started if need be; true if it was started just now.
fn running(state: &Mutex<FeedState>, root: &Arc<Root>) -> Result<(Arc<Shared>, bool)> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watch) = &state.watch {
        return Ok((watch.shared.clone(), false));
    }
    let inotify = state.inotify.take().ok_or_else(|| Error::new(Kind::Unavailable, "the change feed did not start"))?;
    let watch = Watch::start(root.clone(), inotify)?;
    let shared = watch.shared.clone();
    state.watch = Some(watch);
    Ok((shared, true))
}

/// What the feed tells a cursor now.
fn feed_now(root: &Root, shared: &Shared, cursor: &str) -> Result<Changes> {
    let page = shared.feed().since(cursor);
    let (mut changes, mut gone) = (Vec::new(), Vec::new());
    for touched in page.touched {
        let path = RemotePath::new(&touched.path);
        match root.entry(&path)? {
            Some(entry) => {
                changes.push(Change::Present(path.clone(), Box::new(entry)));
                if touched.deep {
                    changes.push(Change::Look { directory: path, deep: true });
                }
            }
            None => gone.push(Change::Absent(path)),
        }
    }
    changes.append(&mut gone);
    Ok(Changes { changes, cursor: page.cursor, more: false, reset: page.reset })
}

/// Asks to look at everything, once in a while, where not everything is watched.
fn look_at_all(state: &Mutex<FeedState>, root: &Root, shared: &Shared) -> Option<Change> {
    if !shared.partial.load(Ordering::Relaxed) {
        return None;
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let now = root.clock.monotonic();
    if now.saturating_sub(state.looked) < LOOK_EVERY {
        return None;
    }
    state.looked = now;
    Some(Change::Look { directory: RemotePath::root(), deep: true })
}

#[async_trait]
impl Remote for Folder {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn describe(&self) -> String {
        format!("folder {}", self.root.path.display())
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.block(move |root| root.sweep(page.as_deref())).await
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        let path = directory.path.clone();
        self.block(move |root| root.list(&path, page.as_deref())).await
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        if self.capabilities.changes != ChangeFeed::Cursor {
            return Err(Error::new(Kind::Unsupported, "no change feed: inotify is not to be had"));
        }
        let (state, root) = (self.feed.clone(), self.root.clone());
        let (shared, _) = blocking(move || running(&state, &root)).await?;
        let Some(cursor) = cursor else {
            let cursor = shared.feed().cursor();
            return Ok(Changes { changes: Vec::new(), cursor, more: false, reset: false });
        };
        let end = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (asked, told, state) = (cursor.clone(), shared.clone(), self.feed.clone());
            let found = self.block(move |root| {
                let mut found = feed_now(root, &told, &asked)?;
                found.changes.extend(look_at_all(&state, root, &told));
                Ok(found)
            });
            let found = found.await?;
            if found.reset || !found.changes.is_empty() || tokio::time::Instant::now() >= end {
                return Ok(found);
            }
            // Whether it was an event or the time, the next look tells.
            let _ = tokio::time::timeout_at(end.min(tokio::time::Instant::now() + LOOK_EVERY), changed).await;
        }
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        let path = place.path.clone();
        self.block(move |root| root.entry(&path)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let (path, wanted) = (place.path.clone(), version.clone());
        let (file, facts) = self.block(move |root| root.open_version(&path, &wanted)).await?;
        if range.start > range.end || range.end > facts.size {
            return Err(Error::new(Kind::Invalid, format!("{}: bytes {range:?} of {}", place.path, facts.size)));
        }
        let (path, version) = (place.path.clone(), version.clone());
        let reading = Reading { file: Arc::new(file), path, version, left: range };
        Ok(Box::pin(futures_util::stream::unfold(reading, Reading::next)))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        let path = place.path.clone();
        self.block(move |root| {
            let (dir, name) = root.parent(&path)?;
            dir.read_link(&name).map_err(|e| fail(format!("read link {path}"), e))
        })
        .await
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        let path = place.path.clone();
        self.block(move |root| root.put(&path, &request)).await
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        let (path, target) = (place.path.clone(), target.to_vec());
        self.block(move |root| root.put_link(&path, &target, &meta)).await
    }

    async fn begin(&self, _: &Place, _: u64, _: &Meta, _: &Condition) -> Result<Session> {
        no_sessions()
    }

    async fn part(&self, _: &Session, _: u32, _: Body, _: Range<u64>) -> Result<Part> {
        no_sessions()
    }

    async fn part_copy(&self, _: &Session, _: u32, _: &Place, _: &Version, _: Range<u64>) -> Result<Part> {
        no_sessions()
    }

    async fn parts(&self, _: &Session) -> Result<Vec<Part>> {
        no_sessions()
    }

    async fn finish(&self, _: &Session, _: &[Part], _: &Meta, _: &Condition) -> Result<Entry> {
        no_sessions()
    }

    async fn abort(&self, _: &Session) -> Result<()> {
        no_sessions()
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        let (path, meta) = (place.path.clone(), meta.clone());
        self.block(move |root| root.mkdir(&path, &meta)).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        let (from, to, source, condition) = (from.path.clone(), to.path.clone(), source.cloned(), condition.clone());
        self.block(move |root| root.rename(&from, &to, source.as_ref(), &condition)).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        let (path, condition) = (place.path.clone(), condition.clone());
        self.block(move |root| root.remove(&path, directory, &condition)).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        let (from, to, version, condition) = (from.path.clone(), to.path.clone(), version.clone(), condition.clone());
        self.block(move |root| root.copy(&from, &version, &to, &condition)).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        let (path, version, meta) = (place.path.clone(), version.cloned(), meta.clone());
        self.block(move |root| root.set_meta(&path, directory, version.as_ref(), &meta)).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.block(|root| {
            let (used, available) = root.dir(&RemotePath::root())?.space().map_err(|e| fail("ask for space", e))?;
            Ok(Quota { used_bytes: Some(used), available_bytes: Some(available) })
        })
        .await
    }
}
