//! One cached version of one file: what is present, and the pair of files that holds it.
//!
//! # Locks, and why a served byte is right
//! `meta` guards which pieces are present; it is held for memory, for the 72-byte record of a block, and for creating and
//! removing the pair, never while content is read or written. Around content there are counts instead:
//! * a reader raises `readers` of its blocks before its pread and lowers it after; eviction leaves such a block alone, so a
//!   hole is never punched under a read;
//! * who writes or punches pieces marks them `moving` first; a store of the same piece waits for that, a read sees them as
//!   missing, eviction leaves the block alone;
//! * a file that leaves (removed, taken into the journal, replaced) first becomes `Changing`: new reads and stores wait,
//!   running stores are waited for. Then it is `Gone`. A reader looks at the phase again *after* its pread and serves
//!   nothing when it changed, so bytes that the journal wrote into a taken file are never served as the old version.
//!
//! Data is written before its record, and a record is cleared before its data is punched. A crash in between leaves data
//! that no record names, which loading gives back; the other way round is caught by the checksums.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::layout::{self, BLOCK, FileKey, Header, PIECE, Part, RECORD, Record};
use super::ledger::Ledger;
use super::shared::{Shared, absent};
use crate::error::{Context, Result};
use crate::model::{Ino, Version};
use crate::sys::{DiskFile, Open, locked, waited};

/// Bytes of an index that are read at once while loading.
const LOAD_CHUNK: usize = 1024 * RECORD;
/// Bytes on disk that no record names and that are not worth a punch: extent tree blocks, rounding.
const ORPHANS_SPARED: u64 = 32 << 10;

/// One version of one file in the cache. Made by [`super::Cache::file`] and [`super::Cache::lookup`].
///
/// Its pieces may vanish at any instant (eviction), and it may leave altogether (removed, taken into the journal): then
/// everything reads as missing, and the caller asks the cache again.
pub struct CacheFile {
    pub(super) shared: Arc<Shared>,
    pub(super) key: FileKey,
    pub(super) header: Header,
    /// The checksum of the header, which seeds those of the records.
    pub(super) seed: u32,
    pub(super) meta: Mutex<Meta>,
    /// Signalled when a piece stops moving and when the phase changes.
    pub(super) settled: Condvar,
    /// Whether it was read or stored to; then its index is touched in the end, so that a later process knows its age.
    pub(super) used: AtomicBool,
}

/// Where a [`CacheFile`] is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The disk was not looked at yet.
    Asleep,
    Live,
    /// Its files are being renamed or removed, or are about to arrive; everybody waits.
    Changing,
    /// It has left; this object serves nothing any more.
    Gone,
}

pub(super) struct Meta {
    pub phase: Phase,
    /// The pair, where it exists.
    pub files: Option<Files>,
    /// Blocks that have present, moving or lately read pieces.
    pub blocks: BTreeMap<u32, Block>,
    /// Bytes of present pieces.
    pub present: u64,
    /// What the present and moving pieces are charged.
    pub charge: u64,
    /// How many threads have pieces moving.
    pub moving: u32,
    /// Raised when `blocks` is emptied, so that readers from before lower no count of after.
    pub generation: u64,
}

#[derive(Clone)]
pub(super) struct Files {
    pub data: Arc<Data>,
    pub index: Arc<dyn DiskFile>,
}

/// Sixteen pieces. Bits as in [`Record::mask`].
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    pub record: Record,
    /// Present pieces that match their checksum since this process met them.
    pub checked: u16,
    /// Pieces being written or punched. Never present at the same time.
    pub moving: u16,
    pub readers: u32,
}

/// The data file while somebody has it open. Gives its charge back when, after a removal, the last one lets go.
pub(super) struct Data {
    pub file: Arc<dyn DiskFile>,
    pub holds: AtomicU32,
    pub debt: AtomicU64,
    ledger: Arc<Ledger>,
}

impl Data {
    pub fn new(file: Arc<dyn DiskFile>, ledger: Arc<Ledger>) -> Arc<Data> {
        Arc::new(Data { file, holds: AtomicU32::new(0), debt: AtomicU64::new(0), ledger })
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.ledger.release(*self.debt.get_mut());
    }
}

