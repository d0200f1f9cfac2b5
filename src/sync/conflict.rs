//! The steps that change nothing on the remote: what both sides did is compared, and each gets its place.

use super::Shared;
use super::observe::Observer;
use super::operate::Progress;
use crate::error::{Kind, Result};
use crate::journal::{Base, Staged};
use crate::model::{Entry, FileKind, Ino, Meta};
use crate::remote::Place;
use crate::store::{Content, Node, View, Which};
use std::sync::Arc;

impl Shared {
    /// Both sides changed. If the bytes are equal nothing happened; else the remote keeps the name, and what was written here
    /// gets another one and is sent under it.
    pub(super) async fn keep_both(self: &Arc<Self>, ino: Ino) -> Result<Progress> {
        let (node, view) = self.store().read(|rows| Ok((rows.node(ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let Some(view) = view else { return Ok(Progress::Went) };
        let both_files = node.kind == FileKind::File && view.kind == FileKind::File;
        if both_files && self.is_empty(&node) {
            return self.give_way(ino, &view);
        }
        if both_files {
            self.complete(ino, &view).await?;
            if let Some(generation) = self.same_bytes(ino, &view).await? {
                return self.converge(ino, &view, generation);
            }
        }
        if matches!(view.kind, FileKind::File | FileKind::Symlink) && self.is_ours(ino, &view).await? {
            return self.own_up(ino);
        }
        if node.kind == FileKind::Symlink && view.kind == FileKind::Symlink && node.target.is_some() {
            let there = self.link_target(ino).await?;
            if Some(&there) == node.target.as_ref() {
                return self.own_up(ino);
            }
        }
        self.store().write(|tx| {
            let (Some(view), node) = (tx.view(ino, 0, Which::Remote)?, tx.node(ino)?) else { return Ok(()) };
            let observer: Observer<'_> = self.observer();
            let Some((parent, name)) = tx.place(ino)? else { return observer.restore(tx, ino) };
            // The one that was written here keeps its inode, its handles and its bytes, and becomes a new file.
            let base = tx.view(ino, 0, Which::Base)?;
            if base.is_none() && (view.parent != parent || view.shown != name) {
                // Somebody else's, where this one was sent before it was moved: no conflict, only another file.
                tx.set_view(ino, 0, Which::Remote, None)?;
                tx.set_attempt(ino, None)?;
                return observer.present(tx, view.parent, &view.name, &entry_of(&view)).map(drop);
            }
            let moved = base.is_some_and(|b| b.parent != parent || b.shown != name);
            if !moved {
                observer.set_aside(tx, &node)?;
            } else {
                tx.add_conflict(ino, name.as_bytes(), observer.now_ns)?;
            }
            tx.set_view(ino, 0, Which::Remote, None)?;
            tx.set_view(ino, 0, Which::Base, None)?;
            tx.remove_session(ino)?;
            let entry = entry_of(&view);
            observer.present(tx, view.parent, &view.name, &entry).map(drop)
        })?;
        tracing::warn!("conflict: inode {ino} was changed here and on the remote; both are kept");
        Ok(Progress::Went)
    }

    /// Brings what is missing of a partly written file. Where the remote has the version no more that it was written on, what was
    /// written is laid over the one that it has now: that may be our own upload, which was heard of and forgotten with a power cut,
    /// and else no byte of either side is lost.
    async fn complete(&self, ino: Ino, view: &View) -> Result<()> {
        let Some(staged) = self.parts.journal.get(ino).filter(|staged| !staged.is_whole()) else { return Ok(()) };
        match self.fill(ino).await {
            Err(e) if matches!(e.kind, Kind::Changed | Kind::NotFound | Kind::Corrupt) => {}
            other => return other,
        }
        let size = staged.size_and_mtime().0;
        let missing = staged.missing(0..size);
        if let Some(version) = &view.version
            && missing.iter().all(|range| range.end <= view.size)
        {
            staged.rebase(Some(Base { version: version.as_str().to_owned(), size: view.size }))?;
            self.fill(ino).await?;
        }
        Ok(())
    }

    /// Whether a file holds no byte that a program wrote: it was only made, or a power cut took its bytes. One whose bytes were
    /// lost in any other way still has their size, and fails loudly.
    fn is_empty(&self, node: &Node) -> bool {
        node.content == Content::Dirty && node.size == 0 && self.parts.journal.get(node.ino).is_none()
    }

    /// A new file without a byte, or one that took the place of a deleted one, gives way to what the remote has under its name: there
    /// is nothing of it to keep. After a power cut that may be our own upload, whose record went with the bytes, and nothing may be
    /// sent over that.
    fn give_way(&self, ino: Ino, view: &View) -> Result<Progress> {
        self.store().write(|tx| {
            let same = tx.view(ino, 0, Which::Remote)?.as_ref() == Some(view) && self.is_empty(&tx.node(ino)?);
            if !same {
                return Ok(Progress::Went);
            }
            // Whoever has it open may write the next moment; then both are kept.
            if !self.store().opens().get(ino).is_closed() {
                return Ok(Progress::Busy);
            }
            self.observer().take(tx, ino, &entry_of(view))?;
            tx.set_attempt(ino, None)?;
            tx.set_failure(ino, None, 0)?;
            Ok(Progress::Went)
        })
    }

    /// The remote holds what we sent before its answer was lost, and nobody else's: that is the base now.
    pub(super) fn own_up(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| {
            if let Some(view) = tx.view(ino, 0, Which::Remote)? {
                let meta = tx.node(ino)?.meta();
                tx.set_view(ino, 0, Which::Base, Some(&View { meta, ..view }))?;
            }
            tx.set_attempt(ino, None)
        })?;
        Ok(Progress::Went)
    }

    /// Sees whether what was sent before it was deleted here arrived: that is deleted there too, and nothing else is.
    pub(super) async fn inquire(&self, ino: Ino) -> Result<Progress> {
        let (attempt, view) = self.store().read(|rows| Ok((rows.attempt(ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let Some(attempt) = attempt else { return Ok(Progress::Went) };
        let (way, parent) =
            self.store().read(|rows| Ok((rows.on_its_way(attempt.parent)?, rows.remote_path(0, attempt.parent)?)))?;
        if let Some(way) = way {
            return Ok(Progress::Waits(way));
        }
        if let Some(parent) = parent {
            let path = parent.join(&attempt.name);
            if self.guard.is_busy(&path) {
                return Ok(Progress::Busy);
            }
            let (_, noted) = self.look_closely(&Place::at(path.clone())).await?;
            let (now, way, rival) = self.store().read(|rows| {
                let rival = match rows.at_remote_path(0, &path)?.filter(|known| *known != ino) {
                    Some(known) => rows.attempt(known)?.map(|_| known),
                    None => None,
                };
                Ok((rows.view(ino, 0, Which::Remote)?, rows.on_its_way(attempt.parent)?, rival))
            })?;
            // Whose of both it is is found out with both notes.
            if let Some(first) = way.or(rival) {
                return Ok(Progress::Waits(first));
            }
            if now != view {
                // Seen only now.
                return Ok(Progress::Went);
            }
            if !noted {
                // A call of ours touched the place meanwhile.
                return Ok(Progress::Busy);
            }
        }
        let base = self.store().read(|rows| rows.view(ino, 0, Which::Base))?;
        let Some(view) = view.filter(|view| base.is_none_or(|base| !base.same_content(view))) else {
            // It never arrived.
            self.store().write(|tx| tx.set_attempt(ino, None))?;
            self.drop_if_unneeded(ino)?;
            return Ok(Progress::Went);
        };
        let ours = match view.kind {
            FileKind::File | FileKind::Symlink => self.is_ours(ino, &view).await?,
            kind => kind == FileKind::Directory,
        };
        if ours {
            return self.own_up(ino);
        }
        self.store().write(|tx| tx.set_attempt(ino, None))?;
        Ok(Progress::Went)
    }

    /// The remote lost a file that a program had open for writing, and nothing was written: it goes here too.
    pub(super) fn follow_removal(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| self.observer().absent(tx, ino))?;
        Ok(Progress::Went)
    }

    /// The remote lost a file of which no byte is here: there is nothing to send, and it goes here too. Unless it is written to
    /// meanwhile: then the planner looks again.
    pub(super) fn let_go(&self, ino: Ino, staged: &Arc<Staged>) -> Result<Progress> {
        let generation = staged.snapshot()?.generation;
        let Some(base) = staged.header().base.filter(|_| staged.holds_nothing()) else { return Ok(Progress::Busy) };
        if self.store().opens().get(ino).writers > 0 {
            return Ok(Progress::Busy);
        }
        let follow = || {
            self.store().write(|tx| {
                let mut node = tx.node(ino)?;
                node.content = Content::Version(base.version());
                tx.set_node(&node)?;
                self.observer().absent(tx, ino)
            })
        };
        self.parts.journal.finish(ino, Some(generation), |_, _| follow(), |_| false)?;
        self.drop_if_unneeded(ino)?;
        Ok(Progress::Went)
    }

    pub(super) fn restore(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| self.observer().restore(tx, ino))?;
        Ok(Progress::Went)
    }

    pub(super) fn take(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| {
            let Some(view) = tx.view(ino, 0, Which::Remote)? else { return Ok(()) };
            let entry = entry_of(&view);
            self.observer().take(tx, ino, &entry)
        })?;
        Ok(Progress::Went)
    }
}

/// The entry that a view came from. Kinds that the names told (links) are told by the names again.
pub(super) fn entry_of(view: &View) -> Entry {
    Entry {
        kind: if view.kind == FileKind::Directory { FileKind::Directory } else { view.kind },
        id: view.id.clone(),
        size: view.size,
        version: view.version.clone(),
        hash: view.hash.clone(),
        server_mtime_ns: view.server_mtime_ns,
        meta: (view.meta != Meta::default()).then(|| view.meta.clone()),
    }
}
