//! The steps that change names, directories and attributes on the remote.

use super::Shared;
use super::circle;
use super::goal::{Goal, Occupant};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Ino, RemotePath, Version};
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

/// What a move depends on.
#[derive(Clone, PartialEq)]
struct MoveFacts {
    kind: FileKind,
    goal: Goal,
    occupant: Occupant,
    /// Whether whoever stands there waits for our own place.
    circle: bool,
    from: Place,
    view: Option<View>,
}

impl Shared {
    pub(super) fn forget(&self, ino: Ino) -> Result<Progress> {
        let (base, attempt) =
            self.store().read(|rows| Ok((rows.view(ino, 0, Which::Base)?.is_some(), rows.attempt(ino)?.is_some())))?;
        // Whatever is written makes the planner look again, and while the kernel holds the inode there is nothing else to do.
        if base || attempt {
            self.store().write(|tx| {
                if tx.place(ino)?.is_none() && tx.view(ino, 0, Which::Remote)?.is_none() {
                    tx.set_view(ino, 0, Which::Base, None)?;
                }
                // Nothing of it is on its way: one worker at a time has an inode.
                tx.set_attempt(ino, None)
            })?;
        }
        self.drop_if_unneeded(ino)?;
        Ok(Progress::Ended)
    }

    pub(super) async fn remove(&self, ino: Ino) -> Result<Progress> {
        let facts = || {
            self.store().read(|rows| {
                let view = rows.view(ino, 0, Which::Remote)?;
                let child = rows.remote_children(0, ino)?.into_iter().next();
                let on_its_way = rows.on_its_way(ino)?;
                let path = rows.remote_path(0, ino)?.filter(|_| on_its_way.is_none());
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

    /// Makes on the remote what is new here.
    pub(super) async fn make(self: &Arc<Self>, ino: Ino, large: &Arc<Semaphore>) -> Result<Progress> {
        // Before it takes anybody's place: what was sent may be there under the name that it had then.
        if let Some(first) = self.last_attempt(ino).await? {
            return Ok(first);
        }
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
                    let still = tx.place(other)?.is_none()
                        && tx.view(other, 0, Which::Remote)?.as_ref() == Some(&*view)
                        && tx.view(ino, 0, Which::Remote)?.is_none();
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
        if let Some(first) = self.last_attempt(ino).await? {
            return Ok(first);
        }
        match node.kind {
            FileKind::Directory => self.make_directory(&node, &goal).await,
            FileKind::Symlink => self.make_link(&node, &goal).await,
            _ => self.upload(&node, &goal, Condition::Absent, large).await,
        }
    }

    async fn make_directory(&self, node: &Node, goal: &Goal) -> Result<Progress> {
        let meta = node.meta();
        let Some(call) = self.guard.call(vec![goal.place.path.clone()]) else { return Ok(Progress::Busy) };
        if let Some(ended) = self.attempt(node, goal, &Condition::Absent, &Attempt::at(goal.parent, &goal.raw))? {
            return Ok(ended);
        }
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
        if let Some(ended) = self.attempt(node, goal, &Condition::Absent, &super::attempts::link_of(goal, &target))? {
            return Ok(ended);
        }
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

    fn move_facts(&self, rows: &Rows<'_>, ino: Ino) -> Result<MoveFacts> {
        let node = rows.node(ino)?;
        let (from, view) = (super::place_of(rows, ino)?, rows.view(ino, 0, Which::Remote)?);
        let goal = match &view {
            // What it is to move into waits for its place.
            Some(_) if circle::is_in_the_way_of_its_directory(rows, ino)? => {
                let directory = circle::lasting_directory(rows, ino)?;
                circle::aside(ino, directory, &rows.remote_path(0, directory)?.unwrap_or_else(RemotePath::root))?
            }
            _ => self.goal(rows, &node)?,
        };
        let occupant = self.occupant(rows, ino, &goal)?;
        let circle = match &occupant {
            // One that is on its way has stepped aside perhaps.
            Occupant::Staying(other) | Occupant::Leaving(other, _) => {
                rows.moving(*other)?.is_none() && circle::is_circle(rows, ino, *other)?
            }
            Occupant::Nobody => false,
        };
        Ok(MoveFacts { kind: node.kind, goal, occupant, circle, from, view })
    }

    /// Moves on the remote what was moved here.
    pub(super) async fn relocate(&self, ino: Ino) -> Result<Progress> {
        let seen = self.store().read(|rows| self.move_facts(rows, ino))?;
        let MoveFacts { kind, mut goal, occupant, circle, from, view: Some(view) } = seen.clone() else {
            return Ok(Progress::Went);
        };
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
            Occupant::Staying(_) | Occupant::Leaving(..) if circle => {
                // Two that change places: one of them steps aside first.
                let directory = goal.place.path.split().map_or_else(RemotePath::root, |(parent, _)| parent);
                goal = circle::aside(ino, goal.parent, &directory)?;
            }
            Occupant::Leaving(other, _) | Occupant::Staying(other) => return Ok(Progress::Waits(other)),
        }
        let Some(call) = self.guard.call(vec![from.path.clone(), goal.place.path.clone()]) else {
            return Ok(Progress::Busy);
        };
        let noted = self.store().write(|tx| {
            let ways = [tx.on_its_way(ino)?, tx.on_its_way(goal.parent)?];
            let still = self.move_facts(tx, ino)? == seen && ways == [None, None];
            if still {
                tx.set_move(ino, Some((goal.parent, &goal.raw)))?;
            }
            Ok(still)
        })?;
        if !noted {
            return Ok(Progress::Went);
        }
        call.keep(ino);
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
                // A lost answer, and the repetition of what was done, looks like this too.
                return match self.locate(ino).await? {
                    Progress::Went
                        if self.store().read(|rows| Ok(rows.view(ino, 0, Which::Remote)? != Some(view)))? =>
                    {
                        Ok(Progress::Went)
                    }
                    Progress::Went => Err(Error::new(Kind::Precondition, e.to_string()).context(doing)),
                    other => Ok(other),
                };
            }
            Err(e) => return Err(e.context(doing)),
        }
        drop(self.guard.resume(ino));
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
        if self.store().read(|rows| rows.on_its_way(ino))?.is_some() {
            return Ok(Progress::Busy);
        }
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
    pub(super) fn retag(&self, ino: Ino, old: &Version, new: &Version) {
        if let Err(e) = self.parts.cache.rename_version(ino, old, new) {
            tracing::warn!("{e}");
        }
        self.store().opens().renamed(ino, old, new);
    }
}

/// A call made, moved or removed something in a directory there, and so moved its time: a time that a program sets here, or set
/// before, is set there again.
pub(super) fn time_moved(tx: &mut Tx<'_>, directory: Ino) -> Result<()> {
    if let Some(mut view) = tx.view(directory, 0, Which::Remote)?
        && view.meta.mtime_ns.is_some()
    {
        view.meta.mtime_ns = None;
        tx.set_view(directory, 0, Which::Remote, Some(&view))?;
    }
    Ok(())
}

/// Notes that the remote has an inode at its new place; returns the old and new tag where the move changed it.
pub(super) fn renamed(
    tx: &mut Tx<'_>,
    ino: Ino,
    goal: &Goal,
    entry: Option<&Entry>,
) -> Result<Option<(Version, Version)>> {
    let mut retagged = None;
    time_moved(tx, goal.parent)?;
    let moved = tx.view(ino, 0, Which::Remote)?;
    for which in [Which::Remote, Which::Base] {
        let Some(mut view) = tx.view(ino, 0, which)? else { continue };
        let before = view.version.clone();
        // What was moved may be newer than what both sides agreed on: then that is not called by the new tag.
        let same = moved.as_ref().is_none_or(|moved| moved.version == before);
        (view.parent, view.name, view.shown) = (goal.parent, goal.raw.clone(), goal.name.clone());
        if let Some(entry) = entry {
            view.id = entry.id.clone().or(view.id);
            if entry.version.is_some() && same {
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
    tx.set_move(ino, None)?;
    tx.set_failure(ino, None, 0)?;
    Ok(retagged)
}