/// Keeps every block of a cached file from eviction, for as long as the kernel reads the data file by itself.
///
/// When the file is removed meanwhile, its bytes stay on disk, and counted, until this is dropped. When it is taken into
/// the journal, the data file is the journal's, and a hold protects nothing any more.
pub struct Hold {
    data: Arc<Data>,
}

impl Hold {
    pub(super) fn new(data: Arc<Data>) -> Self {
        data.holds.fetch_add(1, Ordering::AcqRel);
        Hold { data }
    }

    /// The data file: every byte at its natural offset, as long as the version. Not to be written, and not to be used
    /// after the hold is gone.
    pub fn data(&self) -> &Arc<dyn DiskFile> {
        &self.data.file
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.data.holds.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Meta {
    pub fn new(phase: Phase) -> Self {
        Meta { phase, files: None, blocks: BTreeMap::new(), present: 0, charge: 0, moving: 0, generation: 0 }
    }
}

impl CacheFile {
    pub(super) fn new(shared: Arc<Shared>, header: Header, phase: Phase) -> Arc<CacheFile> {
        let key = FileKey::new(header.ino, &header.version);
        let (_, seed) = header.encode();
        let (meta, used) = (Mutex::new(Meta::new(phase)), AtomicBool::new(false));
        Arc::new(CacheFile { shared, key, header, seed, meta, settled: Condvar::new(), used })
    }

    /// Whose bytes these are.
    pub fn ino(&self) -> Ino {
        self.header.ino
    }

    /// Which version's.
    pub fn version(&self) -> &Version {
        &self.header.version
    }

    /// Bytes of the whole version.
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// Whether it has left the cache (removed, taken, replaced). Ask the cache again.
    pub fn is_gone(&self) -> bool {
        locked(&self.meta).phase == Phase::Gone
    }

    /// The parts of `range` that are not present, in order, not touching.
    ///
    /// Each starts and ends at a multiple of [`PIECE`], or ends at the file's size: what to fetch so that `range` can be
    /// read. Empty where `range` is past the end.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let pieces = self.pieces_of(&range);
        let mut gaps: Vec<Range<u64>> = Vec::new();
        let meta = locked(&self.meta);
        for piece in pieces {
            if meta.phase != Phase::Gone && meta.has(piece) {
                continue;
            }
            let span = self.span(piece);
            match gaps.last_mut() {
                Some(gap) if gap.end == span.start => gap.end = span.end,
                _ => gaps.push(span),
            }
        }
        gaps
    }

    /// Whether every byte is present (checked or not). True for an empty file.
    pub fn is_complete(&self) -> bool {
        self.present_bytes() == self.size()
    }

    /// Bytes that are present.
    pub fn present_bytes(&self) -> u64 {
        let meta = locked(&self.meta);
        if meta.phase == Phase::Gone { 0 } else { meta.present }
    }

    /// Keeps all blocks from eviction until the result is dropped; `None` while nothing is on disk.
    ///
    /// For FUSE passthrough: hold first, then ask [`CacheFile::verified_complete`], then hand out [`Hold::data`].
    pub fn hold(&self) -> Option<Hold> {
        let meta = locked(&self.meta);
        (meta.phase == Phase::Live).then_some(meta.files.as_ref()).flatten().map(|files| Hold::new(files.data.clone()))
    }

    /// The bytes of piece number `piece`.
    pub(super) fn span(&self, piece: u64) -> Range<u64> {
        let start = piece * PIECE;
        start..start + layout::piece_len(piece, self.size())
    }

    /// The numbers of the pieces that `range`, clipped to the size, touches.
    pub(super) fn pieces_of(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end.min(self.size());
        if range.start >= end { 0..0 } else { range.start / PIECE..layout::pieces(end) }
    }

    /// What `mask` of `block` takes of the disk.
    pub(super) fn charge_of(&self, block: u32, mask: u16) -> u64 {
        let lens = layout::pieces_in(block, mask).map(|piece| layout::piece_len(piece, self.size()));
        lens.map(|len| self.shared.ledger.rounded(len)).sum()
    }

    /// What the index takes of the disk, counted as if every record were written.
    pub(super) fn index_charge(&self) -> u64 {
        self.shared.ledger.rounded(self.record_at(layout::blocks(self.size())))
    }

    fn record_at(&self, block: u32) -> u64 {
        layout::records_at(self.header.version.as_str().len()) + u64::from(block) * RECORD as u64
    }

    /// Waits until the file is in no change, and loads it where it was not; `None` when it has left.
    pub(super) fn live(&self) -> Result<Option<MutexGuard<'_, Meta>>> {
        let mut meta = locked(&self.meta);
        loop {
            match meta.phase {
                Phase::Live => return Ok(Some(meta)),
                Phase::Gone => return Ok(None),
                Phase::Changing => meta = waited(&self.settled, meta),
                Phase::Asleep => {
                    self.load(&mut meta).context(format_args!("load the cache of inode {}", self.ino()))?;
                    meta.phase = Phase::Live;
                }
            }
        }
    }

