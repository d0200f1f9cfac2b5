//! Upload sessions that survive a crash.

use crate::model::Ino;
use serde::{Deserialize, Serialize};

/// One part that the provider has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    pub number: u32,
    pub size: u64,
    pub tag: String,
}

/// An upload session of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    pub ino: Ino,
    /// The provider's session, opaque.
    pub session: String,
    /// The journal's generation that it sends.
    pub generation: u64,
    pub size: u64,
    pub part_bytes: u64,
    /// The target's path on the remote.
    pub place: String,
    /// Acknowledged parts.
    pub parts: Vec<PartRow>,
}
