//! Clean blocks of known versions. Everything here may vanish at any instant, and nobody loses anything.
//!
//! The cache knows inodes and versions, never a name and never the network. A version is part of every key, so a stale byte
//! cannot be served by mistake; every piece of 64 KiB has a checksum, so neither can a rotten one.
//!
//! | file | what lives there |
//! |---|---|
//! | `layout` | names and records on disk, pure |
//! | `ledger` | what the cache is charged, and the total that the next process starts from |
//! | `recency` | which blocks go first |
//! | `shared` | the map of open files, and what they have in common |
//! | `file` | one version of one file; the rules of locking |
//! | `read`, `store`, `evict` | the three things done to its pieces |
//! | `handover` | files that leave or join whole: the journal's door |
//! | `scan` | what earlier processes left |
//!
//! The formats are in `doc/storage.md`. All calls block on the local disk, and on nothing else.

mod evict;
mod file;
mod handover;
mod layout;
mod ledger;
mod read;
mod recency;
mod scan;
mod shared;
mod store;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use lru::LruCache;

pub use file::{CacheFile, Hold};
pub use handover::Taken;
pub use layout::{BLOCK, PIECE};
pub use scan::Report;
pub use store::Stored;

use crate::error::{Context, Error, Kind, Result};
use crate::model::{Ino, Version};
use crate::space::{Evict, Space};
use crate::sys::{Disk, locked};
use ledger::Ledger;
use shared::Shared;

/// Files that stay open and loaded after their last user let go: so many times two descriptors, below the usual limit of
/// 1,024 a process. When it is full, the longest unused one is closed; reopening it costs four system calls and one
/// checksum of each piece.
const WARM_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// The cache of one drive.
pub struct Cache {
    shared: Arc<Shared>,
    warm: Mutex<LruCache<layout::FileKey, Arc<CacheFile>>>,
}

/// Counts since the start, but for `bytes` and `files`, which are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes charged at the [`Space`]. Until the scan is done this may be too much, never too little.
    pub bytes: u64,
    /// Versions of files with something cached. Until the scan is done, those met so far.
    pub files: u64,
    /// Reads that found every piece, and those that did not.
    pub hits: u64,
    pub misses: u64,
    /// Pieces that did not match their checksum, or that the disk could not read.
    pub bad_pieces: u64,
    /// Records of the index that were torn by a crash.
    pub torn_records: u64,
    /// Files that did not parse and were removed.
    pub leftovers: u64,
    pub evicted_bytes: u64,
}

impl Cache {
    /// Opens the cache in `dir`, making it where it is absent, and registers it as the evictor of `space`.
    ///
    /// Returns at once: what is there counts as the total that the last process saved, which is never too low. Run
    /// [`Cache::scan`] on a thread afterwards. Only where no total was saved are all files looked at here.
    ///
    /// * One process a directory: the caller holds the drive's lock.
    /// * [`Kind::Disk`], [`Kind::NoSpace`] and others of the disk: the directory cannot be used.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, space: Arc<Space>) -> Result<Arc<Cache>> {
        disk.make_dirs(&dir).context("make the directory of the cache")?;
        let ledger = Ledger::open(disk.clone(), &dir, space.clone(), || scan::count(&disk, &dir))?;
        let shared = Shared::new(disk, dir, ledger);
        let evictor: Weak<dyn Evict> = shared.me.clone();
        space.set_evictor(evictor);
        Ok(Arc::new(Cache { shared, warm: Mutex::new(LruCache::new(WARM_MAX)) }))
    }

    /// The cache of one version, `size` bytes long. Nothing is written to disk before the first piece is stored.
    ///
    /// * The same object for the same version, as long as anybody holds it.
    /// * What was cached of the same version with another size is dropped.
    /// * [`Kind::TooLarge`]: above 2 PiB. [`Kind::Invalid`]: a version that is empty or longer than 64 KiB.
    ///   [`Kind::Disk`]: its index could not be read.
    pub fn file(&self, ino: Ino, version: &Version, size: u64) -> Result<Arc<CacheFile>> {
        let file = self.shared.obtain(&header(ino, version, size)?)?;
        self.remember(&file);
        Ok(file)
    }

    /// The cache of one version where something of it is present.
    pub fn lookup(&self, ino: Ino, version: &Version) -> Option<Arc<CacheFile>> {
        match self.shared.obtain_key(layout::FileKey::new(ino, version)) {
            Ok(file) => {
                let file = file.filter(|file| file.version() == version && file.present_bytes() > 0)?;
                self.remember(&file);
                Some(file)
            }
            Err(error) => {
                tracing::warn!(%ino, "look into the cache: {error}");
                None
            }
        }
    }

    /// Replaces the set of inodes that are never evicted.
    pub fn set_pinned(&self, pinned: HashSet<Ino>) -> Result<()> {
        self.shared.recency.set_pinned(pinned).into_iter().try_for_each(|ino| self.shared.meet_inode(ino))
    }

    /// Saves an inode from eviction.
    pub fn pin(&self, ino: Ino) {
        self.shared.recency.pin(ino);
    }

    /// Lets an inode be evicted again.
    pub fn unpin(&self, ino: Ino) -> Result<()> {
        if self.shared.recency.unpin(ino) { self.shared.meet_inode(ino) } else { Ok(()) }
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let [files, hits, misses, bad_pieces, torn_records, leftovers, evicted_bytes] = [
            &counters.files,
            &counters.hits,
            &counters.misses,
            &counters.bad_pieces,
            &counters.torn_records,
            &counters.leftovers,
            &counters.evicted_bytes,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        let bytes = self.shared.ledger.charged();
        Stats { bytes, files, hits, misses, bad_pieces, torn_records, leftovers, evicted_bytes }
    }

    /// Keeps a file open for a while.
    fn remember(&self, file: &Arc<CacheFile>) {
        let mut warm = locked(&self.warm);
        let cooled = warm.push(file.key, file.clone());
        // Dropping one may close it and write to its index: after the lock.
        drop(warm);
        drop(cooled);
    }

    /// Lets go of a file that has left.
    fn forget(&self, file: &CacheFile) {
        let mut warm = locked(&self.warm);
        let left = if warm.peek(&file.key).is_some_and(|warm| std::ptr::eq(&**warm, file)) {
            warm.pop(&file.key)
        } else {
            None
        };
        drop(warm);
        drop(left);
        self.shared.leave(file);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let victim = locked(&self.shared.last_victim).take();
        drop(victim);
        if let Err(error) = self.shared.ledger.settle() {
            tracing::warn!("{error}");
        }
    }
}

/// The header of a version's index, where the cache can hold that version.
fn header(ino: Ino, version: &Version, size: u64) -> Result<layout::Header> {
    if size > layout::SIZE_MAX {
        return Err(Error::new(Kind::TooLarge, format!("inode {ino} has {size} bytes, more than the cache can hold")));
    }
    let len = version.as_str().len();
    if len == 0 || len > layout::Header::VERSION_MAX {
        return Err(Error::new(Kind::Invalid, format!("the version of inode {ino} is {len} bytes long")));
    }
    Ok(layout::Header { ino, size, version: version.clone() })
}
