//! `lookup`, `getattr`, `setattr`, `readlink`.

use super::{Answer, Drive, META_WAIT, absent};
use crate::error::{Error, Kind, Result};
use crate::events::Wish;
use crate::model::{FileKind, Ino, Name};
use crate::store::{Content, Node, NodeTimes, Tx, Which};

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    pub times: NodeTimes,
    /// 0 for what was deleted and is still open.
    pub links: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    /// Nanoseconds since 1970.
    At(i64),
}

/// What `setattr` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub mtime: Option<SetTime>,
    pub atime: Option<SetTime>,
}

impl Drive {
    /// The attributes of a node that has a name (`named`) or is only open.
    pub(super) fn attr(&self, node: &Node, named: bool) -> Attr {
        let mut attr = Attr {
            ino: node.ino,
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.size,
            times: node.times,
            links: u32::from(named),
        };
        if node.uid == u32::MAX {
            (attr.uid, attr.gid) = (self.parts().settings.uid, self.parts().settings.gid);
        }
        match node.kind {
            FileKind::Directory => attr.size = 4096,
            FileKind::File => {
                if let Some(staged) = self.parts().journal.get(node.ino) {
                    (attr.size, attr.times.mtime_ns) = staged.size_and_mtime();
                    attr.times.ctime_ns = attr.times.ctime_ns.max(attr.times.mtime_ns);
                }
            }
            FileKind::Symlink => attr.size = node.target.as_ref().map_or(node.size, |t| t.len() as u64),
            _ => {}
        }
        attr
    }

    /// Waits, once and shortly, for attributes that only the remote can tell; then goes on with what is known.
    async fn wait_meta(&self, ino: Ino) {
        // A time-out or error leaves the listing's guess, which the background replaces later.
        self.parts().wants.wait_shortly(Wish::Meta(ino), META_WAIT).await;
    }

    fn with_meta(&self, node: Node, named: bool) -> Answer<Attr> {
        if node.meta_known || !self.parts().wants.is_online() {
            return Answer::Now(Ok(self.attr(&node, named)));
        }
        let drive = self.clone();
        Answer::later(async move {
            drive.wait_meta(node.ino).await;
            let node = drive.store().read(|rows| rows.node(node.ino))?;
            Ok(drive.attr(&node, named))
        })
    }

    /// Finds `name` in a directory. `NotFound`.
    pub fn lookup(&self, parent: Ino, name: &Name) -> Answer<Attr> {
        match self.store().read(|rows| rows.lookup(parent, name)) {
            Err(e) => Answer::Now(Err(e)),
            Ok(Some(node)) => self.with_meta(node, true),
            Ok(None) => {
                // A program that waits for a name to appear does not list.
                self.note_use(parent);
                let name = name.clone();
                match self.is_listed(parent) {
                    Ok(true) => Answer::Now(Err(absent(&name))),
                    Err(e) => Answer::Now(Err(e)),
                    Ok(false) => {
                        let drive = self.clone();
                        Answer::later(async move {
                            drive.listed(parent).await?;
                            let node = drive.store().read(|rows| rows.lookup(parent, &name))?;
                            let node = node.ok_or_else(|| absent(&name))?;
                            drive.with_meta(node, true).get().await
                        })
                    }
                }
            }
        }
    }

    /// `stat` of an inode.
    pub fn getattr(&self, ino: Ino) -> Answer<Attr> {
        let found = self.store().read(|rows| Ok((rows.node(ino)?, ino == Ino::ROOT || rows.place(ino)?.is_some())));
        match found {
            Ok((node, named)) => self.with_meta(node, named),
            Err(e) => Answer::Now(Err(e)),
        }
    }

    /// Changes attributes. A change of size may wait for space.
    pub fn setattr(&self, ino: Ino, change: SetAttr) -> Answer<Attr> {
        if let Err(e) = self.writable() {
            return Answer::Now(Err(e));
        }
        let Some(size) = change.size else { return Answer::Now(self.set_plain(ino, change)) };
        let drive = self.clone();
        match self.truncate(ino, size) {
            Answer::Now(Ok(())) => Answer::Now(drive.set_plain(ino, change)),
            Answer::Now(Err(e)) => Answer::Now(Err(e)),
            Answer::Later(cut) => Answer::later(async move {
                cut.await?;
                drive.set_plain(ino, change)
            }),
        }
    }

