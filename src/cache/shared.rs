//! What all cached files have in common: where they lie, which are open, what they count.
//!
//! `open` is held for the map alone, with one exception: leftovers without an owner are removed under it, so that nobody
//! becomes their owner meanwhile.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::file::{CacheFile, Phase};
use super::layout::{self, FileKey, Header, Part};
use super::ledger::Ledger;
use super::recency::Recency;
use crate::error::{Context, Result};
use crate::sys::{Disk, Open, locked};

/// Bytes that hold most headers; longer versions cost a second read.
const HEADER_READ: usize = 512;

pub(super) struct Shared {
    pub me: Weak<Shared>,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub ledger: Arc<Ledger>,
    pub recency: Recency,
    pub counters: Counters,
    /// The next shard that nobody scans yet; 256 and more when all are taken.
    pub next_shard: AtomicU32,
    /// Shards that were scanned whole.
    pub shards_done: AtomicU32,
    /// The file that eviction last took a block of, kept open: the next block is mostly of the same one, and loading a
    /// large index for each MiB would cost more than the punch. Emptied when the cache closes.
    pub last_victim: Mutex<Option<Arc<CacheFile>>>,
    open: Mutex<HashMap<FileKey, Weak<CacheFile>>>,
    claims: Mutex<Option<Claims>>,
    /// What each shard's directory is charged; 0 before it was looked at.
    shard_charges: Mutex<[u64; 256]>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub files: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub bad_pieces: AtomicU64,
    pub torn_records: AtomicU64,
    pub leftovers: AtomicU64,
    pub evicted_bytes: AtomicU64,
}

/// Which of the bytes that the saved total stands for have been met on disk, until a scan has met them all.
struct Claims {
    total: u64,
    /// At most `total`.
    met: u64,
    files: HashSet<FileKey>,
}

impl Claims {
    /// Meets `bytes` on disk; returns how many of them the total does not stand for, which are to be charged now.
    ///
    /// There are such after a power cut that brought back what was removed or punched: some file systems order those apart
    /// from a sync of the total.
    fn meet(&mut self, bytes: u64) -> u64 {
        let covered = bytes.min(self.total - self.met);
        self.met += covered;
        bytes - covered
    }
}

/// What an index file turns out to be.
enum Found {
    Nothing,
    Rubbish,
    Index(Header),
}

