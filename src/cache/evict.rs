//! Giving clean blocks back.
//!
//! The order: files of earlier processes, oldest first; then blocks that this process used, least recently used first.
//! Spared are pinned files, held ones, and blocks that are being read or written right now. While a scan is under way, the
//! next shard is scanned here before used blocks are touched, so that the first writer after a start is never refused for
//! want of knowledge.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::{CacheFile, Meta};
use super::layout::FileKey;
use super::recency::Cold;
use super::shared::Shared;
use crate::error::Result;
use crate::space::Evict;
use crate::sys::locked;

/// What became of a block that was to go.
enum Outcome {
    Freed(u64),
    /// In use; it stays.
    Busy,
}

impl Evict for Shared {
    fn evict(&self, bytes: u64) -> u64 {
        let (mut freed, mut spared) = (0, 0);
        while freed < bytes {
            if let Some(cold) = self.recency.pop_cold() {
                freed += self.evict_cold(cold, bytes - freed);
                continue;
            }
            if self.scan_next() {
                continue;
            }
            let Some((key, block)) = self.recency.pop_used() else { break };
            match self.evict_used(key, block) {
                Outcome::Freed(gone) => freed += gone,
                Outcome::Busy => {
                    self.recency.touch(key, [block]);
                    spared += 1;
                    // Everything left was looked at once and is in use.
                    if spared >= self.recency.used_len() {
                        break;
                    }
                }
            }
        }
        self.counters.evicted_bytes.fetch_add(freed, Ordering::Relaxed);
        freed
    }
}

impl Shared {
    fn evict_used(&self, key: FileKey, block: u32) -> Outcome {
        if self.recency.is_pinned(key.ino) {
            return Outcome::Freed(0);
        }
        let evicted = self.obtain_key(key).and_then(|file| {
            let Some(file) = file else { return Ok(Outcome::Freed(0)) };
            let outcome = file.evict_block(block);
            self.keep_victim(file);
            outcome
        });
        evicted.unwrap_or_else(|error| {
            tracing::warn!(ino = %key.ino, "evict from the cache: {error}");
            Outcome::Freed(0)
        })
    }

    /// Evicts blocks of a file that this process did not use, up to `bytes`. What is left stays cold.
    fn evict_cold(&self, cold: Cold, bytes: u64) -> u64 {
        let (_, key) = cold;
        if self.recency.is_pinned(key.ino) {
            return 0;
        }
        let file = match self.obtain_key(key) {
            Ok(Some(file)) => file,
            Ok(None) => return 0,
            Err(error) => {
                tracing::warn!(ino = %key.ino, "evict from the cache: {error}");
                return 0;
            }
        };
        let mut freed = 0;
        for block in file.block_numbers() {
            if freed >= bytes {
                self.recency.push_cold(cold);
                break;
            }
            if self.recency.is_used(key, block) {
                continue;
            }
            match file.evict_block(block) {
                Ok(Outcome::Freed(gone)) => freed += gone,
                // In use now, so it is no longer cold.
                Ok(Outcome::Busy) => self.recency.touch(key, [block]),
                Err(error) => tracing::warn!(ino = %key.ino, "evict from the cache: {error}"),
            }
        }
        self.keep_victim(file);
        freed
    }

    /// Keeps `file` open for the next eviction.
    fn keep_victim(&self, file: Arc<CacheFile>) {
        let last = locked(&self.last_victim).replace(file);
        // Dropping it may close it: after the lock.
        drop(last);
    }
}

impl CacheFile {
    /// The blocks that have present pieces, in order.
    pub(super) fn block_numbers(&self) -> Vec<u32> {
        let meta = locked(&self.meta);
        meta.blocks.iter().filter(|(_, state)| state.record.mask != 0).map(|(block, _)| *block).collect()
    }

    fn evict_block(self: &Arc<Self>, block: u32) -> Result<Outcome> {
        let Some(mut meta) = self.live()? else { return Ok(Outcome::Freed(0)) };
        let Some(state) = meta.blocks.get(&block).copied() else { return Ok(Outcome::Freed(0)) };
        if state.readers > 0 || state.moving != 0 || is_held(&meta) {
            return Ok(Outcome::Busy);
        }
        let mask = state.record.mask;
        if meta.moving == 0 && meta.blocks.iter().all(|(other, state)| *other == block || state.record.mask == 0) {
            return Ok(Outcome::Freed(self.remove_pair(&mut meta)));
        }
        if mask == 0 {
            return Ok(Outcome::Freed(0));
        }
        self.withdraw(&mut meta, block, mask);
        drop(meta);
        Ok(Outcome::Freed(self.punch_moving(block, mask)))
    }

    /// Removes the pair where it holds nothing: a crash came between making it and the first record.
    pub(super) fn remove_if_empty(&self) -> Result<()> {
        if let Some(mut meta) = self.live()?
            && meta.is_idle_and_empty()
            && !is_held(&meta)
        {
            self.remove_pair(&mut meta);
        }
        Ok(())
    }
}

fn is_held(meta: &Meta) -> bool {
    meta.files.as_ref().is_some_and(|files| files.data.holds.load(Ordering::Acquire) > 0)
}
