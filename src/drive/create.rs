//! `create`, `mkdir`, `mknod`, `symlink`, `link`.

use super::{Access, Answer, Attr, Caller, Drive, Opened, exists, fresh, living_directory, touch_directory};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use crate::store::Outcome;

/// The longest target of a symbolic link, bytes: PATH_MAX of Linux less its NUL.
const TARGET_BYTES_MAX: usize = 4095;

/// What to make.
#[derive(Clone, Debug)]
pub enum NewNode {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// A pipe, socket or device; kept on this machine only.
    Special {
        kind: FileKind,
        rdev: u32,
    },
}

impl Drive {
    /// Makes something new. `mode` holds permission bits, the umask already applied. `Exists`, `NotFound` (no such directory).
    pub fn make(&self, caller: Caller, parent: Ino, name: &Name, new: NewNode, mode: u32) -> Answer<Attr> {
        let name = name.clone();
        self.in_listed(parent, move |drive| drive.make_now(caller, parent, &name, new, mode))
    }

    fn make_now(&self, caller: Caller, parent: Ino, name: &Name, new: NewNode, mode: u32) -> Result<Attr> {
        let now = self.now_ns();
        let outcome = self.once(caller, |tx| {
            let directory = living_directory(tx, parent)?;
            if tx.child(parent, name)?.is_some() {
                return Err(exists(name));
            }
            let mut node = match &new {
                NewNode::File => fresh(FileKind::File, mode, caller, now),
                NewNode::Directory => fresh(FileKind::Directory, mode, caller, now),
                NewNode::Symlink(_) => fresh(FileKind::Symlink, 0o777, caller, now),
                NewNode::Special { kind, .. } => fresh(*kind, mode, caller, now),
            };
            match new {
                NewNode::Symlink(target) => {
                    if target.len() > TARGET_BYTES_MAX {
                        return Err(Error::new(Kind::NameTooLong, "the link's target is too long"));
                    }
                    node.size = target.len() as u64;
                    node.target = Some(target);
                }
                NewNode::Special { rdev, .. } => node.rdev = rdev,
                NewNode::File | NewNode::Directory => {}
            }
            if directory.mode & 0o2000 != 0 {
                node.gid = self.attr(&directory, true).gid;
                if node.kind == FileKind::Directory {
                    node.mode |= 0o2000;
                }
            }
            let ino = tx.add_node(&node)?;
            tx.add_name(parent, name, ino)?;
            touch_directory(tx, directory, now)?;
            Ok(Outcome::Made(ino.get()))
        })?;
        let ino = outcome.ino().ok_or_else(|| Error::new(Kind::Stale, "a repeated request made nothing"))?;
        let node = self.store().read(|rows| rows.node(ino))?;
        Ok(self.attr(&node, true))
    }

    /// Makes a file and opens it; opens the one that is there unless `exclusive`.
    pub fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> Answer<(Attr, Opened)> {
        let (name, again) = (name.clone(), name.clone());
        let made = self.in_listed(parent, move |drive| {
            let there = drive.store().read(|rows| rows.child(parent, &name))?;
            if let Some(ino) = there
                && !exclusive
                && !caller.request.repeated
            {
                return Ok((ino, false));
            }
            drive.make_now(caller, parent, &name, NewNode::File, mode).map(|attr| (attr.ino, true))
        });
        let drive = self.clone();
        let open = move |drive: &Drive, ino: Ino, new: bool| {
            if new {
                let attr = drive.store().read(|rows| rows.node(ino)).map(|node| drive.attr(&node, true));
                return Answer::Now(attr.map(|attr| (attr, drive.opened(ino, access, true))));
            }
            match drive.open(ino, access) {
                Answer::Now(opened) => Answer::Now(opened.and_then(|o| Ok((drive.attr_of(ino)?, o)))),
                Answer::Later(work) => {
                    let drive = drive.clone();
                    Answer::later(async move {
                        let opened = work.await?;
                        Ok((drive.attr_of(ino)?, opened))
                    })
                }
            }
        };
        match made {
            Answer::Now(Ok((ino, new))) => match open(&drive, ino, new) {
                // The remote took it away between the look and the open: now there is nothing, and a new one is made.
                Answer::Now(Err(e)) if e.kind == Kind::Stale && !new => {
                    match self.make_now(caller, parent, &again, NewNode::File, mode) {
                        Ok(attr) => open(&drive, attr.ino, true),
                        Err(e) => Answer::Now(Err(e)),
                    }
                }
                other => other,
            },
            Answer::Now(Err(e)) => Answer::Now(Err(e)),
            Answer::Later(work) => Answer::later(async move {
                let (ino, new) = work.await?;
                open(&drive, ino, new).get().await
            }),
        }
    }

    fn attr_of(&self, ino: Ino) -> Result<Attr> {
        let node = self.store().read(|rows| rows.node(ino))?;
        Ok(self.attr(&node, true))
    }

    /// Hard links are refused: no provider of ours has them.
    pub fn link(&self) -> Result<Attr> {
        Err(Error::new(Kind::NotPermitted, "hard links are not possible on this drive"))
    }
}
