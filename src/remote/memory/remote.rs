//! The trait over the tree.

use super::Memory;
use super::tree::{Node, Tree};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, Quota, RemotePath, Version};
use crate::remote::{
    Body, ByteStream, Capabilities, Change, ChangeFeed, Changes, Condition, Listing, Part, Place, PutRequest, Remote,
    Session, UploadSessions,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::time::Duration;

/// Bytes given or taken at once.
const PIECE_BYTES: u64 = 64 << 10;

fn unsupported(what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("this account has no {what}"))
}

fn require(able: bool, what: &str) -> Result<()> {
    if able { Ok(()) } else { Err(unsupported(what)) }
}

/// Reads a part of a body piece by piece, letting others run between the pieces.
async fn gather(body: &Body, range: Range<u64>) -> Result<Bytes> {
    let mut all = BytesMut::new();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + PIECE_BYTES);
        all.extend_from_slice(&body.read(at..end)?);
        at = end;
        tokio::task::yield_now().await;
    }
    if all.len() as u64 != range.end - range.start {
        return Err(Error::new(Kind::Changed, "the source gave another number of bytes"));
    }
    Ok(all.freeze())
}

impl Memory {
    /// Leaves to the write what the server itself obeys; the rest is a look now, and somebody may come between.
    async fn look(&self, place: &Place, condition: &Condition, by_server: bool) -> Result<Condition> {
        if by_server || *condition == Condition::Any {
            return Ok(condition.clone());
        }
        self.lock().check(place, condition)?;
        tokio::task::yield_now().await;
        Ok(Condition::Any)
    }

    async fn look_to_write(&self, place: &Place, condition: &Condition) -> Result<Condition> {
        let by_server = match condition {
            Condition::Absent => self.capabilities.conditional_create,
            _ => self.capabilities.conditional_replace,
        };
        self.look(place, condition, by_server).await
    }

    /// Changes the tree in one step and wakes who waits for changes.
    fn change<T>(&self, change: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    fn sessions(&self) -> Result<&UploadSessions> {
        self.capabilities.sessions.as_ref().ok_or_else(|| unsupported("upload sessions"))
    }

    fn page<'a>(&self, tree: &Tree, nodes: impl Iterator<Item = (&'a str, &'a Node)>) -> Listing {
        let mut listing = Listing::default();
        let mut last = None;
        for (key, node) in nodes {
            if listing.entries.len() == self.page_entries {
                listing.next = last;
                break;
            }
            listing.entries.push((node.path().clone(), tree.entry(node, true)));
            last = Some(key.to_owned());
        }
        listing
    }

    fn feed_now(&self, cursor: Option<&str>) -> Changes {
        let tree = self.lock();
        let Some(cursor) = cursor else {
            return Changes { changes: Vec::new(), cursor: tree.feed.cursor(), more: false, reset: false };
        };
        let page = tree.feed.since(cursor);
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        for touched in page.touched {
            let path = RemotePath::new(&touched.path);
            match tree.find(&Place::at(path.clone())) {
                Some(node) if *node.path() == path => {
                    changes.push(Change::Present(path.clone(), Box::new(tree.entry(node, true))));
                    if touched.deep {
                        changes.push(Change::Look { directory: path, deep: true });
                    }
                }
                // Now spelled in another case, and reported so.
                Some(_) => {}
                None => gone.push(Change::Absent(path)),
            }
        }
        // Last, so that what moved is known by its id at its new place before it is missed at the old one.
        changes.append(&mut gone);
        Changes { changes, cursor: page.cursor, more: false, reset: page.reset }
    }
}

