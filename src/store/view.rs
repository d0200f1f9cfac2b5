//! What a remote last said of an inode, and what both sides last agreed on.

use crate::model::{Entry, FileKind, Hash, HashKind, Ino, Meta, Name, Version};

/// Whose view a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What the remote last said.
    Remote,
    /// What both sides last agreed on.
    Base,
}

impl Which {
    pub(super) const fn number(self) -> i64 {
        match self {
            Which::Remote => 0,
            Which::Base => 1,
        }
    }
}

/// One remote's view of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub kind: FileKind,
    pub id: Option<String>,
    /// The directory that it is in on the remote.
    pub parent: Ino,
    /// Its name on the remote, as the provider holds it.
    pub name: String,
    /// The name under which the mount shows it when nothing was renamed here.
    pub shown: Name,
    pub size: u64,
    pub version: Option<Version>,
    pub hash: Option<Hash>,
    /// In the remote view: what the remote holds (fields it did not tell are `None`). In the base: what was agreed.
    pub meta: Meta,
    pub server_mtime_ns: Option<i64>,
}

impl View {
    /// The view that `entry` at this place gives.
    pub fn of(entry: &Entry, parent: Ino, name: &str, shown: Name) -> View {
        View {
            kind: entry.kind,
            id: entry.id.clone(),
            parent,
            name: name.to_owned(),
            shown,
            size: entry.size,
            version: entry.version.clone(),
            hash: entry.hash.clone(),
            meta: entry.meta.clone().unwrap_or_default(),
            server_mtime_ns: entry.server_mtime_ns,
        }
    }

    /// Whether both are in one place on the remote.
    pub fn same_place(&self, other: &View) -> bool {
        self.parent == other.parent && self.name == other.name
    }

    /// Whether both hold the same bytes, as far as tags tell.
    pub fn same_content(&self, other: &View) -> bool {
        self.kind == other.kind && (self.kind == FileKind::Directory || self.version == other.version)
    }
}

pub(super) fn hash_text(hash: &Hash) -> String {
    let kind = match hash.kind {
        HashKind::Md5 => "md5",
        HashKind::Sha1 => "sha1",
        HashKind::Sha256 => "sha256",
    };
    format!("{kind}:{}", hash.hex)
}

pub(super) fn hash_of(text: &str) -> Option<Hash> {
    let (kind, hex) = text.split_once(':')?;
    let kind = match kind {
        "md5" => HashKind::Md5,
        "sha1" => HashKind::Sha1,
        "sha256" => HashKind::Sha256,
        _ => return None,
    };
    Some(Hash { kind, hex: hex.to_owned() })
}
