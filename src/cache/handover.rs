//! Files that leave the cache or join it whole: removed, taken into the journal, adopted from it, renamed.
//!
//! Whatever the order of a crash, a pair is only used when both files are there, the index names this inode and version,
//! and each piece matches its checksum. So each of these may stop anywhere: at worst clean bytes are fetched again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::file::{Block, CacheFile, Data, Files, Meta, Phase};
use super::layout::{self, PIECE, Part, Record};
use super::read::{Which, sum_of};
use super::{Cache, header};
use crate::error::{Context, Result};
use crate::model::{Ino, RangeSet, Version};
use crate::sys::{DiskFile, locked};

/// Up to this size a file is checked as a whole when it leaves for the journal, bytes.
const CHECKED_BYTES: u64 = 64 << 20;

/// A data file that now belongs to the journal.
pub struct Taken {
    /// Open, at its new path.
    pub file: Arc<dyn DiskFile>,
    /// Bytes that are present and match their checksum. All others are undefined.
    pub present: RangeSet,
    /// What the file is charged at the [`crate::space::Space`]. The journal owes it from now on.
    pub allocated: u64,
}

impl Cache {
    /// Gives the data of a version to the journal, without a copy: renames the file to `to` and forgets it.
    ///
    /// * `None`: nothing of it is present; nothing was changed.
    /// * What a program writes is sent together with the rest, so that is checked first: all of it up to 64 MiB, of more only what
    ///   this process has not checked yet. It takes as long as the disk takes to read that.
    /// * Not durable: whoever acknowledges writes into it syncs the file and both directories first.
    /// * Holders of the [`CacheFile`] see everything missing, and no store of theirs runs on when this returns.
    /// * [`crate::error::Kind::Disk`] and others of rename(2), for one when `to` is on another file system: the cache is
    ///   as before.
    pub fn take(&self, ino: Ino, version: &Version, to: &Path) -> Result<Option<Taken>> {
        let Some(file) = self.lookup(ino, version) else { return Ok(None) };
        file.check(if file.present_bytes() <= CHECKED_BYTES { Which::Every } else { Which::Unchecked })?;
        let Some(mut meta) = file.begin_change()? else { return Ok(None) };
        let present = file.checked(&meta);
        let Some(files) = meta.files.clone().filter(|_| !present.is_empty()) else {
            file.end_change(meta, Phase::Live);
            return Ok(None);
        };
        if let Err(error) = self.shared.disk.rename(&self.shared.path(file.key, Part::Data), to) {
            file.end_change(meta, Phase::Live);
            return Err(error).context(format_args!("take the cached data of inode {ino} into the journal"));
        }
        let blocks: Vec<u32> = meta.blocks.keys().copied().collect();
        let allocated = meta.empty();
        meta.files = None;
        self.shared.remove_paths(file.key);
        self.shared.removed();
        self.shared.ledger.release(file.index_charge());
        self.shared.ledger.hand_over(allocated);
        file.end_change(meta, Phase::Gone);
        self.shared.recency.forget(file.key, blocks);
        self.forget(&file);
        Ok(Some(Taken { file: files.data.file.clone(), present, allocated }))
    }

    /// Makes a file of the journal, whose upload was confirmed, the cache of the new version: sums it, renames it in.
    ///
    /// * `file` is what is open at `from`; nobody writes to it any more. `size` is that of the version.
    /// * `present`: the bytes that are right. Pieces that it covers whole are kept, the rest is punched.
    /// * `held`: what the caller is charged for the file at the [`crate::space::Space`]. On success that charge has passed
    ///   to the cache; on an error it stays the caller's, as does the file at `from`.
    /// * Reads the whole file once, and blocks for that long. Replaces what was cached under the same version.
    /// * Order: the index with all sums is written, then the data is renamed. A crash between leaves an index without
    ///   data, which is removed, and the file in the journal. Not synced: it is clean by now. Who must not meet the
    ///   staging file again after a power cut syncs its directory.
    #[allow(clippy::too_many_arguments, reason = "a file, whose it is, and what is known of it; all of it once")]
    pub fn adopt(
        &self,
        from: &Path,
        ino: Ino,
        version: &Version,
        size: u64,
        file: Arc<dyn DiskFile>,
        present: RangeSet,
        held: u64,
    ) -> Result<Arc<CacheFile>> {
        let adopted = CacheFile::new(self.shared.clone(), header(ino, version, size)?, Phase::Changing);
        let mut arriving = Meta::new(Phase::Changing);
        adopted.sum_up(&mut arriving, &*file, &present)?;
        if arriving.present == 0 {
            self.shared.disk.remove(from).context(format_args!("drop the staging file of inode {ino}"))?;
            self.shared.ledger.take_over(held, 0);
            return self.file(ino, version, size);
        }
        self.shared.displace(&adopted)?;
        let mut meta = locked(&adopted.meta);
        if let Err(error) = self.move_in(&adopted, &mut arriving, from, file) {
            let _ = self.shared.disk.remove(&self.shared.path(adopted.key, Part::Index));
            adopted.end_change(meta, Phase::Gone);
            self.shared.leave(&adopted);
            return Err(error.context(format_args!("make the upload of inode {ino} cache")));
        }
        self.shared.ledger.take_over(held, arriving.charge + adopted.index_charge());
        *meta = arriving;
        adopted.end_change(meta, Phase::Live);
        self.shared.created(adopted.key);
        self.shared.recency.touch(adopted.key, adopted.block_numbers());
        self.remember(&adopted);
        Ok(adopted)
    }

