//! The steps that change names, directories and attributes on the remote.

use super::Shared;
use super::observe::Observer;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Ino, Meta, Name, RemotePath, Version};
use crate::remote::{Condition, Place};
use crate::store::{Attempt, Content, Node, Rows, Tx, View, Which};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How a step ended.
pub(super) enum Progress {
    /// Done; there may be a next step.
    Went,
    /// Done; nothing more.
    Ended,
    /// Something must happen to this inode first.
    Waits(Ino),
    /// Another call runs at this place.
    Busy,
}

/// Where an inode is to be on the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) raw: String,
    pub(super) place: Place,
}

/// What stands at a goal already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    Nobody,
    /// Deleted here and unchanged there: its place, and for a file its identity, may be taken.
    Leaving(Ino, Box<View>),
    /// Somebody who must move or be settled first.
    Staying(Ino),
}

impl Shared {
    /// Where `ino` is to be. `NotFound`: deleted meanwhile. `Unavailable`: its directory is not there yet.
    pub(super) fn goal(&self, rows: &Rows<'_>, node: &Node) -> Result<Goal> {
        let place = rows.place(node.ino)?;
        let (parent, name) = place.ok_or_else(|| Error::new(Kind::Stale, format!("inode {} was deleted", node.ino)))?;
        let directory = rows.remote_path(0, parent)?;
        let directory =
            directory.ok_or_else(|| Error::new(Kind::Unavailable, "its directory is not on the remote yet"))?;
        let raw = match rows.view(node.ino, 0, Which::Base)? {
            // The provider's spelling of a name that was not changed here is kept.
            Some(base) if base.parent == parent && base.shown == name => base.name,
            _ => self.names.raw(&name, node.kind)?,
        };
        let path = directory.join(&raw);
        if path.as_str().len() > self.remote().capabilities().names.path_bytes_max {
            return Err(Error::new(Kind::NameTooLong, format!("the path {path} is too long for this remote")));
        }
        Ok(Goal { parent, name, raw, place: Place::at(path) })
    }

    pub(super) fn occupant(&self, rows: &Rows<'_>, ino: Ino, goal: &Goal) -> Result<Occupant> {
        let Some(other) = rows.remote_child(0, goal.parent, &goal.raw)?.filter(|other| *other != ino) else {
            return Ok(Occupant::Nobody);
        };
        let (base, view) = (rows.view(other, 0, Which::Base)?, rows.view(other, 0, Which::Remote)?);
        Ok(match (rows.place(other)?, base, view) {
            (None, Some(base), Some(view)) if base.same_content(&view) => Occupant::Leaving(other, Box::new(view)),
            _ => Occupant::Staying(other),
        })
    }

    /// Notes that both sides are equal: the remote has `entry` at `goal`, and the mount shows `node`'s attributes.
    pub(super) fn settle(&self, tx: &mut Tx<'_>, ino: Ino, goal: &Goal, entry: &Entry, sent: &Meta) -> Result<()> {
        let kind = tx.node(ino)?.kind;
        let mut view = View::of(entry, goal.parent, &goal.raw, goal.name.clone());
        view.kind = kind;
        tx.set_view(ino, 0, Which::Remote, Some(&view))?;
        view.meta = sent.clone();
        tx.set_view(ino, 0, Which::Base, Some(&view))?;
        time_moved(tx, goal.parent)?;
        tx.set_attempt(ino, None)?;
        tx.set_failure(ino, None, 0)
    }

