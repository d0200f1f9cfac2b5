//! The local view: what programs on the mount see of one inode.

use crate::model::{FileKind, Ino, Meta, Version};
use std::collections::BTreeMap;

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not a regular file, or a link whose target the row holds.
    None,
    /// Bytes of this version of the remote; cached or not.
    Version(Version),
    /// Bytes that no remote has: the journal holds them. A new file without a journal file is empty.
    Dirty,
}

/// The times of a node, nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeTimes {
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub atime_ns: i64,
}

/// One inode as the mount shows it. Its names are in the names table: none means deleted (perhaps still open).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Bytes. While a file is dirty the journal knows better.
    pub size: u64,
    pub times: NodeTimes,
    pub content: Content,
    /// Where a symbolic link points to; `None` for other kinds, and while a remote's link was not read yet.
    pub target: Option<Vec<u8>>,
    /// Extended attributes with their whole name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Whether mtime, mode and xattrs are what the remote holds, and not the listing's guess.
    pub meta_known: bool,
    /// Whether a program set the mtime of this directory and nothing changed in it since.
    pub mtime_set: bool,
    /// Directories: whether all children are known.
    pub listed: bool,
}

impl Node {
    /// The attributes, as they would be given to a remote.
    pub fn meta(&self) -> Meta {
        Meta { mtime_ns: Some(self.times.mtime_ns), mode: Some(self.mode), xattrs: Some(self.xattrs.clone()) }
    }

    /// Whether what programs set here differs from what was agreed. Fields that were not agreed on do not count.
    pub fn meta_differs(&self, agreed: &Meta) -> bool {
        let mtime = agreed.mtime_ns.is_some_and(|m| m != self.times.mtime_ns)
            && (self.kind == FileKind::File || (self.kind == FileKind::Directory && self.mtime_set));
        let mode = self.kind != FileKind::Symlink && agreed.mode.is_some_and(|m| m != self.mode);
        mtime || mode || agreed.xattrs.as_ref().is_some_and(|x| *x != self.xattrs)
    }

    /// Whether a directory's time, set by a program, must be set on the remote again: what we did in it there moved it.
    pub fn time_is_moved(&self, remote: &Meta) -> bool {
        self.kind == FileKind::Directory && self.mtime_set && remote.mtime_ns.is_none()
    }

    /// Whether a regular file or link is kept on the remote byte for byte (no device, pipe or socket).
    pub fn is_syncable(&self) -> bool {
        matches!(self.kind, FileKind::File | FileKind::Directory | FileKind::Symlink)
    }
}

/// The number that stands for a kind in the tables.
pub(super) const fn kind_number(kind: FileKind) -> i64 {
    match kind {
        FileKind::File => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharDevice => 5,
        FileKind::BlockDevice => 6,
    }
}

/// The kind of a number in the tables.
pub(super) const fn kind_of(number: i64) -> Option<FileKind> {
    Some(match number {
        0 => FileKind::File,
        1 => FileKind::Directory,
        2 => FileKind::Symlink,
        3 => FileKind::Fifo,
        4 => FileKind::Socket,
        5 => FileKind::CharDevice,
        6 => FileKind::BlockDevice,
        _ => return None,
    })
}
