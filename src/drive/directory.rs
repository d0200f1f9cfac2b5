//! `readdir` and `readdirplus`.

use super::{Answer, Attr, Drive};
use crate::model::{FileKind, Ino, Name};
use crate::store::DirectoryEntry;

/// Entries read from the store at once; about what fits one reply of the kernel.
const BATCH: usize = 512;

/// One entry of a listing.
pub type Dirent = DirectoryEntry;

/// One entry with its attributes.
#[derive(Clone, Debug)]
pub struct DirentPlus {
    pub cookie: u64,
    pub name: Name,
    pub attr: Attr,
    /// Whether the attributes are known, and not a guess from a listing.
    pub known: bool,
}

impl Drive {
    /// The entries after `cookie` (0: from the start), in an order that stays while names come and go. Empty at the end.
    /// `.` and `..` are not among them.
    pub fn readdir(&self, ino: Ino, after: u64) -> Answer<Vec<Dirent>> {
        self.in_listed(ino, move |drive| drive.store().read(|rows| rows.entries(ino, after, BATCH)))
    }

    /// The same with attributes. What only the remote can tell of an entry is not waited for.
    pub fn readdirplus(&self, ino: Ino, after: u64) -> Answer<Vec<DirentPlus>> {
        self.in_listed(ino, move |drive| {
            let found = drive.store().read(|rows| rows.entries_with_nodes(ino, after, BATCH))?;
            Ok(found
                .into_iter()
                .map(|(cookie, name, node)| {
                    let known = node.meta_known;
                    DirentPlus { cookie, name, attr: drive.attr(&node, true), known }
                })
                .collect())
        })
    }

    /// The attributes of a directory, as they are known, for `.` and `..`.
    pub fn dot(&self, ino: Ino) -> crate::error::Result<Attr> {
        let node = self.store().read(|rows| rows.node(ino))?;
        Ok(self.attr(&node, true))
    }

    /// The directory that holds this one; the root holds itself.
    pub fn parent(&self, ino: Ino) -> Ino {
        self.store().read(|rows| rows.place(ino)).ok().flatten().map_or(Ino::ROOT, |(parent, _)| parent)
    }

    /// Whether this inode is a directory, for `opendir`.
    pub fn opendir(&self, ino: Ino) -> crate::error::Result<()> {
        let node = self.store().read(|rows| rows.node(ino))?;
        if node.kind == FileKind::Directory {
            return Ok(());
        }
        Err(crate::error::Error::new(crate::error::Kind::NotDirectory, format!("inode {ino} is no directory")))
    }
}