    pub(super) fn forget(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| {
            if tx.place(ino)?.is_none() && tx.view(ino, 0, Which::Remote)?.is_none() {
                tx.set_view(ino, 0, Which::Base, None)?;
            }
            // Nothing of it is on its way: one worker at a time has an inode.
            tx.set_attempt(ino, None)
        })?;
        self.drop_if_unneeded(ino)?;
        Ok(Progress::Ended)
    }

    pub(super) async fn remove(&self, ino: Ino) -> Result<Progress> {
        let facts = || {
            self.store().read(|rows| {
                let view = rows.view(ino, 0, Which::Remote)?;
                let child = rows.remote_children(0, ino)?.into_iter().next();
                let path = rows.remote_path(0, ino)?;
                Ok((view, path, child, rows.place(ino)?.is_none()))
            })
        };
        let seen = facts()?;
        let (Some(view), Some(path), child, true) = seen.clone() else { return Ok(Progress::Went) };
        if let Some((child, _)) = child {
            return Ok(Progress::Waits(child));
        }
        let place = Place { path, id: view.id.clone() };
        let directory = view.kind == FileKind::Directory;
        let condition = match (&view.version, directory) {
            (Some(version), false) => Condition::Is(version.clone()),
            _ => Condition::Any,
        };
        let Some(call) = self.guard.call(vec![place.path.clone()]) else { return Ok(Progress::Busy) };
        if facts()? != seen {
            return Ok(Progress::Went);
        }
        let outcome = self.remote().remove(&place, directory, &condition).await;
        match outcome {
            Ok(()) => {}
            Err(e) if e.kind == Kind::NotFound => {}
            Err(e) if matches!(e.kind, Kind::Precondition | Kind::NotEmpty) => {
                drop(call);
                // Somebody changed it: look, and let the planner decide anew.
                if directory {
                    self.list_directory(ino).await?;
                } else {
                    self.look(&place).await?;
                }
                return Err(e.context(format!("delete {}", place.path)));
            }
            Err(e) => return Err(e.context(format!("delete {}", place.path))),
        }
        self.store().write(|tx| {
            tx.set_view(ino, 0, Which::Remote, None)?;
            tx.set_view(ino, 0, Which::Base, None)?;
            time_moved(tx, view.parent)
        })?;
        drop(call);
        self.drop_if_unneeded(ino)?;
        Ok(Progress::Ended)
    }

    /// Sees whether what was sent before it was deleted here arrived: that is deleted there too, and nothing else is.
    pub(super) async fn inquire(&self, ino: Ino) -> Result<Progress> {
        let (attempt, view) = self.store().read(|rows| Ok((rows.attempt(ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let Some(attempt) = attempt else { return Ok(Progress::Went) };
        let Some(view) = view else {
            let parent = self.store().read(|rows| rows.remote_path(0, attempt.parent))?;
            if let Some(parent) = parent {
                let path = parent.join(&attempt.name);
                if self.guard.is_busy(&path) {
                    return Ok(Progress::Busy);
                }
                self.look(&Place::at(path)).await?;
            }
            return self.store().write(|tx| {
                if tx.view(ino, 0, Which::Remote)?.is_none() {
                    tx.set_attempt(ino, None)?;
                }
                Ok(Progress::Went)
            });
        };
        let ours = match view.kind {
            FileKind::File => self.is_ours(ino, &view).await?,
            kind => kind == FileKind::Directory,
        };
        if ours {
            return self.own_up(ino);
        }
        self.store().write(|tx| tx.set_attempt(ino, None))?;
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

    pub(super) fn agree(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| {
            if let Some(view) = tx.view(ino, 0, Which::Remote)? {
                let node = tx.node(ino)?;
                tx.set_view(ino, 0, Which::Base, Some(&View { meta: node.meta(), ..view }))?;
            }
            Ok(())
        })?;
        Ok(Progress::Went)
    }

    /// Makes on the remote what is new here.
    pub(super) async fn make(self: &Arc<Self>, ino: Ino, large: &Arc<Semaphore>) -> Result<Progress> {
        let (node, goal, occupant) = self.store().read(|rows| {
            let node = rows.node(ino)?;
            let goal = self.goal(rows, &node)?;
            let occupant = self.occupant(rows, ino, &goal)?;
            Ok((node, goal, occupant))
        })?;
        if self.guard.is_busy(&goal.place.path) {
            return Ok(Progress::Busy);
        }
        if matches!(node.content, Content::Version(_)) {
            return self.follow_removal(ino);
        }
        match occupant {
            Occupant::Nobody => {}
            Occupant::Leaving(other, view) if node.kind == FileKind::File && view.kind == FileKind::File => {
                // A delete and a new file of that name: a new version of the same remote file. Not while it is being deleted.
                let Some(_call) = self.guard.call(vec![goal.place.path.clone()]) else { return Ok(Progress::Busy) };
                let handed = self.store().write(|tx| {
                    let still =
                        tx.place(other)?.is_none() && tx.view(other, 0, Which::Remote)?.as_ref() == Some(&*view);
                    if still {
                        tx.hand_over_views(other, ino)?;
                    }
                    Ok(still)
                })?;
                if !handed {
                    return Ok(Progress::Went);
                }
                self.drop_if_unneeded(other)?;
                return Ok(Progress::Went);
            }
            Occupant::Leaving(other, _) | Occupant::Staying(other) => return Ok(Progress::Waits(other)),
        }
        match node.kind {
            FileKind::Directory => self.make_directory(&node, &goal).await,
            FileKind::Symlink => self.make_link(&node, &goal).await,
            _ => self.upload(&node, &goal, Condition::Absent, large).await,
        }
    }

    /// Whether an inode still wants to be at `goal`, and the remote's view of it still is what `condition` was made from.
    /// Asked once the place is ours: what was read before may have been changed by the call that had it.
    pub(super) fn is_still(&self, node: &Node, goal: &Goal, condition: &Condition) -> Result<bool> {
        self.store().read(|rows| {
            let Some(now) = rows.find_node(node.ino)? else { return Ok(false) };
            if rows.place(node.ino)? != Some((goal.parent, goal.name.clone())) {
                return Ok(false);
            }
            let again = self.goal(rows, &now)?;
            let view = rows.view(node.ino, 0, Which::Remote)?;
            let same = match (&view, condition) {
                (None, Condition::Absent) => true,
                (Some(view), Condition::Is(version)) => view.version.as_ref() == Some(version),
                (Some(view), Condition::Any) => view.version.is_none(),
                _ => false,
            };
            let alone = rows.remote_child(0, goal.parent, &goal.raw)?.is_none_or(|there| there == node.ino);
            Ok(same && alone && again.place.path == goal.place.path && now.content == node.content)
        })
    }

    /// The remote lost a file that a program had open for writing, and nothing was written: it goes here too.
    fn follow_removal(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| self.observer().absent(tx, ino))?;
        Ok(Progress::Went)
    }

    async fn make_directory(&self, node: &Node, goal: &Goal) -> Result<Progress> {
        let meta = node.meta();
        let Some(call) = self.guard.call(vec![goal.place.path.clone()]) else { return Ok(Progress::Busy) };
        if !self.is_still(node, goal, &Condition::Absent)? {
            return Ok(Progress::Went);
        }
        self.store().write(|tx| tx.set_attempt(node.ino, Some(&Attempt::at(goal.parent, &goal.raw))))?;
        let entry = match self.remote().mkdir(&goal.place, &meta).await {
            Ok(entry) => entry,
            Err(e) if e.kind == Kind::Exists => {
                drop(call);
                self.look(&goal.place).await?;
                return Ok(Progress::Went);
            }
            Err(e) => return Err(e.context(format!("make directory {}", goal.place.path))),
        };
        self.store().write(|tx| self.settle(tx, node.ino, goal, &entry, &meta))?;
        Ok(Progress::Went)
    }

    async fn make_link(&self, node: &Node, goal: &Goal) -> Result<Progress> {
        let Some(target) = node.target.clone() else {
            return Err(Error::new(Kind::Unavailable, "the link's target is not known yet"));
        };
        let meta = node.meta();
        let Some(call) = self.guard.call(vec![goal.place.path.clone()]) else { return Ok(Progress::Busy) };
        if !self.is_still(node, goal, &Condition::Absent)? {
            return Ok(Progress::Went);
        }
        self.store().write(|tx| tx.set_attempt(node.ino, Some(&Attempt::at(goal.parent, &goal.raw))))?;
        let sent = if self.remote().capabilities().symlinks {
            self.remote().put_link(&goal.place, &target, meta.clone()).await
        } else {
            let request = crate::remote::PutRequest {
                body: Arc::new(super::upload::Literal(target.into())),
                meta: meta.clone(),
                condition: Condition::Absent,
            };
            self.remote().put(&goal.place, request).await
        };
        let entry = match sent {
            Ok(entry) => entry,
            Err(e) if matches!(e.kind, Kind::Exists | Kind::Precondition) => {
                drop(call);
                self.look(&goal.place).await?;
                return Err(e.context(format!("make link {}", goal.place.path)));
            }
            Err(e) => return Err(e.context(format!("make link {}", goal.place.path))),
        };
        self.store().write(|tx| self.settle(tx, node.ino, goal, &entry, &meta))?;
        Ok(Progress::Went)
    }

    /// Moves on the remote what was moved here.
    pub(super) async fn relocate(&self, ino: Ino) -> Result<Progress> {
        let facts = || {
            self.store().read(|rows| {
                let node = rows.node(ino)?;
                let goal = self.goal(rows, &node)?;
                let occupant = self.occupant(rows, ino, &goal)?;
                let circle = match &occupant {
                    Occupant::Staying(other) => is_circle(rows, ino, *other)?,
                    _ => false,
                };
                let view = rows.view(ino, 0, Which::Remote)?;
                Ok((node.kind, goal, occupant, circle, super::place_of(rows, ino)?, view))
            })
        };
        let seen = facts()?;
        let (kind, mut goal, occupant, circle, from, Some(view)) = seen.clone() else { return Ok(Progress::Went) };
        let directory = kind == FileKind::Directory;
        if goal.place.path == from.path {
            // Only how it is shown differs.
            self.store().write(|tx| renamed(tx, ino, &goal, None).map(drop))?;
            return Ok(Progress::Went);
        }
        let mut condition = Condition::Absent;
        let mut replaced = None;
        match occupant {
            Occupant::Nobody => {}
            Occupant::Leaving(other, theirs)
                if !directory && theirs.kind != FileKind::Directory && self.remote().capabilities().rename_replaces =>
            {
                condition = theirs.version.clone().map_or(Condition::Any, Condition::Is);
                replaced = Some(other);
            }
            Occupant::Staying(_) if circle => {
                // Two that change places: one of them steps aside first.
                let aside = format!(".fourwheel-swap-{ino}");
                let path = goal.place.path.split().map_or_else(RemotePath::root, |(parent, _)| parent).join(&aside);
                goal.raw = aside;
                goal.name = Name::new(goal.raw.as_bytes())?;
                goal.place = Place::at(path);
            }
            Occupant::Leaving(other, _) | Occupant::Staying(other) => return Ok(Progress::Waits(other)),
        }
        let Some(call) = self.guard.call(vec![from.path.clone(), goal.place.path.clone()]) else {
            return Ok(Progress::Busy);
        };
        if facts()? != seen {
            return Ok(Progress::Went);
        }
        let source = if directory { None } else { view.version.as_ref() };
        let doing = format!("move {} to {}", from.path, goal.place.path);
        match self.remote().rename(&from, &goal.place, source, &condition).await {
            Ok(entry) => self
                .store()
                .write(|tx| {
                    if let Some(other) = replaced {
                        tx.set_view(other, 0, Which::Remote, None)?;
                        tx.set_view(other, 0, Which::Base, None)?;
                    }
                    renamed(tx, ino, &goal, Some(&entry))
                })?
                .into_iter()
                .for_each(|(old, new)| self.retag(ino, &old, &new)),
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Precondition | Kind::Exists) => {
                drop(call);
                self.look(&from).await?;
                self.look(&goal.place).await?;
                return Err(Error::new(Kind::Precondition, e.to_string()).context(doing));
            }
            Err(e) => return Err(e.context(doing)),
        }
        drop(call);
        if let Some(other) = replaced {
            self.drop_if_unneeded(other)?;
        }
        Ok(Progress::Went)
    }

    /// Sends attributes alone, where the remote keeps them; else they are kept in the store.
    pub(super) async fn set_meta(&self, ino: Ino) -> Result<Progress> {
        let (node, view, place) = self
            .store()
            .read(|rows| Ok((rows.node(ino)?, rows.view(ino, 0, Which::Remote)?, super::place_of(rows, ino)?)))?;
        let Some(view) = view else { return Ok(Progress::Went) };
        let support = self.remote().capabilities().meta;
        let directory = node.kind == FileKind::Directory;
        let able = support.alone && (!directory || support.directories);
        let meta = node.meta();
        let mut entry = None;
        // Held until the answer is noted: a call below a directory moves its time, and must be noted after this one.
        let Some(call) = self.guard.call(vec![place.path.clone()]) else { return Ok(Progress::Busy) };
        if able {
            let sent = self.remote().set_meta(&place, directory, view.version.as_ref(), &meta).await;
            match sent {
                Ok(now) => entry = Some(now),
                Err(e) if e.kind == Kind::Unsupported => {}
                Err(e) if matches!(e.kind, Kind::Precondition | Kind::Changed | Kind::NotFound) => {
                    drop(call);
                    self.look(&place).await?;
                    return Err(Error::new(Kind::Precondition, e.to_string()));
                }
                Err(e) => return Err(e.context(format!("set attributes of {}", place.path))),
            }
        }
        let renamed = self.store().write(|tx| {
            let (Some(mut base), Some(mut remote)) = (tx.view(ino, 0, Which::Base)?, tx.view(ino, 0, Which::Remote)?)
            else {
                return Ok(None);
            };
            let before = remote.version.clone();
            if let Some(entry) = &entry {
                remote.version = entry.version.clone();
                remote.meta = entry.meta.clone().unwrap_or_default();
                remote.server_mtime_ns = entry.server_mtime_ns;
            }
            if node.kind == FileKind::Directory {
                // Whether the remote keeps it or not, it was told.
                remote.meta.mtime_ns = meta.mtime_ns;
            }
            base.meta = meta;
            let mut changed = None;
            if remote.version != before && base.version == before {
                base.version = remote.version.clone();
                let mut node = tx.node(ino)?;
                if let (Content::Version(old), Some(new)) = (&node.content, &remote.version)
                    && Some(old) == before.as_ref()
                {
                    changed = Some((old.clone(), new.clone()));
                    node.content = Content::Version(new.clone());
                    tx.set_node(&node)?;
                }
            }
            tx.set_view(ino, 0, Which::Remote, Some(&remote))?;
            tx.set_view(ino, 0, Which::Base, Some(&base))?;
            tx.set_failure(ino, None, 0)?;
            Ok(changed)
        })?;
        if let Some((old, new)) = renamed {
            self.retag(ino, &old, &new);
        }
        Ok(Progress::Went)
    }

    /// The remote calls the same bytes by another tag now.
    fn retag(&self, ino: Ino, old: &Version, new: &Version) {
        if let Err(e) = self.parts.cache.rename_version(ino, old, new) {
            tracing::warn!("{e}");
        }
        self.store().opens().renamed(ino, old, new);
    }

    /// The remote holds what we sent before its answer was lost, and nobody else's: that is the base now.
    fn own_up(&self, ino: Ino) -> Result<Progress> {
        self.store().write(|tx| {
            if let Some(view) = tx.view(ino, 0, Which::Remote)? {
                let meta = tx.node(ino)?.meta();
                tx.set_view(ino, 0, Which::Base, Some(&View { meta, ..view }))?;
            }
            tx.set_attempt(ino, None)
        })?;
        Ok(Progress::Went)
    }

    /// Both sides changed. If the bytes are equal nothing happened; else the remote keeps the name, and what was written here
    /// gets another one and is sent under it.
    pub(super) async fn keep_both(self: &Arc<Self>, ino: Ino) -> Result<Progress> {
        let (node, view) = self.store().read(|rows| Ok((rows.node(ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let Some(view) = view else { return Ok(Progress::Went) };
        if node.kind == FileKind::File && view.kind == FileKind::File && self.same_bytes(ino, &view).await? {
            return self.converge(ino, &view);
        }
        if view.kind == FileKind::File && self.is_ours(ino, &view).await? {
            return self.own_up(ino);
        }
        if node.kind == FileKind::Symlink && view.kind == FileKind::Symlink && node.target.is_some() {
            let there = self.link_target(ino).await?;
            if Some(&there) == node.target.as_ref() {
                return self.agree(ino);
            }
        }
        self.store().write(|tx| {
            let (Some(view), node) = (tx.view(ino, 0, Which::Remote)?, tx.node(ino)?) else { return Ok(()) };
            let observer: Observer<'_> = self.observer();
            let Some((parent, name)) = tx.place(ino)? else { return observer.restore(tx, ino) };
            // The one that was written here keeps its inode, its handles and its bytes, and becomes a new file.
            let base = tx.view(ino, 0, Which::Base)?;
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

/// Whether whoever stands at our goal waits, directly or through others, for our own place.
fn is_circle(rows: &Rows<'_>, ino: Ino, first: Ino) -> Result<bool> {
    let Some(mine) = rows.view(ino, 0, Which::Remote)? else { return Ok(false) };
    let mut at = first;
    for _ in 0..64 {
        let Some((parent, name)) = rows.place(at)? else { return Ok(false) };
        if parent == mine.parent && name == mine.shown {
            return Ok(true);
        }
        let Some(view) = rows.view(at, 0, Which::Remote)? else { return Ok(false) };
        if view.parent == parent && view.shown == name {
            return Ok(false);
        }
        // Who stands where that one wants to go?
        let children = rows.remote_children(0, parent)?;
        let mut next = None;
        for (child, _) in children {
            if rows.view(child, 0, Which::Remote)?.is_some_and(|v| v.shown == name) {
                next = Some(child);
            }
        }
        match next {
            Some(next) if next == ino => return Ok(true),
            Some(next) => at = next,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// A call made, moved or removed something in a directory there, and so moved its time, if a program here had set one.
fn time_moved(tx: &mut Tx<'_>, directory: Ino) -> Result<()> {
    if let Some(mut view) = tx.view(directory, 0, Which::Remote)?
        && view.meta.mtime_ns.is_some()
        && tx.node(directory)?.mtime_set
    {
        view.meta.mtime_ns = None;
        tx.set_view(directory, 0, Which::Remote, Some(&view))?;
    }
    Ok(())
}

/// Notes that the remote has an inode at its new place; returns the old and new tag where the move changed it.
fn renamed(tx: &mut Tx<'_>, ino: Ino, goal: &Goal, entry: Option<&Entry>) -> Result<Option<(Version, Version)>> {
    let mut retagged = None;
    time_moved(tx, goal.parent)?;
    for which in [Which::Remote, Which::Base] {
        let Some(mut view) = tx.view(ino, 0, which)? else { continue };
        let before = view.version.clone();
        (view.parent, view.name, view.shown) = (goal.parent, goal.raw.clone(), goal.name.clone());
        if let Some(entry) = entry {
            view.id = entry.id.clone().or(view.id);
            if entry.version.is_some() {
                view.version = entry.version.clone();
            }
            view.server_mtime_ns = entry.server_mtime_ns.or(view.server_mtime_ns);
        }
        tx.set_view(ino, 0, which, Some(&view))?;
        if which == Which::Base && view.version != before {
            let mut node = tx.node(ino)?;
            if let (Content::Version(old), Some(new)) = (&node.content, &view.version)
                && Some(old) == before.as_ref()
            {
                retagged = Some((old.clone(), new.clone()));
                node.content = Content::Version(new.clone());
                tx.set_node(&node)?;
            }
        }
    }
    tx.set_failure(ino, None, 0)?;
    Ok(retagged)
}
