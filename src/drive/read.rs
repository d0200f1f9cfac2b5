//! `read` and `lseek`.

use super::handles::Fh;
use super::open::regular;
use super::{Answer, Drive};
use crate::error::{Error, Kind, Result};
use crate::fetch::{Seen, Sink, Target};
use crate::journal::Staged;
use crate::model::{Ino, Version};
use crate::remote::Place;
use crate::store::{Content, Which};
use bytes::Bytes;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What one reader may have fetched ahead, as a part of the cache's bound.
const WINDOW_SHARE: u64 = 8;

/// How often a read looks anew for where its bytes are.
const TRIES_MAX: u32 = 32;

/// How long a read waits for a move of ours that is under way, before it looks again.
const MOVING: Duration = Duration::from_millis(100);

/// Where a file's bytes are right now.
pub(super) enum Bytesource {
    Empty,
    Staged(Arc<Staged>),
    Clean(Box<Target>),
}

impl Drive {
    /// Where the bytes of a file are.
    pub(super) fn source(&self, ino: Ino) -> Result<Bytesource> {
        if let Some(staged) = self.parts().journal.get(ino) {
            return Ok(Bytesource::Staged(staged));
        }
        let (node, path, view) = self
            .store()
            .read(|rows| Ok((rows.node(ino)?, rows.remote_path(0, ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        regular(&node)?;
        match node.content {
            Content::Version(version) => {
                let place = path.map(|path| Place { path, id: view.and_then(|v| v.id) });
                self.clean(ino, version, node.size, place).map(|target| Bytesource::Clean(Box::new(target)))
            }
            // Staged between the two looks, or empty.
            _ => Ok(self.parts().journal.get(ino).map_or(Bytesource::Empty, Bytesource::Staged)),
        }
    }

    fn clean(&self, ino: Ino, version: Version, size: u64, place: Option<Place>) -> Result<Target> {
        let file = self.parts().cache.file(ino, &version, size)?;
        // Without a place the remote has it no longer; its blocks here stay readable.
        let place = place.unwrap_or_else(|| Place::at(crate::model::RemotePath::root()));
        Ok(Target { ino, version, size, place, sink: Sink::Cache(file) })
    }

    /// The base version that a staged file's missing bytes come from.
    pub(super) fn base_target(&self, ino: Ino, staged: Arc<Staged>) -> Result<Target> {
        let base = staged.header().base.ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("inode {ino}: bytes are missing and no version has them"))
        })?;
        let (path, view) =
            self.store().read(|rows| Ok((rows.remote_path(0, ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let place = path.map(|path| Place { path, id: view.and_then(|v| v.id) });
        let place = place.ok_or_else(|| Error::new(Kind::Changed, format!("inode {ino} is gone on the remote")))?;
        Ok(Target { ino, version: base.version(), size: base.size, place, sink: Sink::Journal(staged) })
    }

    /// Reads up to `len` bytes at `offset`; short only at the end of the file.
    ///
    /// `Stale`/`Changed`: the version that this handle has is gone from the remote and not in the cache. `Offline`, `TimedOut`.
    pub fn read(&self, ino: Ino, fh: Fh, offset: u64, len: u32) -> Answer<Bytes> {
        match self.read_now(ino, fh, offset, len as usize) {
            Ok(Ok(bytes)) => Answer::Now(Ok(bytes)),
            Err(e) => Answer::Now(Err(e)),
            Ok(Err(source)) => {
                let drive = self.clone();
                Answer::later(async move {
                    let bytes = drive.read_far(ino, source, offset, len as usize).await?;
                    drive.handle(ino, fh).patience().answered();
                    Ok(bytes)
                })
            }
        }
    }

    /// The bytes, or where they must be fetched to.
    fn read_now(&self, ino: Ino, fh: Fh, offset: u64, len: usize) -> Result<std::result::Result<Bytes, Bytesource>> {
        let source = self.source(ino)?;
        match &source {
            Bytesource::Empty => Ok(Ok(Bytes::new())),
            Bytesource::Staged(staged) => match staged.read(offset, len) {
                Ok(Some(bytes)) => Ok(Ok(Bytes::from(bytes))),
                Ok(None) => Ok(Err(source)),
                // Its upload was confirmed meanwhile: the bytes are in the cache now.
                Err(e) if e.kind == Kind::Stale => Ok(Err(self.source(ino)?)),
                Err(e) => Err(e),
            },
            Bytesource::Clean(target) => {
                let end = target.size.min(offset.saturating_add(len as u64));
                if offset >= end {
                    return Ok(Ok(Bytes::new()));
                }
                let Sink::Cache(file) = &target.sink else { return Ok(Err(source)) };
                let mut buf = vec![0; (end - offset) as usize];
                let here = file.read_into(offset, &mut buf)?;
                let handle = self.handle(ino, fh);
                let window_max = (self.parts().space.max() / WINDOW_SHARE).min(self.parts().fetcher.ahead_max());
                let seen = Seen { range: offset..end, size: target.size, hit: here, window_max };
                let ahead = handle.pattern.lock().unwrap_or_else(PoisonError::into_inner).read(seen);
                if !ahead.is_empty() && !file.is_complete() {
                    let (fetcher, target) = (self.parts().fetcher.clone(), target.clone());
                    for range in ahead {
                        fetcher.ahead(&target, range);
                    }
                }
                if !here {
                    return Ok(Err(source));
                }
                handle.patience().answered();
                Ok(Ok(Bytes::from(buf)))
            }
        }
    }

    async fn read_far(&self, ino: Ino, mut source: Bytesource, offset: u64, len: usize) -> Result<Bytes> {
        // Between two looks a file may be staged, confirmed, moved or replaced; each can happen only so often while one read waits.
        for _ in 0..TRIES_MAX {
            match source {
                Bytesource::Empty => return Ok(Bytes::new()),
                Bytesource::Clean(target) => match self.parts().fetcher.read(&target, offset, len).await {
                    Err(e) if e.kind == Kind::Stale => {}
                    Err(e) if self.is_elsewhere(&target, &e).await? => {}
                    other => return other,
                },
                Bytesource::Staged(staged) => match staged.read(offset, len) {
                    Ok(Some(bytes)) => return Ok(Bytes::from(bytes)),
                    Ok(None) => {
                        let target = self.base_target(ino, staged)?;
                        let end = target.size.min(offset.saturating_add(len as u64));
                        match self.parts().fetcher.bring(&target, offset.min(end)..end).await {
                            Err(e) if self.is_elsewhere(&target, &e).await? => {}
                            brought => brought?,
                        }
                        if target.is_missing(&(offset..end)) {
                            // There is no room for it: what is here and what was fetched are put together.
                            return self.read_patched(&target, offset, len).await;
                        }
                    }
                    Err(e) if e.kind == Kind::Stale => {}
                    Err(e) => return Err(e),
                },
            }
            source = self.source(ino)?;
        }
        Err(Error::new(Kind::Unavailable, format!("inode {ino} keeps changing under this read")))
    }

    /// Whether the remote no longer has a target where it was because it was moved, by us or as we heard since. While a move of
    /// ours is under way nobody can tell, and a moment is waited.
    async fn is_elsewhere(&self, target: &Target, error: &Error) -> Result<bool> {
        if !matches!(error.kind, Kind::NotFound | Kind::Changed) {
            return Ok(false);
        }
        let (moving, path, node) = self.store().read(|rows| {
            let ino = target.ino;
            Ok((rows.on_its_way(ino)?, rows.remote_path(0, ino)?, rows.find_node(ino)?))
        })?;
        if moving.is_some() {
            tokio::time::sleep(MOVING).await;
            return Ok(true);
        }
        let another = match &target.sink {
            Sink::Cache(_) => node.is_some_and(|node| node.content != Content::Version(target.version.clone())),
            Sink::Journal(staged) => staged.header().base.is_none_or(|base| base.version() != target.version),
        };
        Ok(another || path.is_some_and(|path| path != target.place.path))
    }

    /// Reads a staged file part of which the disk has no room for.
    async fn read_patched(&self, target: &Target, offset: u64, len: usize) -> Result<Bytes> {
        let Sink::Journal(staged) = &target.sink else { return Ok(Bytes::new()) };
        let range = offset..offset.saturating_add(len as u64);
        self.parts().fetcher.patched(target, range, || staged.read_present(offset, len)).await
    }

    /// The next data or hole at or after `offset` (lseek(2), SEEK_DATA and SEEK_HOLE). `None`: behind the end (ENXIO).
    pub fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>> {
        Ok(match self.source(ino)? {
            Bytesource::Empty => None,
            Bytesource::Staged(staged) => staged.seek(offset, data),
            // A clean file is one run of data, whatever of it is cached.
            Bytesource::Clean(target) if offset >= target.size => None,
            Bytesource::Clean(target) => Some(if data { offset } else { target.size }),
        })
    }
}
