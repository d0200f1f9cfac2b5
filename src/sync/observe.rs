//! What the remote says, into the store: the remote's view is set, and what changed only there is shown on the mount at once.
//!
//! Every function runs inside one transaction. Nothing that a program wrote is touched: where both sides changed, the views
//! are left unequal and the planner keeps both.

use super::names::{Names, Shown};
use crate::error::Result;
use crate::model::{Entry, FileKind, Ino, Meta, Name};
use crate::store::{Content, Node, NodeTimes, Opens, Tx, View, Which};

/// What an observation needs to know besides the store.
pub(super) struct Observer<'a> {
    pub(super) names: &'a Names,
    pub(super) opens: &'a Opens,
    pub(super) now_ns: i64,
    /// Whether listings tell attributes, or nothing ever does.
    pub(super) meta_in_listing: bool,
    /// Whether this remote keeps attributes at all.
    pub(super) keeps_meta: bool,
}

/// The mode of what no program and no remote gave one.
const fn default_mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o755,
        FileKind::Symlink => 0o777,
        _ => 0o644,
    }
}

fn apply_meta(node: &mut Node, view: &View) {
    if let Some(mode) = view.meta.mode
        && node.kind != FileKind::Symlink
    {
        node.mode = mode;
    }
    if let Some(mtime) = view.meta.mtime_ns.or(view.server_mtime_ns) {
        node.times.mtime_ns = mtime;
    }
    if let Some(xattrs) = &view.meta.xattrs {
        node.xattrs = xattrs.clone();
    }
}

/// Whether a program set this directory's time, and the remote's time is only that of our own calls below it.
fn keeps_own_time(node: &Node, view: &View) -> bool {
    node.kind == FileKind::Directory && node.mtime_set && view.meta.mtime_ns.is_none()
}

/// What both sides agree on once the mount shows `node` as the remote has it.
fn agreed(view: &View, node: &Node, known: bool) -> View {
    let meta = if known { node.meta() } else { Meta::default() };
    View { meta, shown: view.shown.clone(), ..view.clone() }
}