    /// Writes the index of an adopted file, and renames the data in.
    fn move_in(&self, adopted: &CacheFile, arriving: &mut Meta, from: &Path, file: Arc<dyn DiskFile>) -> Result<()> {
        self.shared.make_shard(adopted.key.shard())?;
        let index = adopted.new_index().context("write the index")?;
        let data = Data::new(file, self.shared.ledger.clone());
        arriving.files = Some(Files { data: data.clone(), index });
        for block in arriving.blocks.keys() {
            adopted.write_record(arriving, *block).context("write the index")?;
        }
        if data.file.stat().context("look at the data")?.size != adopted.size() {
            data.file.set_len(adopted.size()).context("size the data")?;
        }
        adopted.punch_unnamed(arriving);
        self.shared.disk.rename(from, &self.shared.path(adopted.key, Part::Data)).context("rename the data")
    }

    /// Drops every cached version of an inode but `keep`. Readers of them fail over.
    pub fn remove(&self, ino: Ino, keep: Option<&Version>) -> Result<()> {
        for key in self.shared.keys(ino.get() as u8)?.into_iter().filter(|key| key.ino == ino) {
            if let Some(file) = self.shared.obtain_key(key)?
                && keep != Some(file.version())
            {
                self.shared.remove(&file)?;
                self.forget(&file);
            }
        }
        Ok(())
    }

    /// Moves what is cached under `old` to `new`, for a provider whose tag changed and whose content did not.
    ///
    /// False where nothing was cached under `old`, or something already under `new` (then `old` is dropped).
    pub fn rename_version(&self, ino: Ino, old: &Version, new: &Version) -> Result<bool> {
        let Some(file) = self.lookup(ino, old).filter(|_| old != new) else { return Ok(false) };
        let renamed = CacheFile::new(self.shared.clone(), header(ino, new, file.size())?, Phase::Changing);
        // Another version with the same tag has the same two names, so there is no way from one to the other.
        if renamed.key == file.key || self.lookup(ino, new).is_some() {
            self.shared.remove(&file)?;
            self.forget(&file);
            return Ok(false);
        }
        self.shared.displace(&renamed)?;
        let moved = self.rename_pair(&file, &renamed);
        let phase = if matches!(moved, Ok(true)) { Phase::Live } else { Phase::Gone };
        let mut meta = locked(&renamed.meta);
        meta.phase = phase;
        let blocks: Vec<u32> = meta.blocks.keys().copied().collect();
        drop(meta);
        renamed.settled.notify_all();
        if phase == Phase::Gone {
            self.shared.leave(&renamed);
            return moved;
        }
        self.shared.recency.forget(file.key, blocks.iter().copied());
        self.shared.recency.touch(renamed.key, blocks);
        self.forget(&file);
        self.remember(&renamed);
        moved
    }

    /// Writes the new index, renames the data, removes the old index; false when the old file has left. Whoever
    /// asks for `renamed` meanwhile waits: it is `Changing`.
    fn rename_pair(&self, file: &CacheFile, renamed: &CacheFile) -> Result<bool> {
        let Some(mut meta) = file.begin_change()? else { return Ok(false) };
        let Some(files) = meta.files.clone() else {
            file.end_change(meta, Phase::Live);
            return Ok(false);
        };
        let mut arriving = Meta::new(Phase::Changing);
        arriving.blocks = meta.blocks.iter().map(|(block, state)| (*block, Block { readers: 0, ..*state })).collect();
        (arriving.present, arriving.charge) = (meta.present, meta.charge);
        let write = || -> Result<Files> {
            let index = renamed.new_index().context("write the index")?;
            Ok(Files { data: files.data.clone(), index })
        };
        let moved = write().and_then(|files| {
            arriving.files = Some(files);
            for block in arriving.blocks.keys() {
                renamed.write_record(&arriving, *block).context("write the index")?;
            }
            let (from, to) = (self.shared.path(file.key, Part::Data), self.shared.path(renamed.key, Part::Data));
            self.shared.disk.rename(&from, &to).context("rename the data")
        });
        if let Err(error) = moved {
            let _ = self.shared.disk.remove(&self.shared.path(renamed.key, Part::Index));
            file.end_change(meta, Phase::Live);
            return Err(error.context(format_args!("give the cache of inode {} its new version", file.ino())));
        }
        self.shared.remove_paths(file.key);
        self.shared.claim(renamed.key, 0);
        self.shared.ledger.occupied(renamed.index_charge());
        self.shared.ledger.release(file.index_charge());
        meta.empty();
        meta.files = None;
        file.end_change(meta, Phase::Gone);
        *locked(&renamed.meta) = arriving;
        Ok(true)
    }
}

impl CacheFile {
    /// The bytes of present and checked pieces.
    fn checked(&self, meta: &Meta) -> RangeSet {
        let states = meta.blocks.iter();
        let pieces = states.flat_map(|(block, state)| layout::pieces_in(*block, state.record.mask & state.checked));
        pieces.map(|piece| self.span(piece)).collect()
    }

    /// Sums the pieces of `data` that `present` covers whole, into `meta`.
    fn sum_up(&self, meta: &mut Meta, data: &dyn DiskFile, present: &RangeSet) -> Result<()> {
        let mut buf = Vec::with_capacity(PIECE as usize);
        let mut records: BTreeMap<u32, Record> = BTreeMap::new();
        for range in present.iter() {
            for piece in self.pieces_of(&range) {
                let span = self.span(piece);
                if !present.contains(span.clone()) {
                    continue;
                }
                let Some(sum) = sum_of(data, span, &mut buf)? else { continue };
                let (block, bit) = layout::place(piece);
                let record = records.entry(block).or_default();
                record.mask |= bit;
                record.sums[bit.trailing_zeros() as usize] = sum;
            }
        }
        for (block, record) in records {
            self.load_block(meta, block, record);
            meta.blocks.entry(block).or_default().checked = record.mask;
        }
        Ok(())
    }
}
