//! Sweeps of the whole tree and listings of one directory, and what they no longer find.
//!
//! Absence from one listing is not deletion: a `stat`, or for many a second listing, confirms it.

use super::Shared;
use super::displaced::namesakes;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Ino, RemotePath};
use crate::remote::Place;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Absent entries of one directory that are asked for one by one; more are confirmed by a second listing.
const STATS_MAX: usize = 16;

impl Shared {
    /// Lists one directory and brings the store up to date with it.
    pub(super) async fn list_directory(&self, ino: Ino) -> Result<()> {
        // Before its place is read: a call of ours may move it.
        let listing = self.guard.listing();
        let place = match self.place(ino) {
            Ok(place) => place,
            // Made here and not yet there: all that is in it is known.
            Err(e) if e.kind == Kind::NotFound => return self.mark_listed(ino),
            Err(e) => return Err(e),
        };
        let began = self.parts.clock.monotonic();
        let found = match self.children(&place).await {
            Ok(found) => found,
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::NotDirectory) => {
                self.look(&place).await?;
                return Err(e);
            }
            Err(e) => return Err(e.context(format!("list {}", place.path))),
        };
        for page in found.iter().collect::<Vec<_>>().chunks(1000) {
            self.store().write(|tx| {
                for (raw, entry) in page {
                    let path = place.path.join(raw);
                    if listing.believes(&path) {
                        self.take_in(tx, &listing, &path, (ino, raw), &listing.settled(&path, entry))?;
                    }
                }
                Ok(())
            })?;
        }
        let known = self.store().read(|rows| rows.remote_children(0, ino))?;
        // In the order of their names.
        let doubles: Vec<String> =
            known.windows(2).filter(|two| two[0].1 == two[1].1).map(|two| two[0].1.clone()).collect();
        let missing: Vec<RemotePath> = known
            .into_iter()
            .filter(|(_, raw)| !found.contains_key(raw))
            .map(|(_, raw)| place.path.join(&raw))
            .filter(|path| listing.believes_absence(path))
            .collect();
        drop(listing);
        self.confirm_absent(&place, missing).await?;
        for (raw, entry) in doubles.iter().filter_map(|raw| found.get_key_value(raw)) {
            self.ask_for(self.store().read(|rows| namesakes(rows, ino, raw, entry))?).await?;
        }
        self.mark_listed(ino)?;
        self.store().opens().set_checked(ino, began);
        Ok(())
    }

    fn mark_listed(&self, ino: Ino) -> Result<()> {
        self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            if !node.listed {
                node.listed = true;
                tx.set_node(&node)?;
            }
            Ok(())
        })
    }

    async fn children(&self, place: &Place) -> Result<BTreeMap<String, Entry>> {
        let mut found = BTreeMap::new();
        let mut page = None;
        loop {
            let listing = self.remote().list(place, page).await?;
            for (path, entry) in listing.entries {
                found.insert(path.name().to_owned(), entry);
            }
            match listing.next {
                Some(next) => page = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Asks again for what a listing of `directory` did not have, and notes what is really gone.
    async fn confirm_absent(&self, directory: &Place, missing: Vec<RemotePath>) -> Result<()> {
        if missing.len() > STATS_MAX {
            let listing = self.guard.listing();
            let again = self.children(directory).await?;
            for path in missing {
                if !again.contains_key(path.name()) {
                    self.note_absent(&path, &listing)?;
                }
            }
            return Ok(());
        }
        for path in missing {
            self.look(&Place::at(path)).await?;
        }
        Ok(())
    }

    /// Brings the whole tree up to date.
    pub(super) async fn sweep(self: &Arc<Self>) -> Result<()> {
        if self.remote().capabilities().whole_tree { self.sweep_pages().await } else { self.sweep_directories().await }
    }

    async fn sweep_pages(&self) -> Result<()> {
        let began = self.parts.clock.monotonic();
        let listing = self.guard.listing();
        let mut walk = Walk { directories: HashMap::new(), seen: HashSet::new(), early: Vec::new() };
        walk.directories.insert(RemotePath::root(), Ino::ROOT);
        let mut page = None;
        loop {
            let mut found = self.remote().sweep(page).await?;
            // Parents first, as far as one page goes.
            found.entries.sort_by(|a, b| a.0.cmp(&b.0));
            let entries = std::mem::take(&mut walk.early).into_iter().chain(found.entries).collect();
            self.apply_page(&listing, &mut walk, entries)?;
            match found.next {
                Some(next) => page = Some(next),
                None => break,
            }
        }
        for ino in walk.directories.values() {
            self.store().opens().set_checked(*ino, began);
        }
        // A directory that our own call touched meanwhile is looked at again, and with it what is in it.
        let orphaned: HashSet<RemotePath> = walk.early.iter().filter_map(|(path, _)| Some(path.split()?.0)).collect();
        for directory in orphaned {
            self.guard.doubt_below(&directory);
        }
        let (gone, unseen) = self.store().read(|rows| {
            let (mut gone, mut unseen) = (Vec::new(), Vec::new());
            for ino in rows.remote_inodes(0)? {
                if !walk.seen.contains(&ino)
                    && let Some(path) = rows.remote_path(0, ino)?
                {
                    // Another one is at its place.
                    if let Some(view) = rows.view(ino, 0, crate::store::Which::Remote)?
                        && rows.remote_namesakes(0, view.parent, &view.name)?.len() > 1
                    {
                        unseen.push(ino);
                    }
                    gone.push(path);
                }
            }
            Ok((gone, unseen))
        })?;
        let mut by_directory: BTreeMap<RemotePath, Vec<RemotePath>> = BTreeMap::new();
        let absent: HashSet<RemotePath> = gone.iter().cloned().collect();
        for path in gone {
            let Some((parent, _)) = path.split() else { continue };
            // Only the topmost: what is below a directory goes with it.
            if !absent.contains(&parent) && listing.believes_absence(&path) {
                by_directory.entry(parent).or_default().push(path);
            }
        }
        drop(listing);
        for (directory, missing) in by_directory {
            self.confirm_absent(&Place::at(directory), missing).await?;
        }
        self.ask_for(unseen).await?;
        self.store().write(|tx| tx.set_all_listed())
    }

    fn apply_page(
        &self,
        listing: &super::guard::Listing<'_>,
        walk: &mut Walk,
        entries: Vec<(RemotePath, Entry)>,
    ) -> Result<()> {
        for page in entries.chunks(1000) {
            self.store().write(|tx| {
                for (path, entry) in page {
                    let Some((parent, raw)) = path.split() else { continue };
                    let holder = match walk.directories.get(&parent) {
                        Some(ino) => Some(*ino),
                        None => tx.at_remote_path(0, &parent)?,
                    };
                    let Some(holder) = holder else {
                        walk.early.push((path.clone(), entry.clone()));
                        continue;
                    };
                    if !listing.believes(path) {
                        // What our own call does there is known better from its answer.
                        walk.seen.extend(tx.remote_child(0, holder, raw)?);
                        continue;
                    }
                    let settled = listing.settled(path, entry);
                    let (ino, _) = self.take_in(tx, listing, path, (holder, raw), &settled)?;
                    walk.seen.insert(ino);
                    if entry.kind == FileKind::Directory {
                        walk.directories.insert(path.clone(), ino);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Every directory by itself, several at once; unlisted ones first.
    async fn sweep_directories(self: &Arc<Self>) -> Result<()> {
        let at_once = self.remote().capabilities().list_parallel.max(1);
        let mut visited: HashSet<Ino> = HashSet::new();
        let mut next = vec![Ino::ROOT];
        let mut failed = None;
        while !next.is_empty() {
            visited.extend(&next);
            let done: Vec<(Ino, Result<()>)> = futures_util::stream::iter(next)
                .map(|ino| async move { (ino, self.list_directory(ino).await) })
                .buffer_unordered(at_once)
                .collect()
                .await;
            next = Vec::new();
            for (ino, outcome) in done {
                match outcome {
                    Ok(()) => next.extend(self.subdirectories(ino)?.into_iter().filter(|i| !visited.contains(i))),
                    Err(e) if matches!(e.kind, Kind::NotFound | Kind::NotDirectory | Kind::Denied | Kind::Stale) => {
                        tracing::warn!("{e}");
                    }
                    Err(e) => failed = Some(e),
                }
            }
            if let Some(e) = failed {
                return Err(e);
            }
        }
        Ok(())
    }

    fn subdirectories(&self, ino: Ino) -> Result<Vec<Ino>> {
        self.store().read(|rows| {
            let mut found = Vec::new();
            for (child, _) in rows.remote_children(0, ino)? {
                if rows.find_node(child)?.is_some_and(|n| n.kind == FileKind::Directory) {
                    found.push(child);
                }
            }
            Ok(found)
        })
    }

    /// The target of a link that the remote keeps.
    pub(super) async fn link_target(&self, ino: Ino) -> Result<Vec<u8>> {
        let place = self.place(ino)?;
        if self.remote().capabilities().symlinks {
            return self.remote().read_link(&place).await;
        }
        let view = self.store().read(|rows| rows.view(ino, 0, crate::store::Which::Remote))?;
        let view = view.ok_or_else(|| Error::new(Kind::NotFound, format!("inode {ino} is not on the remote")))?;
        let version = view.version.ok_or_else(|| Error::new(Kind::Corrupt, "a link without a version"))?;
        if view.size > 4095 {
            return Err(Error::new(Kind::Invalid, format!("{} is too long for a link", place.path)));
        }
        let mut stream = self.remote().read(&place, &version, 0..view.size).await?;
        let mut target = Vec::new();
        while let Some(chunk) = stream.next().await {
            target.extend_from_slice(&chunk?);
        }
        Ok(target)
    }
}

/// A sweep under way.
struct Walk {
    directories: HashMap<RemotePath, Ino>,
    seen: HashSet<Ino>,
    /// Entries whose directory did not come yet.
    early: Vec<(RemotePath, Entry)>,
}