impl Observer<'_> {
    fn knows_meta(&self, entry: &Entry) -> bool {
        entry.meta.is_some() || !self.keeps_meta || self.meta_in_listing
    }

    /// The remote has `entry` under `raw` in directory `parent`. Returns its inode.
    pub(super) fn present(&self, tx: &mut Tx<'_>, parent: Ino, raw: &str, entry: &Entry) -> Result<Ino> {
        let Shown { name, kind } = self.names.shown(raw, entry.kind);
        let entry = &Entry { kind, ..entry.clone() };
        let known = match &entry.id {
            Some(id) => tx.by_id(0, id)?,
            None => None,
        };
        let known = match known {
            Some(ino) => Some(ino),
            None => tx.remote_child(0, parent, raw)?,
        };
        // Of what our own move is on its way to or from nothing is believed before the planner has looked at both places.
        if let Some(mover) = tx.moving_to(parent, raw)? {
            return Ok(mover);
        }
        let Some(ino) = known else { return self.appeared(tx, parent, raw, name, entry) };
        if tx.moving(ino)?.is_some() {
            return Ok(ino);
        }
        let Some(old) = tx.view(ino, 0, Which::Remote)? else { return self.appeared(tx, parent, raw, name, entry) };
        if old.kind != entry.kind {
            self.absent(tx, ino)?;
            return self.appeared(tx, parent, raw, name, entry);
        }
        self.again(tx, ino, &old, parent, raw, name, entry)?;
        Ok(ino)
    }

    /// Something that we did not know there.
    fn appeared(&self, tx: &mut Tx<'_>, parent: Ino, raw: &str, name: Name, entry: &Entry) -> Result<Ino> {
        let view = View::of(entry, parent, raw, name.clone());
        if let Some(sent) = tx.stray_attempt(parent, raw, &name)?
            && tx.node(sent)?.kind == entry.kind
        {
            // It may be what was sent before it was deleted or moved here: the planner finds out, and until then it is not shown.
            tx.set_view(sent, 0, Which::Remote, Some(&view))?;
            return Ok(sent);
        }
        self.bring_back(tx, parent)?;
        if let Some(there) = tx.lookup(parent, &name)? {
            let mine = tx.view(there.ino, 0, Which::Remote)?;
            if mine.is_none() {
                // Made here too. Two directories are one; the planner compares two files.
                let both = there.kind == entry.kind;
                if both {
                    tx.set_view(there.ino, 0, Which::Remote, Some(&view))?;
                    if entry.kind == FileKind::Directory {
                        let base = View { meta: there.meta(), ..view.clone() };
                        tx.set_view(there.ino, 0, Which::Base, Some(&base))?;
                        let mut node = there.clone();
                        node.listed = false;
                        tx.set_node(&node)?;
                    }
                    return Ok(there.ino);
                }
            }
            let same_place = mine.as_ref().is_some_and(|m| m.parent == parent && m.shown == name);
            if same_place {
                let name = self.free_name(tx, parent, &name)?;
                return self.show(tx, parent, &View { shown: name, ..view }, entry);
            }
            self.set_aside(tx, &there)?;
        }
        self.show(tx, parent, &view, entry)
    }

    /// A directory that was deleted here and is not yet deleted there comes back with something new in it.
    fn bring_back(&self, tx: &mut Tx<'_>, directory: Ino) -> Result<()> {
        if directory != Ino::ROOT && tx.place(directory)?.is_none() { self.restore(tx, directory) } else { Ok(()) }
    }

    /// Shows a new inode on the mount.
    fn show(&self, tx: &mut Tx<'_>, parent: Ino, view: &View, entry: &Entry) -> Result<Ino> {
        let known = self.knows_meta(entry);
        let mtime = view.meta.mtime_ns.or(view.server_mtime_ns).unwrap_or(self.now_ns);
        let mut node = Node {
            ino: Ino::ROOT,
            kind: entry.kind,
            mode: default_mode(entry.kind),
            uid: u32::MAX,
            gid: u32::MAX,
            rdev: 0,
            size: if entry.kind == FileKind::Directory { 0 } else { entry.size },
            times: NodeTimes { mtime_ns: mtime, ctime_ns: mtime, atime_ns: mtime },
            content: content_of(view),
            target: None,
            xattrs: Default::default(),
            meta_known: known,
            mtime_set: false,
            listed: false,
        };
        apply_meta(&mut node, view);
        let ino = tx.add_node(&node)?;
        node.ino = ino;
        tx.add_name(parent, &view.shown, ino)?;
        tx.set_view(ino, 0, Which::Remote, Some(view))?;
        tx.set_view(ino, 0, Which::Base, Some(&agreed(view, &node, known)))?;
        // The kernel keeps no note of names that are absent, so there is nothing to tell it of a new one.
        Ok(ino)
    }

    /// Something that we knew, as it is now.
    #[allow(clippy::too_many_arguments, reason = "one observation: who, what was known, where it is, what it is")]
    fn again(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        old: &View,
        parent: Ino,
        raw: &str,
        name: Name,
        entry: &Entry,
    ) -> Result<()> {
        let moved = old.parent != parent || old.name != raw;
        let shown = if moved { name } else { old.shown.clone() };
        let mut new = View::of(entry, parent, raw, shown);
        if entry.meta.is_none() {
            // The listing does not tell: what was heard of this version still holds.
            if new.version == old.version {
                new.meta = old.meta.clone();
            }
        }
        if entry.kind == FileKind::Directory && old.meta.mtime_ns.is_none() && tx.node(ino)?.mtime_set {
            // What we did in it moved its time there; the planner sets it once nothing below waits any more.
            new.meta.mtime_ns = None;
        }
        let unknown = entry.meta.is_some() && !tx.node(ino)?.meta_known;
        if new == *old && !unknown {
            return Ok(());
        }
        tx.set_view(ino, 0, Which::Remote, Some(&new))?;
        let (Some(mut base), node, place) = (tx.view(ino, 0, Which::Base)?, tx.node(ino)?, tx.place(ino)?) else {
            return Ok(());
        };
        let Some((at_parent, at_name)) = place else {
            // What may be our own upload, whose answer was lost before the file was deleted here, is the planner's to judge.
            if !new.same_content(&base) && tx.attempt(ino)?.is_none() {
                self.restore(tx, ino)?;
            }
            return Ok(());
        };
        if moved && super::circle::is_aside(ino, raw) {
            // Our own step: it goes on from there.
            (base.parent, base.name, base.shown) = (new.parent, new.name.clone(), new.shown.clone());
            tx.set_view(ino, 0, Which::Base, Some(&base))?;
        } else if moved && at_parent == base.parent && at_name == base.shown {
            self.move_here(tx, ino, &new, &mut base)?;
        }
        let clean = match &node.content {
            Content::Dirty => false,
            Content::Version(version) => base.version.as_ref() == Some(version),
            Content::None => true,
        };
        if clean && !new.same_content(&base) {
            if self.opens.get(ino).writers > 0 {
                // It may be written the next moment; the planner takes it, or keeps both, once it is closed.
                return Ok(());
            }
            return self.take(tx, ino, entry);
        }
        // A directory's time that our own calls moved is not news; the planner sets it again.
        let moved_by_us = keeps_own_time(&node, &new);
        let old_meta = if moved_by_us { Meta { mtime_ns: None, ..old.meta.clone() } } else { old.meta.clone() };
        let meta_news = new.meta != old_meta || unknown;
        if meta_news && new.same_content(&base) && (unknown || !node.meta_differs(&base.meta)) {
            self.take_meta(tx, ino, &new, &base, unknown)?;
        } else if new.same_content(&base) && new.version != base.version {
            // A directory's tag says nothing that must be agreed on.
            base.version = new.version.clone();
            tx.set_view(ino, 0, Which::Base, Some(&base))?;
        }
        Ok(())
    }

    /// Follows a move that the remote reports.
    fn move_here(&self, tx: &mut Tx<'_>, ino: Ino, new: &View, base: &mut View) -> Result<()> {
        self.bring_back(tx, new.parent)?;
        if let Some(there) = tx.lookup(new.parent, &new.shown)?
            && there.ino != ino
        {
            self.set_aside(tx, &there)?;
        }
        tx.remove_name(base.parent, &base.shown)?;
        tx.add_name(new.parent, &new.shown, ino)?;
        tx.tell_entry(base.parent, &base.shown)?;
        (base.parent, base.name, base.shown) = (new.parent, new.name.clone(), new.shown.clone());
        tx.set_view(ino, 0, Which::Base, Some(base))
    }

    fn take_meta(&self, tx: &mut Tx<'_>, ino: Ino, new: &View, base: &View, first: bool) -> Result<()> {
        let mut node = tx.node(ino)?;
        let touched_here = first && node.meta_differs(&base.meta);
        let own_time = keeps_own_time(&node, new).then_some(node.times.mtime_ns);
        if !touched_here {
            apply_meta(&mut node, new);
        }
        node.mtime_set = own_time.is_some();
        node.times.mtime_ns = own_time.unwrap_or(node.times.mtime_ns);
        node.meta_known = true;
        let base = View { meta: node.meta(), version: new.version.clone(), ..base.clone() };
        tx.set_node(&node)?;
        tx.set_view(ino, 0, Which::Base, Some(&base))?;
        tx.tell_content(ino)
    }

    /// Shows the remote's content in place of a clean one. With a handle open, the name gets a new inode, and the handle
    /// keeps the version that it opened, as after a rename over it on a local disk.
    pub(super) fn take(&self, tx: &mut Tx<'_>, ino: Ino, entry: &Entry) -> Result<()> {
        let (Some(view), Some((parent, name))) = (tx.view(ino, 0, Which::Remote)?, tx.place(ino)?) else {
            return Ok(());
        };
        let mut node = tx.node(ino)?;
        let mut at = ino;
        if node.kind == FileKind::File && !self.opens.get(ino).is_closed() {
            self.opens.set_gone(ino, true);
            tx.remove_name(parent, &name)?;
            at = tx.add_node(&node)?;
            tx.hand_over_views(ino, at)?;
            tx.add_name(parent, &name, at)?;
            self.opens.hold(ino);
        }
        let known = self.knows_meta(entry);
        node.ino = at;
        node.size = if node.kind == FileKind::Directory { 0 } else { view.size };
        node.content = content_of(&view);
        node.target = None;
        node.meta_known = known;
        node.times.ctime_ns = self.now_ns;
        apply_meta(&mut node, &view);
        tx.set_node(&node)?;
        tx.set_view(at, 0, Which::Base, Some(&agreed(&view, &node, known)))?;
        if at != ino {
            tx.tell_entry(parent, &name)?;
        }
        tx.tell_content(ino)
    }

    /// The remote has this inode no longer, and that was confirmed. What is clean here goes too; what was written here stays
    /// and is made again.
    pub(super) fn absent(&self, tx: &mut Tx<'_>, ino: Ino) -> Result<()> {
        // Where it was it is missed in vain.
        if tx.on_its_way(ino)?.is_some() {
            return Ok(());
        }
        for (child, _) in tx.remote_children(0, ino)? {
            self.absent(tx, child)?;
        }
        let base = tx.view(ino, 0, Which::Base)?;
        let node = tx.node(ino)?;
        tx.set_view(ino, 0, Which::Remote, None)?;
        tx.set_view(ino, 0, Which::Base, None)?;
        tx.remove_session(ino)?;
        let Some((parent, name)) = tx.place(ino)? else { return Ok(()) };
        let written = match (&node.content, &base) {
            (Content::Dirty, _) => true,
            (Content::Version(version), Some(base)) => base.version.as_ref() != Some(version),
            _ => false,
        };
        self.opens.set_gone(ino, true);
        let kept = match node.kind {
            FileKind::Directory => !tx.is_empty(ino)?,
            _ => written || self.opens.get(ino).writers > 0,
        };
        tracing::debug!("inode {ino}: gone on the remote, {}", if kept { "kept here" } else { "and here" });
        if kept {
            self.opens.set_gone(ino, false);
            return Ok(());
        }
        tx.remove_name(parent, &name)?;
        self.opens.hold(ino);
        tx.tell_entry(parent, &name)?;
        tx.tell_content(ino)
    }

    /// Brings back what was deleted here and changed there.
    pub(super) fn restore(&self, tx: &mut Tx<'_>, ino: Ino) -> Result<()> {
        let Some(view) = tx.view(ino, 0, Which::Remote)? else { return Ok(()) };
        if tx.place(ino)?.is_some() {
            return Ok(());
        }
        if view.parent != Ino::ROOT && tx.place(view.parent)?.is_none() {
            self.restore(tx, view.parent)?;
        }
        if let Some(there) = tx.lookup(view.parent, &view.shown)? {
            self.set_aside(tx, &there)?;
        }
        let mut node = tx.node(ino)?;
        let known = node.meta_known;
        let mut at = ino;
        if node.kind != FileKind::Directory {
            // A new inode: who still has the deleted one open keeps its bytes, which the journal may hold.
            at = tx.add_node(&node)?;
            tx.hand_over_views(ino, at)?;
            node.ino = at;
        }
        node.content = content_of(&view);
        node.size = if node.kind == FileKind::Directory { 0 } else { view.size };
        node.target = None;
        apply_meta(&mut node, &view);
        tx.set_node(&node)?;
        tx.add_name(view.parent, &view.shown, at)?;
        tx.set_view(at, 0, Which::Base, Some(&agreed(&view, &node, known)))
    }

    /// Gives what is shown under a name that the remote needs another, free one: the remote keeps its name.
    pub(super) fn set_aside(&self, tx: &mut Tx<'_>, node: &Node) -> Result<Name> {
        let Some((parent, name)) = tx.place(node.ino)? else {
            return Err(crate::error::Error::new(crate::error::Kind::Stale, "a nameless inode cannot be set aside"));
        };
        let aside = self.names.conflict_name(&name, self.now_ns, |n| Ok(tx.child(parent, n)?.is_some()))?;
        tx.remove_name(parent, &name)?;
        tx.add_name(parent, &aside, node.ino)?;
        tx.add_conflict(node.ino, name.as_bytes(), self.now_ns)?;
        tx.tell_entry(parent, &name)?;
        Ok(aside)
    }

    /// A stable name beside one that is taken by another entry of the remote.
    fn free_name(&self, tx: &Tx<'_>, parent: Ino, name: &Name) -> Result<Name> {
        for n in 2..1000 {
            let other = self.names.numbered(name, n)?;
            if tx.child(parent, &other)?.is_none() {
                return Ok(other);
            }
        }
        Err(crate::error::Error::new(crate::error::Kind::Exists, format!("too many entries are called \"{name}\"")))
    }
}

/// Where the bytes of what the remote has are.
fn content_of(view: &View) -> Content {
    match (view.kind, &view.version) {
        (FileKind::File, Some(version)) => Content::Version(version.clone()),
        _ => Content::None,
    }
}