/// `None` for "not there", so that it is never mistaken for a failure.
pub(super) fn absent<T>(outcome: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, ledger: Arc<Ledger>) -> Arc<Shared> {
        let claims = Claims { total: ledger.charged(), met: 0, files: HashSet::new() };
        Arc::new_cyclic(|me| Shared {
            me: me.clone(),
            disk,
            dir,
            ledger,
            recency: Recency::new(),
            counters: Counters::default(),
            next_shard: AtomicU32::new(0),
            shards_done: AtomicU32::new(0),
            last_victim: Mutex::new(None),
            open: Mutex::default(),
            claims: Mutex::new(Some(claims)),
            shard_charges: Mutex::new([0; 256]),
        })
    }

    pub fn shard_dir(&self, shard: u8) -> PathBuf {
        self.dir.join(layout::shard_name(shard))
    }

    pub fn path(&self, key: FileKey, part: Part) -> PathBuf {
        self.shard_dir(key.shard()).join(key.file_name(part))
    }

    /// The one object for a version; made where there is none. Loaded, and not in a change.
    pub fn obtain(&self, header: &Header) -> Result<Arc<CacheFile>> {
        let key = FileKey::new(header.ino, &header.version);
        loop {
            let file = self.enter(key, || CacheFile::new(self.arc(), header.clone(), Phase::Asleep));
            if file.live()?.is_none() {
                self.leave(&file);
            } else if file.header == *header {
                return Ok(file);
            } else {
                // Another version with the same tag, or another size: it cannot stay beside this one.
                self.remove(&file)?;
            }
        }
    }

    /// The object for a key, made from what is on disk; `None` where that is nothing. Leftovers are removed on the way.
    pub fn obtain_key(&self, key: FileKey) -> Result<Option<Arc<CacheFile>>> {
        let known = locked(&self.open).get(&key).and_then(Weak::upgrade);
        if let Some(file) = known
            && file.live()?.is_some()
        {
            return Ok(Some(file));
        }
        match self.read_header(key).context("read an index of the cache")? {
            Found::Index(header) => self.obtain(&header).map(Some),
            Found::Rubbish => {
                self.discard_unowned(key);
                Ok(None)
            }
            // The usual answer for what is not cached: no more than the one system call.
            Found::Nothing => Ok(None),
        }
    }

    /// Removes a file, its pair, and what is remembered of both. Readers of it fail over.
    pub fn remove(&self, file: &CacheFile) -> Result<()> {
        if let Some(mut meta) = file.begin_change()? {
            let blocks: Vec<u32> = meta.blocks.keys().copied().collect();
            file.remove_pair(&mut meta);
            file.end_change(meta, Phase::Gone);
            self.recency.forget(file.key, blocks);
        }
        self.leave(file);
        Ok(())
    }

    /// Enters `fresh()` under `key`, or returns who is there already.
    fn enter(&self, key: FileKey, fresh: impl FnOnce() -> Arc<CacheFile>) -> Arc<CacheFile> {
        let mut open = locked(&self.open);
        match open.get(&key).and_then(Weak::upgrade) {
            Some(file) => file,
            None => {
                let file = fresh();
                open.insert(key, Arc::downgrade(&file));
                file
            }
        }
    }

    /// Enters `file`, which is `Changing`, in place of whoever is there, and removes what the disk holds under its key.
    pub fn displace(&self, file: &Arc<CacheFile>) -> Result<()> {
        let old = locked(&self.open).insert(file.key, Arc::downgrade(file)).and_then(|old| old.upgrade());
        let clear = || -> Result<()> {
            if let Some(old) = old {
                self.remove(&old)?;
            }
            // Nobody else looks at the pair from here on: what is left of it had no object in memory.
            match self.read_header(file.key).context("read an index of the cache")? {
                Found::Index(header) => self.remove(&CacheFile::new(self.arc(), header, Phase::Asleep))?,
                Found::Rubbish | Found::Nothing => self.discard(file.key, "it has no usable index"),
            }
            Ok(())
        };
        clear().inspect_err(|_| {
            file.end_change(locked(&file.meta), Phase::Gone);
            self.leave(file);
        })
    }

    /// Takes `file` out of the map, where it is still the one in it.
    pub fn leave(&self, file: &CacheFile) {
        let mut open = locked(&self.open);
        if open.get(&file.key).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), file)) {
            open.remove(&file.key);
        }
    }

    /// Takes the entry of an object that is being dropped out of the map.
    pub fn closed(&self, key: FileKey) {
        let mut open = locked(&self.open);
        if open.get(&key).is_some_and(|entry| entry.strong_count() == 0) {
            open.remove(&key);
        }
    }

    pub fn arc(&self) -> Arc<Shared> {
        self.me.upgrade().expect("`self` is only ever reached through an Arc")
    }

    fn read_header(&self, key: FileKey) -> std::io::Result<Found> {
        let Some(index) = absent(self.disk.open(&self.path(key, Part::Index), Open::Existing))? else {
            return Ok(Found::Nothing);
        };
        let mut bytes = vec![0; HEADER_READ];
        let mut read = index.read_at(&mut bytes, 0)?;
        let mut header = Header::decode(&bytes[..read]);
        if header.is_none() && read == HEADER_READ {
            bytes.resize(layout::records_at(Header::VERSION_MAX) as usize, 0);
            read = index.read_at(&mut bytes, 0)?;
            header = Header::decode(&bytes[..read]);
        }
        let named = header.filter(|header| FileKey::new(header.ino, &header.version) == key);
        Ok(named.map_or(Found::Rubbish, Found::Index))
    }

    /// Makes the directory of a shard, and charges it.
    pub fn make_shard(&self, shard: u8) -> Result<()> {
        if locked(&self.shard_charges)[usize::from(shard)] == 0 {
            self.meet_shard(shard);
            self.disk.make_dirs(&self.shard_dir(shard)).context("make a directory of the cache")?;
        }
        Ok(())
    }

    /// Charges what the directory of a shard grew; directories grow a block at a time and rarely shrink.
    fn charge_shard(&self, shard: u8) {
        let Ok(stat) = self.disk.stat(&self.shard_dir(shard)) else { return };
        let mut charges = locked(&self.shard_charges);
        let grown = stat.allocated.saturating_sub(charges[usize::from(shard)]);
        charges[usize::from(shard)] += grown;
        drop(charges);
        self.ledger.occupied(grown);
    }

    /// Notes that the directory of a shard, left by an earlier process, takes some of the saved total.
    pub fn meet_shard(&self, shard: u8) {
        let Some(stat) = absent(self.disk.stat(&self.shard_dir(shard))).ok().flatten() else { return };
        let mut charges = locked(&self.shard_charges);
        if charges[usize::from(shard)] == 0 {
            charges[usize::from(shard)] = stat.allocated;
            drop(charges);
            self.meet(stat.allocated);
        }
    }

    /// Counts a pair that was just made.
    pub fn created(&self, key: FileKey) {
        self.claim(key, 0);
        self.counters.files.fetch_add(1, Ordering::Relaxed);
        self.charge_shard(key.shard());
    }

    /// Counts a pair that was just removed.
    pub fn removed(&self) {
        self.counters.files.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that a pair from an earlier process takes `bytes` of the saved total. Once a pair; nothing after the scan.
    pub fn claim(&self, key: FileKey, bytes: u64) {
        let excess = {
            let mut claims = locked(&self.claims);
            let Some(open) = claims.as_mut() else { return };
            if !open.files.insert(key) {
                return;
            }
            open.meet(bytes)
        };
        if bytes > 0 {
            self.counters.files.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.occupied(excess);
    }

    fn meet(&self, bytes: u64) {
        let excess = locked(&self.claims).as_mut().map_or(0, |open| open.meet(bytes));
        self.ledger.occupied(excess);
    }

    /// Ends the claims: what the saved total stood for and nobody met is not there.
    pub fn end_claims(&self) {
        let Some(claims) = locked(&self.claims).take() else { return };
        self.ledger.release(claims.total - claims.met);
        if let Err(error) = self.ledger.settle() {
            tracing::warn!("{error}");
        }
    }

    /// Whether a scan has met every file.
    pub fn is_scanned(&self) -> bool {
        locked(&self.claims).is_none()
    }

    /// Removes both files of a pair, where they are there.
    pub fn remove_paths(&self, key: FileKey) -> bool {
        let mut any = false;
        for part in [Part::Data, Part::Index] {
            match absent(self.disk.remove(&self.path(key, part))) {
                Ok(removed) => any |= removed.is_some(),
                Err(error) => tracing::warn!(ino = %key.ino, "remove a file of the cache: {error}"),
            }
        }
        any
    }

    /// Removes a pair that cannot be used, and says why. The caller owns the key.
    pub fn discard(&self, key: FileKey, why: &str) {
        if self.remove_paths(key) {
            tracing::info!(ino = %key.ino, "removed a leftover of the cache: {why}");
            self.counters.leftovers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes a pair that cannot be used and that nobody owns.
    pub fn discard_unowned(&self, key: FileKey) {
        let open = locked(&self.open);
        if open.get(&key).is_none_or(|entry| entry.strong_count() == 0) {
            self.discard(key, "it has no usable index");
        }
    }
}
