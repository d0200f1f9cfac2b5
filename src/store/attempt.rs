//! What was sent to a remote and not heard of since.

use crate::model::Ino;

/// Content (or a directory, a link) on its way to a place. After a lost answer the remote may hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The directory that it was sent to.
    pub parent: Ino,
    /// The name on the remote.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the content; empty where it is not known.
    pub sha256: Vec<u8>,
}

impl Attempt {
    /// One without content.
    pub fn at(parent: Ino, name: &str) -> Self {
        Attempt { parent, name: name.to_owned(), size: 0, sha256: Vec::new() }
    }
}
