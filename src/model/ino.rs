//! The inode number.

use std::fmt;
use std::num::NonZeroU64;

/// Identifies a file for the life of the drive. Never reused, never zero; the root is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub NonZeroU64);

impl Ino {
    /// The root directory of a drive.
    pub const ROOT: Ino = Ino(NonZeroU64::MIN);

    /// The inode number `raw`, or `None` for zero.
    pub fn new(raw: u64) -> Option<Ino> {
        NonZeroU64::new(raw).map(Ino)
    }

    /// The plain number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