    fn set_plain(&self, ino: Ino, change: SetAttr) -> Result<Attr> {
        let now = self.now_ns();
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(ns) => ns,
        };
        if let (Some(mtime), Some(staged)) = (change.mtime, self.parts().journal.get(ino)) {
            match staged.set_mtime(at(mtime)) {
                Err(e) if e.kind != Kind::Stale => return Err(e),
                _ => {}
            }
        }
        let staged = self.parts().journal.get(ino).map(|s| s.size_and_mtime());
        let settings = &self.parts().settings;
        let (node, named) = self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            if let Some(mode) = change.mode {
                node.mode = mode & 0o7777;
            }
            if change.uid.is_some() || change.gid.is_some() {
                // Both are kept from the first change on.
                let nobody = node.uid == u32::MAX;
                let (uid, gid) = if nobody { (settings.uid, settings.gid) } else { (node.uid, node.gid) };
                node.uid = change.uid.unwrap_or(uid);
                node.gid = change.gid.unwrap_or(gid);
            }
            if let Some((size, mtime)) = staged {
                (node.size, node.times.mtime_ns) = (size, mtime);
            }
            if let Some(mtime) = change.mtime {
                node.times.mtime_ns = at(mtime);
                node.mtime_set = true;
                forget_remote_time(tx, &node)?;
            }
            if let Some(atime) = change.atime {
                node.times.atime_ns = at(atime);
            }
            node.times.ctime_ns = now;
            node.meta_known = true;
            tx.set_node(&node)?;
            Ok((node, ino == Ino::ROOT || tx.place(ino)?.is_some()))
        })?;
        Ok(self.attr(&node, named))
    }

    /// Where a symbolic link points to.
    pub fn readlink(&self, ino: Ino) -> Answer<Vec<u8>> {
        let target = move |node: Node| match (node.kind, node.target) {
            (FileKind::Symlink, target) => Ok(target),
            _ => Err(Error::new(Kind::Invalid, format!("inode {ino} is no symbolic link"))),
        };
        match self.store().read(|rows| rows.node(ino)).and_then(target) {
            Err(e) => Answer::Now(Err(e)),
            Ok(Some(found)) => Answer::Now(Ok(found)),
            Ok(None) => {
                let drive = self.clone();
                Answer::later(async move {
                    drive.parts().wants.wait(Wish::Link(ino)).await?;
                    let node = drive.store().read(|rows| rows.node(ino))?;
                    target(node)?.ok_or_else(|| Error::new(Kind::Unavailable, "the link could not be read"))
                })
            }
        }
    }

    /// Writes size and mtime of a staged file to its row; no more than that, and nothing for a clean file.
    pub(super) fn bring_row_up_to_date(&self, ino: Ino) -> Result<()> {
        let Some(staged) = self.parts().journal.get(ino) else { return Ok(()) };
        // `None`: its upload was confirmed meanwhile, and the row with it.
        staged.with_facts(|size, mtime_ns| self.bring_row(ino, size, mtime_ns)).map(drop)
    }

    fn bring_row(&self, ino: Ino, size: u64, mtime_ns: i64) -> Result<()> {
        self.store().write(|tx| {
            let Some(mut node) = tx.find_node(ino)? else { return Ok(()) };
            if node.content != Content::Dirty || (node.size == size && node.times.mtime_ns == mtime_ns) {
                tx.touch(ino);
                return Ok(());
            }
            node.size = size;
            node.times.mtime_ns = mtime_ns;
            node.times.ctime_ns = node.times.ctime_ns.max(mtime_ns);
            tx.set_node(&node)
        })
    }
}

/// What the remote's time of a directory is counts no more once a program set one, were it the time that both sides agreed on
/// before our own calls below moved it there: it is set there anew.
fn forget_remote_time(tx: &mut Tx<'_>, node: &Node) -> Result<()> {
    if node.kind == FileKind::Directory
        && let Some(mut view) = tx.view(node.ino, 0, Which::Remote)?
    {
        view.meta.mtime_ns = None;
        tx.set_view(node.ino, 0, Which::Remote, Some(&view))?;
    }
    Ok(())
}