    /// Starts a change: no read or store begins from here on, and no store is still running. `None` when it has left.
    pub(super) fn begin_change(&self) -> Result<Option<MutexGuard<'_, Meta>>> {
        let Some(mut meta) = self.live()? else { return Ok(None) };
        meta.phase = Phase::Changing;
        while meta.moving > 0 {
            meta = waited(&self.settled, meta);
        }
        Ok(Some(meta))
    }

    /// Ends a change.
    pub(super) fn end_change(&self, mut meta: MutexGuard<'_, Meta>, phase: Phase) {
        meta.phase = phase;
        drop(meta);
        self.settled.notify_all();
    }

    /// Writes the record of `block` as it is in memory.
    pub(super) fn write_record(&self, meta: &Meta, block: u32) -> std::io::Result<()> {
        let record = meta.blocks.get(&block).map(|block| block.record).unwrap_or_default();
        match &meta.files {
            Some(files) => files.index.write_at(&record.encode(self.seed, block), self.record_at(block)),
            None => Ok(()),
        }
    }

    /// Makes the pair, empty. The caller has charged the index, and holds `meta`.
    pub(super) fn create_pair(&self, meta: &mut Meta) -> Result<()> {
        self.shared.make_shard(self.key.shard())?;
        let make = || {
            let data = self.shared.disk.open(&self.shared.path(self.key, Part::Data), Open::Create)?;
            // A leftover of an earlier process may be there: its bytes are of no known version.
            data.set_len(0)?;
            data.set_len(self.size())?;
            Ok::<_, std::io::Error>(Files {
                data: Data::new(data, self.shared.ledger.clone()),
                index: self.new_index()?,
            })
        };
        let files = make().context(format_args!("make the cache files of inode {}", self.ino()));
        match files {
            Ok(files) => meta.files = Some(files),
            Err(error) => {
                self.shared.remove_paths(self.key);
                return Err(error);
            }
        }
        self.shared.created(self.key);
        Ok(())
    }

    /// Makes the index file, with its header and no record.
    pub(super) fn new_index(&self) -> std::io::Result<Arc<dyn DiskFile>> {
        let index = self.shared.disk.open(&self.shared.path(self.key, Part::Index), Open::Create)?;
        index.set_len(0)?;
        index.write_at(&self.header.encode().0, 0)?;
        Ok(index)
    }

    /// Removes the pair; returns the bytes that are free at once. With readers or holds left, the rest follows them.
    pub(super) fn remove_pair(&self, meta: &mut Meta) -> u64 {
        let Some(files) = meta.files.take() else { return 0 };
        self.shared.remove_paths(self.key);
        let charge = meta.empty();
        files.data.debt.store(charge, Ordering::Release);
        let index = self.index_charge();
        self.shared.ledger.release(index);
        self.shared.removed();
        index + if Arc::into_inner(files.data).is_some() { charge } else { 0 }
    }

    /// Reads the index. What does not parse, or is of another version, is removed: it is only cache.
    fn load(&self, meta: &mut Meta) -> Result<()> {
        let (disk, key) = (&self.shared.disk, self.key);
        let Some(index) =
            absent(disk.open(&self.shared.path(key, Part::Index), Open::Existing)).context("open the index")?
        else {
            return Ok(());
        };
        let (header, _) = self.header.encode();
        let mut found = vec![0; header.len()];
        let read = index.read_at(&mut found, 0).context("read the index")?;
        if read < found.len() || found != header {
            self.shared.discard(key, "its index is torn or of another version");
            return Ok(());
        }
        let Some(data) =
            absent(disk.open(&self.shared.path(key, Part::Data), Open::Existing)).context("open the data")?
        else {
            self.shared.discard(key, "it has no data file");
            return Ok(());
        };
        let stat = data.stat().context("look at the data")?;
        if stat.size != self.size() {
            // Its size was not durable at a power cut. What it lacks, the checksums find.
            data.set_len(self.size()).context("size the data")?;
        }
        let torn = self.load_records(meta, &*index).context("read the index")?;
        let data = Data::new(data, self.shared.ledger.clone());
        meta.files = Some(Files { data, index });
        self.shared.claim(key, self.index_charge() + meta.charge);
        if torn > 0 || stat.allocated > meta.charge + ORPHANS_SPARED + meta.charge / 256 {
            self.punch_unnamed(meta);
        }
        Ok(())
    }

    /// Takes the records over; returns how many were torn.
    fn load_records(&self, meta: &mut Meta, index: &dyn DiskFile) -> std::io::Result<u64> {
        let (blocks, mut torn) = (layout::blocks(self.size()), 0);
        let mut buf = vec![0; LOAD_CHUNK.min(blocks as usize * RECORD)];
        let mut first = 0;
        while first < blocks {
            let read = index.read_at(&mut buf, self.record_at(first))?;
            // A last record that the file cuts short reads as zeros and so fails its checksum, or was never written.
            buf[read..].fill(0);
            for (block, bytes) in (first..blocks).zip(buf.chunks_exact(RECORD)) {
                match Record::decode(bytes, self.seed, block, self.size()) {
                    Some(Record { mask: 0, .. }) => {}
                    Some(record) => self.load_block(meta, block, record),
                    None => torn += 1,
                }
            }
            if read < buf.len() {
                break;
            }
            first += (buf.len() / RECORD) as u32;
        }
        if torn > 0 {
            tracing::warn!(ino = %self.ino(), torn, "blocks dropped from the cache: their records are torn");
            self.shared.counters.torn_records.fetch_add(torn, Ordering::Relaxed);
        }
        Ok(torn)
    }

    pub(super) fn load_block(&self, meta: &mut Meta, block: u32, record: Record) {
        let lens = layout::pieces_in(block, record.mask).map(|piece| layout::piece_len(piece, self.size()));
        meta.present += lens.sum::<u64>();
        meta.charge += self.charge_of(block, record.mask);
        meta.blocks.insert(block, Block { record, ..Block::default() });
    }

    /// Gives back space that no record names: data whose record a crash came before.
    pub(super) fn punch_unnamed(&self, meta: &Meta) {
        let Some(files) = &meta.files else { return };
        let mut at = 0;
        let named = meta.blocks.iter().flat_map(|(block, state)| layout::pieces_in(*block, state.record.mask));
        for span in named.map(|piece| self.span(piece)).chain(std::iter::once(self.size()..self.size())) {
            if span.start > at
                && let Err(error) = files.data.file.punch(at, self.shared.ledger.rounded(span.start - at))
            {
                tracing::warn!(ino = %self.ino(), "give back unnamed bytes of the cache: {error}");
            }
            at = span.end;
        }
    }
}

impl Meta {
    /// Whether piece number `piece` is present.
    pub fn has(&self, piece: u64) -> bool {
        let (block, bit) = layout::place(piece);
        self.blocks.get(&block).is_some_and(|block| block.record.mask & bit != 0)
    }

    /// Forgets every piece; returns what they were charged.
    pub fn empty(&mut self) -> u64 {
        self.blocks.clear();
        self.generation += 1;
        self.present = 0;
        std::mem::take(&mut self.charge)
    }

    /// Whether nothing is present and nothing is on its way.
    pub fn is_idle_and_empty(&self) -> bool {
        self.present == 0 && self.moving == 0
    }
}

impl Drop for CacheFile {
    fn drop(&mut self) {
        self.shared.closed(self.key);
        let meta = self.meta.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let touch = *self.used.get_mut() && meta.phase == Phase::Live;
        if let Some(files) = meta.files.as_ref().filter(|_| touch) {
            // The same bytes: only the time of the last change is new. A failure costs a place in the order, no more.
            let _ = files.index.write_at(&self.header.encode().0, 0);
        }
    }
}

const _: () = assert!(BLOCK == PIECE * 16);
