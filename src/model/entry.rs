//! What a remote says of one file or directory.

use super::{Hash, Version};
use std::collections::BTreeMap;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileKind {
    /// The bits of `st_mode` that tell the kind (inode(7)).
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileKind::File => libc::S_IFREG,
            FileKind::Directory => libc::S_IFDIR,
            FileKind::Symlink => libc::S_IFLNK,
            FileKind::Fifo => libc::S_IFIFO,
            FileKind::Socket => libc::S_IFSOCK,
            FileKind::CharDevice => libc::S_IFCHR,
            FileKind::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The kind that these bits of `st_mode` tell; `None` for bits that mean nothing.
    pub const fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => return None,
        })
    }
}

/// What is kept with a file besides its bytes. A field is `None` where its value is not known or not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Time of the last change of the content, nanoseconds since 1970 (may be negative).
    pub mtime_ns: Option<i64>,
    /// The permission bits, `0o7777` at most.
    pub mode: Option<u32>,
    /// Extended attributes with their whole name (`user.…`); `None` where the remote did not say.
    pub xattrs: Option<BTreeMap<String, Vec<u8>>>,
}

/// What a remote says of one file or directory at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: FileKind,
    /// The provider's stable id, where it has one that survives renames.
    pub id: Option<String>,
    /// Bytes of content; 0 for a directory.
    pub size: u64,
    /// The content's tag; `None` for directories of providers that give none.
    pub version: Option<Version>,
    pub hash: Option<Hash>,
    /// Time of the last change as the server itself states it, nanoseconds since 1970. Shown until `meta` is known.
    pub server_mtime_ns: Option<i64>,
    /// What this listing told of the attributes. `None`: the listing cannot tell, ask `stat`.
    pub meta: Option<Meta>,
}

/// The provider's statement on space, in bytes; `None` where it gives none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub used_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
}

/// The key of the fact under which the store keeps the last quota.
pub const QUOTA_FACT: &str = "quota";

impl Quota {
    /// The quota as one line of text: used and available, `-` for what is unknown.
    pub fn text(&self) -> String {
        let one = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        format!("{} {}", one(self.used_bytes), one(self.available_bytes))
    }

    /// Reads what [`Quota::text`] wrote; what does not parse is unknown.
    pub fn parse(text: &str) -> Quota {
        let mut parts = text.split(' ').map(|part| part.parse::<u64>().ok());
        Quota { used_bytes: parts.next().flatten(), available_bytes: parts.next().flatten() }
    }
}
