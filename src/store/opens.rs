//! Which inodes are open on the mount. In memory: a new worker learns a handle again when the kernel first uses it.

use super::lock;
use crate::model::Ino;
use std::collections::HashMap;
use std::sync::Mutex;

/// How often an inode is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    pub readers: u32,
    /// Handles that may write.
    pub writers: u32,
}

impl OpenCounts {
    /// Whether nothing is open.
    pub fn is_closed(self) -> bool {
        self.readers == 0 && self.writers == 0
    }
}

/// The table of open inodes.
#[derive(Default)]
pub struct Opens {
    counts: Mutex<HashMap<Ino, OpenCounts>>,
}

impl Opens {
    /// Counts one more handle.
    pub fn opened(&self, ino: Ino, writes: bool) {
        let mut counts = lock(&self.counts);
        let count = counts.entry(ino).or_default();
        if writes { count.writers += 1 } else { count.readers += 1 }
    }

    /// Counts one handle less; returns what is left.
    pub fn closed(&self, ino: Ino, writes: bool) -> OpenCounts {
        let mut counts = lock(&self.counts);
        let Some(count) = counts.get_mut(&ino) else { return OpenCounts::default() };
        if writes { count.writers = count.writers.saturating_sub(1) } else { count.readers = count.readers.saturating_sub(1) }
        let left = *count;
        if left.is_closed() {
            counts.remove(&ino);
        }
        left
    }

    /// How often `ino` is open.
    pub fn get(&self, ino: Ino) -> OpenCounts {
        lock(&self.counts).get(&ino).copied().unwrap_or_default()
    }
}
