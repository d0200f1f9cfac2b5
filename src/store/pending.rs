//! Which inodes the planner must look at, and which it could not save.

use crate::model::Ino;

/// An inode whose three views are not equal. The table is an index over the views, kept by every transaction that changes
/// them; `check` compares it with the views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending(pub Ino);

/// Why an inode could not be saved. It stays in the journal and blocks nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub ino: Ino,
    pub reason: String,
    /// Nanoseconds since 1970.
    pub at_ns: i64,
}