#[async_trait]
impl Remote for Memory {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        require(self.capabilities.whole_tree, "listing of the whole tree")?;
        let tree = self.lock();
        let root = tree.get(&Place::at(RemotePath::root()))?;
        Ok(self.page(&tree, tree.below(root, page.as_deref())))
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        let tree = self.lock();
        let node = tree.get(directory)?;
        if node.kind != FileKind::Directory {
            return Err(Error::new(Kind::NotDirectory, format!("{}: is not a directory", directory.path)));
        }
        let child = |node: &Node, parent: &RemotePath| node.path().split().is_some_and(|(at, _)| at == *parent);
        let children = tree.below(node, page.as_deref()).filter(|(_, found)| child(found, node.path()));
        let version = (self.capabilities.changes == ChangeFeed::EtagTree).then(|| node.version());
        Ok(Listing { directory: version, ..self.page(&tree, children) })
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        require(self.capabilities.changes == ChangeFeed::Cursor, "change feed")?;
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let found = self.feed_now(cursor.as_deref());
        if cursor.is_none() || found.reset || !found.changes.is_empty() || wait_ms == 0 {
            return Ok(found);
        }
        // Whether it was the change or the time, the answer is what is there then.
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), changed).await;
        Ok(self.feed_now(cursor.as_deref()))
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        let tree = self.lock();
        Ok(tree.find(place).map(|node| tree.entry(node, false)))
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let content = self.lock().get_version(place, version)?.content.clone();
        if range.start > range.end || range.end > content.len() as u64 {
            return Err(Error::new(Kind::Invalid, format!("{}: bytes {range:?} of {}", place.path, content.len())));
        }
        let starts = (range.start..range.end).step_by(PIECE_BYTES as usize);
        let pieces: Vec<Result<Bytes>> = starts
            .map(|start| Ok(content.slice(start as usize..range.end.min(start + PIECE_BYTES) as usize)))
            .collect();
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        require(self.capabilities.symlinks, "symbolic links")?;
        let tree = self.lock();
        let node = tree.get(place)?;
        match node.kind {
            FileKind::Symlink => Ok(node.content.to_vec()),
            _ => Err(Error::new(Kind::Invalid, format!("{}: is not a symbolic link", place.path))),
        }
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        let PutRequest { body, meta, condition } = request;
        if body.size() > self.capabilities.put_bytes_max {
            return Err(Error::new(Kind::TooLarge, format!("{}: {} bytes in one call", place.path, body.size())));
        }
        self.lock().kept(&meta, FileKind::File, None)?;
        let content = gather(&body, 0..body.size()).await?;
        let condition = self.look_to_write(place, &condition).await?;
        let fresh = self.fresh(FileKind::File, content, meta);
        self.change(|tree| {
            tree.check(place, &condition)?;
            tree.write(place, fresh)
        })
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        require(self.capabilities.symlinks, "symbolic links")?;
        let fresh = self.fresh(FileKind::Symlink, Bytes::copy_from_slice(target), meta);
        self.change(|tree| tree.write(place, fresh))
    }

    async fn begin(&self, place: &Place, size: u64, _meta: &Meta, _condition: &Condition) -> Result<Session> {
        self.sessions()?;
        Ok(self.lock().uploads.begin(place, size))
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        let rules = self.sessions()?;
        let bytes = gather(&body, range).await?;
        self.lock().uploads.part(session, number, bytes, rules)
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        let rules = self.sessions()?;
        require(rules.part_copy, "copied parts")?;
        let mut tree = self.lock();
        let content = tree.get_version(from, version)?.content.clone();
        if range.start > range.end || range.end > content.len() as u64 {
            return Err(Error::new(Kind::Invalid, format!("{}: bytes {range:?}", from.path)));
        }
        let bytes = content.slice(range.start as usize..range.end as usize);
        tree.uploads.part(session, number, bytes, rules)
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.sessions()?;
        self.lock().uploads.parts(session)
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        let rules = self.sessions()?;
        let (place, content) = self.lock().uploads.content(session, parts, rules)?;
        let condition = self.look_to_write(&place, condition).await?;
        let fresh = self.fresh(FileKind::File, content, meta.clone());
        self.change(|tree| {
            tree.check(&place, &condition)?;
            tree.kept(meta, FileKind::File, None)?;
            let entry = tree.write(&place, fresh)?;
            tree.uploads.close(session);
            Ok(entry)
        })
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.sessions()?;
        self.lock().uploads.close(session);
        Ok(())
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        require(self.capabilities.directories, "directories of their own")?;
        let fresh = self.fresh(FileKind::Directory, Bytes::new(), meta.clone());
        self.change(|tree| {
            tree.kept(meta, FileKind::Directory, None)?;
            tree.write(place, fresh)
        })
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        let now_ns = self.clock.wall_ns();
        // A change of case alone finds the source itself at the target.
        let onto_itself = {
            let tree = self.lock();
            let node = tree.get(from)?;
            tree.find(to).is_some_and(|target| target.path() == node.path())
        };
        let condition = match onto_itself {
            true => Condition::Any,
            false => self.look_to_write(to, condition).await?,
        };
        self.change(|tree| {
            if let Some(version) = source {
                tree.check(from, &Condition::Is(version.clone()))?;
            }
            tree.check(to, &condition)?;
            tree.rename(from, to, now_ns)
        })
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.lock().get(place)?;
        let condition = self.look(place, condition, self.capabilities.conditional_remove).await?;
        self.change(|tree| {
            tree.get(place)?;
            tree.check(place, &condition)?;
            tree.remove(place, directory)
        })
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        require(self.capabilities.copy, "copy on the server")?;
        let condition = self.look_to_write(to, condition).await?;
        self.change(|tree| {
            let node = tree.get_version(from, version)?;
            let meta = tree.entry(node, false).meta.unwrap_or_default();
            let fresh = self.fresh(node.kind, node.content.clone(), meta);
            tree.check(to, &condition)?;
            tree.write(to, fresh)
        })
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        let support = self.capabilities.meta;
        require(support.alone && (!directory || support.directories), "way to set attributes alone")?;
        self.change(|tree| {
            let kind = tree.get(place)?.kind;
            if (kind == FileKind::Directory) != directory {
                let kind = if directory { Kind::NotDirectory } else { Kind::IsDirectory };
                return Err(Error::new(kind, format!("{}: is something else", place.path)));
            }
            if let Some(version) = version {
                tree.check(place, &Condition::Is(version.clone()))?;
            }
            tree.set_meta(place, meta)
        })
    }

    async fn quota(&self) -> Result<Quota> {
        require(self.capabilities.quota, "statement of space")?;
        let tree = self.lock();
        let used = tree.used_bytes();
        let available_bytes = tree.quota_bytes.map(|quota| quota.saturating_sub(used));
        Ok(Quota { used_bytes: Some(used), available_bytes })
    }
}
