//! Meeting what earlier processes left: for the order of eviction, for the accounting, and for `fourwheel check`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Cache;
use super::layout::FileKey;
use super::read::Which;
use super::shared::Shared;
use crate::error::{Context, Result};
use crate::model::Ino;

const SHARDS: u32 = 256;

/// What [`Cache::verify`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Versions of files that were read.
    pub files: u64,
    /// Pieces that match their checksum.
    pub good_pieces: u64,
    /// Pieces that did not, and were dropped.
    pub bad_pieces: u64,
    /// Files that could not be read at all.
    pub failed_files: u64,
}

impl Cache {
    /// Looks at every file of the cache: fills the order of eviction, removes what does not parse, and brings the
    /// accounting down to what is there. For a background thread, once; the cache works before it and meanwhile.
    pub fn scan(&self) {
        while self.shared.scan_next() {}
    }

    /// Whether [`Cache::scan`] is done, by whomever.
    pub fn is_scanned(&self) -> bool {
        self.shared.is_scanned()
    }

    /// Reads every cached byte and compares it with its checksum; drops what differs.
    ///
    /// `progress` is called after each file with the counts so far; false from it ends the work early.
    pub fn verify(&self, mut progress: impl FnMut(&Report) -> bool) -> Result<Report> {
        let mut report = Report::default();
        for shard in 0..=u8::MAX {
            for key in self.shared.keys(shard)? {
                let checked = self.shared.obtain_key(key).and_then(|file| {
                    let Some(file) = file else { return Ok(None) };
                    let checked = file.check(Which::Every)?;
                    file.remove_if_empty()?;
                    Ok(Some(checked))
                });
                match checked {
                    Ok(None) => continue,
                    Ok(Some(checked)) => {
                        report.files += 1;
                        report.good_pieces += checked.good;
                        report.bad_pieces += checked.bad;
                    }
                    Err(error) => {
                        tracing::warn!(ino = %key.ino, "check the cache: {error}");
                        report.failed_files += 1;
                    }
                }
                if !progress(&report) {
                    return Ok(report);
                }
            }
        }
        Ok(report)
    }
}

impl Shared {
    /// Scans one shard that nobody scanned yet; false when there is none. Safe from several threads.
    pub fn scan_next(&self) -> bool {
        // Looked at first, so that an endless caller does not wrap the counter.
        if self.next_shard.load(Ordering::Acquire) >= SHARDS {
            return false;
        }
        let shard = self.next_shard.fetch_add(1, Ordering::AcqRel);
        if shard >= SHARDS {
            return false;
        }
        if let Err(error) = self.scan_shard(shard as u8) {
            tracing::warn!("scan the cache: {error}");
        }
        if self.shards_done.fetch_add(1, Ordering::AcqRel) + 1 == SHARDS {
            self.end_claims();
        }
        true
    }

    fn scan_shard(&self, shard: u8) -> Result<()> {
        self.meet_shard(shard);
        for key in self.keys(shard)? {
            if let Err(error) = self.meet_file(key) {
                tracing::warn!(ino = %key.ino, "scan the cache: {error}");
            }
        }
        Ok(())
    }

    /// Makes a file known to eviction.
    fn meet_file(&self, key: FileKey) -> Result<()> {
        let changed_ns = self.disk.stat(&self.path(key, super::layout::Part::Index)).map_or(0, |stat| stat.mtime_ns);
        let Some(file) = self.obtain_key(key)? else {
            self.discard_unowned(key);
            return Ok(());
        };
        file.remove_if_empty()?;
        if file.present_bytes() > 0 {
            self.recency.push_cold((changed_ns, key));
        }
        Ok(())
    }

    /// Makes the files of an inode that is no longer pinned known to eviction again.
    pub fn meet_inode(&self, ino: Ino) -> Result<()> {
        self.keys(ino.get() as u8)?.into_iter().filter(|key| key.ino == ino).try_for_each(|key| self.meet_file(key))
    }

    /// The keys in a shard, in order; what has no name of ours is removed.
    pub fn keys(&self, shard: u8) -> Result<BTreeSet<FileKey>> {
        let dir = self.shard_dir(shard);
        let mut keys = BTreeSet::new();
        for name in self.disk.list(&dir).context("list a directory of the cache")? {
            match FileKey::parse(&name) {
                Some((key, _)) if key.shard() == shard => {
                    keys.insert(key);
                }
                _ => {
                    if let Err(error) = self.disk.remove(&dir.join(&name)) {
                        tracing::warn!("remove {name:?} from the cache, where it does not belong: {error}");
                    } else {
                        self.counters.leftovers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(keys)
    }
}

/// What the cache takes by the disk's own count: for a start without a saved total.
pub(super) fn count(disk: &Arc<dyn crate::sys::Disk>, dir: &std::path::Path) -> Result<u64> {
    let mut total = 0;
    for shard in 0..=u8::MAX {
        let dir = dir.join(super::layout::shard_name(shard));
        let names = disk.list(&dir).context("list a directory of the cache")?;
        let paths = names.iter().map(|name| dir.join(name)).chain([dir.clone()]);
        total += paths.filter_map(|path| disk.stat(&path).ok()).map(|stat| stat.allocated).sum::<u64>();
    }
    Ok(total)
}
