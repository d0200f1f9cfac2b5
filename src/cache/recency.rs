//! Which blocks go first.
//!
//! Blocks used by this process are in a list, least recently used first, one entry of 16 bytes (about 80 with the list's
//! own) for 1 MiB. Files that a scan found from earlier processes are *cold*: one entry of 24 bytes for a file, oldest
//! change of its index first (which a process touches when it is done with a file). Cold files go before used blocks;
//! a block of a cold file that was used since is in the list and is spared.
//!
//! Pinned files are in neither for long: an entry of one is dropped when eviction meets it, and comes back as a cold file
//! when the pin goes. Each lock here is a leaf: nothing else is locked while it is held.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};

use lru::LruCache;

use super::layout::FileKey;
use crate::model::Ino;
use crate::sys::locked;

/// A block of a file, packed into 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct BlockKey {
    ino: Ino,
    tag: u32,
    block: u32,
}

impl BlockKey {
    fn new(key: FileKey, block: u32) -> Self {
        BlockKey { ino: key.ino, tag: key.tag, block }
    }
}

/// A file of an earlier process: when its index last changed, and whose it is.
pub(super) type Cold = (i64, FileKey);

pub(super) struct Recency {
    used: Mutex<LruCache<BlockKey, ()>>,
    cold: Mutex<BinaryHeap<Reverse<Cold>>>,
    pinned: RwLock<HashSet<Ino>>,
}

impl Recency {
    pub fn new() -> Self {
        Recency { used: Mutex::new(LruCache::unbounded()), cold: Mutex::default(), pinned: RwLock::default() }
    }

    /// Makes `blocks` of a file the last to go.
    pub fn touch(&self, key: FileKey, blocks: impl IntoIterator<Item = u32>) {
        let mut used = locked(&self.used);
        for block in blocks {
            used.put(BlockKey::new(key, block), ());
        }
    }

    /// Forgets `blocks` of a file that has left.
    pub fn forget(&self, key: FileKey, blocks: impl IntoIterator<Item = u32>) {
        let mut used = locked(&self.used);
        for block in blocks {
            used.pop(&BlockKey::new(key, block));
        }
    }

    /// Whether this process used the block.
    pub fn is_used(&self, key: FileKey, block: u32) -> bool {
        locked(&self.used).contains(&BlockKey::new(key, block))
    }

    pub fn push_cold(&self, cold: Cold) {
        locked(&self.cold).push(Reverse(cold));
    }

    pub fn pop_cold(&self) -> Option<Cold> {
        locked(&self.cold).pop().map(|Reverse(cold)| cold)
    }

    /// Takes out the least recently used block.
    pub fn pop_used(&self) -> Option<(FileKey, u32)> {
        let (key, ()) = locked(&self.used).pop_lru()?;
        Some((FileKey { ino: key.ino, tag: key.tag }, key.block))
    }

    /// How many used blocks there are.
    pub fn used_len(&self) -> usize {
        locked(&self.used).len()
    }

    pub fn is_pinned(&self, ino: Ino) -> bool {
        self.pinned.read().unwrap_or_else(PoisonError::into_inner).contains(&ino)
    }

    /// Replaces the pinned set; returns the inodes that were in it and are no longer.
    pub fn set_pinned(&self, pinned: HashSet<Ino>) -> Vec<Ino> {
        let mut current = self.pinned.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, pinned);
        old.into_iter().filter(|ino| !current.contains(ino)).collect()
    }

    /// Adds to the pinned set.
    pub fn pin(&self, ino: Ino) {
        self.pinned.write().unwrap_or_else(PoisonError::into_inner).insert(ino);
    }

    /// Takes out of the pinned set; returns whether it was in.
    pub fn unpin(&self, ino: Ino) -> bool {
        self.pinned.write().unwrap_or_else(PoisonError::into_inner).remove(&ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ino: u64) -> FileKey {
        FileKey { ino: Ino::new(ino).unwrap(), tag: 0 }
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let recency = Recency::new();
        recency.touch(key(1), 0..3);
        recency.touch(key(1), [0]);
        recency.forget(key(1), [2]);
        assert_eq!(recency.pop_used(), Some((key(1), 1)));
        assert_eq!(recency.pop_used(), Some((key(1), 0)));
        assert_eq!(recency.pop_used(), None);
    }

    #[test]
    fn the_oldest_cold_file_goes_first() {
        let recency = Recency::new();
        for age in [5, 1, 9] {
            recency.push_cold((age, key(age as u64)));
        }
        let order: Vec<i64> = std::iter::from_fn(|| recency.pop_cold()).map(|cold| cold.0).collect();
        assert_eq!(order, [1, 5, 9]);
    }

    #[test]
    fn replacing_the_pins_tells_which_went() {
        let recency = Recency::new();
        recency.pin(key(1).ino);
        recency.pin(key(2).ino);
        assert_eq!(recency.set_pinned(HashSet::from([key(2).ino, key(3).ino])), [key(1).ino]);
        assert!(recency.is_pinned(key(3).ino) && !recency.is_pinned(key(1).ino));
    }
}
