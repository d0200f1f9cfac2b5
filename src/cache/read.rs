//! Reading cached bytes, and checking them first.
//!
//! A piece is compared with its checksum whenever it is read, and before it leaves for the journal or to the kernel if it was not
//! compared in this process: those read all of a file, which may be large. One that differs, or that the disk cannot read, is
//! dropped, counted, logged, and from then on missing. It is never served.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::file::{CacheFile, Data, Meta, Phase};
use super::layout::{self, PIECE};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::locked;

/// Blocks of a file that eviction leaves alone, and what is known of their pieces.
struct Grip<'a> {
    file: &'a CacheFile,
    data: Arc<Data>,
    generation: u64,
    /// In order.
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy)]
struct Piece {
    number: u64,
    /// `None` where it need not be checked.
    expect: Option<u32>,
}

impl Piece {
    fn is(&self, sum: u32) -> bool {
        self.expect.is_none_or(|expect| expect == sum)
    }
}

/// Which pieces a check reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that were not checked in this process.
    Unchecked,
    Every,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub good: u64,
    pub bad: u64,
}

impl CacheFile {
    /// Reads up to `len` bytes at `offset`, clipped to the size; `None` where any piece of them is missing.
    ///
    /// * [`Kind::Disk`]: the index could not be read. A failed read of content makes its pieces missing instead.
    pub fn read(&self, offset: u64, len: usize) -> Result<Option<Bytes>> {
        let len = (len as u64).min(self.size().saturating_sub(offset)) as usize;
        let mut buf = vec![0; len];
        Ok(self.read_into(offset, &mut buf)?.then(|| buf.into()))
    }

    /// Fills `buf` with the bytes at `offset`; false where any piece of them is missing (`buf` is then undefined).
    ///
    /// * [`Kind::Invalid`]: `offset + buf.len()` is past the size.
    pub fn read_into(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let range = self.range(offset, buf.len())?;
        if range.is_empty() {
            return Ok(true);
        }
        let pieces = self.pieces_of(&range);
        let hit = match self.grip(pieces.clone())? {
            Some(grip) => {
                let bad = grip.fill(&range, buf);
                grip.release(&bad) && bad.is_empty()
            }
            None => false,
        };
        let counters = &self.shared.counters;
        if !hit {
            counters.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        counters.hits.fetch_add(1, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
        let (first, last) = (layout::place(pieces.start).0, layout::place(pieces.end - 1).0);
        self.shared.recency.touch(self.key, first..=last);
        Ok(true)
    }

    /// Whether every byte is present and matches its checksum. Reads what this process has not checked yet (at the disk's
    /// speed: large files belong on a thread of their own). Bad pieces are dropped.
    ///
    /// Eviction may undo the answer at once; take a [`CacheFile::hold`] first where it must last.
    pub fn verified_complete(&self) -> Result<bool> {
        Ok(self.is_complete() && self.check(Which::Unchecked)?.bad == 0 && self.is_complete())
    }

    /// Compares pieces with their checksums, block by block; drops those that differ.
    pub(super) fn check(&self, which: Which) -> Result<Checked> {
        let mut total = Checked::default();
        let blocks: Vec<u32> = locked(&self.meta).blocks.keys().copied().collect();
        let mut buf = vec![0; PIECE as usize];
        for block in blocks {
            let pieces = u64::from(block) * layout::PIECES..(u64::from(block) + 1) * layout::PIECES;
            let Some(grip) = self.grip_present(pieces, which)? else { continue };
            let bad: Vec<u64> =
                grip.pieces.iter().filter(|piece| !grip.check(piece, &mut buf)).map(|piece| piece.number).collect();
            let good = grip.pieces.len() - bad.len();
            // What was read of a file that left meanwhile says nothing.
            if grip.release(&bad) {
                total.bad += bad.len() as u64;
                total.good += good as u64;
            }
        }
        Ok(total)
    }

    /// `offset..offset + len`, where the file has that.
    pub(super) fn range(&self, offset: u64, len: usize) -> Result<Range<u64>> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size() => Ok(offset..end),
            _ => Err(Error::new(Kind::Invalid, format!("{len} bytes at {offset} of a file of {} bytes", self.size()))),
        }
    }

    /// Takes hold of all of `pieces`; `None` where one is missing.
    fn grip(&self, pieces: Range<u64>) -> Result<Option<Grip<'_>>> {
        let count = pieces.end - pieces.start;
        let grip = self.grip_present(pieces, Which::Every)?;
        Ok(grip.and_then(|grip| {
            if grip.pieces.len() as u64 == count {
                return Some(grip);
            }
            grip.abandon();
            None
        }))
    }

    /// Takes hold of those of `pieces` that are present; `None` where there is none.
    ///
    /// With [`Which::Every`], all of them are to be checked again.
    fn grip_present(&self, pieces: Range<u64>, which: Which) -> Result<Option<Grip<'_>>> {
        let Some(mut meta) = self.live()? else { return Ok(None) };
        let Some(data) = meta.files.as_ref().map(|files| files.data.clone()) else { return Ok(None) };
        let mut gripped = Vec::with_capacity((pieces.end - pieces.start) as usize);
        let mut last = None;
        for number in pieces {
            let (block, bit) = layout::place(number);
            let Some(state) = meta.blocks.get_mut(&block).filter(|state| state.record.mask & bit != 0) else {
                continue;
            };
            if last != Some(block) {
                state.readers += 1;
                last = Some(block);
            }
            let known = which == Which::Unchecked && state.checked & bit != 0;
            gripped.push(Piece { number, expect: (!known).then(|| state.record.sums[bit.trailing_zeros() as usize]) });
        }
        let generation = meta.generation;
        drop(meta);
        Ok((!gripped.is_empty()).then_some(Grip { file: self, data, generation, pieces: gripped }))
    }

    /// Drops a piece whose bytes are not what they must be.
    fn drop_bad(&self, number: u64) {
        let ((block, bit), counters) = (layout::place(number), &self.shared.counters);
        tracing::warn!(ino = %self.ino(), offset = number * PIECE, "dropped a piece of the cache: it is not what was stored");
        counters.bad_pieces.fetch_add(1, Ordering::Relaxed);
        let mut meta = locked(&self.meta);
        if meta.phase != Phase::Live || !meta.has(number) {
            return;
        }
        self.withdraw(&mut meta, block, bit);
        drop(meta);
        self.punch_moving(block, bit);
        if let Err(error) = self.remove_if_empty() {
            tracing::warn!(ino = %self.ino(), "{error}");
        }
    }
}

impl Grip<'_> {
    /// Reads `range` into `buf`; returns the pieces that turned out bad.
    fn fill(&self, range: &Range<u64>, buf: &mut [u8]) -> Vec<u64> {
        let mut bad = Vec::new();
        let is_whole = |piece: &Piece| {
            let span = self.file.span(piece.number);
            range.start <= span.start && span.end <= range.end
        };
        let mut at = 0;
        while at < self.pieces.len() {
            // Whole pieces are read at once; of one at an end all is read, since its sum is of all.
            let run = self.pieces[at..].iter().take_while(|piece| is_whole(piece)).count();
            if run == 0 {
                bad.extend(self.fill_part(&self.pieces[at], range, buf));
                at += 1;
                continue;
            }
            let run = &self.pieces[at..at + run];
            let (first, last) = (self.file.span(run[0].number), self.file.span(run[run.len() - 1].number));
            let target = &mut buf[(first.start - range.start) as usize..(last.end - range.start) as usize];
            match self.pread(first.start, target) {
                true => {
                    let sums = target.chunks(PIECE as usize).map(crc32c::crc32c);
                    bad.extend(run.iter().zip(sums).filter(|(p, sum)| !p.is(*sum)).map(|(p, _)| p.number));
                }
                false => bad.extend(run.iter().map(|piece| piece.number)),
            }
            at += run.len();
        }
        bad
    }

    /// Reads the part of a piece that `range` holds; its number, where it is bad.
    fn fill_part(&self, piece: &Piece, range: &Range<u64>, buf: &mut [u8]) -> Option<u64> {
        let span = self.file.span(piece.number);
        let mut whole = vec![0; (span.end - span.start) as usize];
        if !self.pread(span.start, &mut whole) || !piece.is(crc32c::crc32c(&whole)) {
            return Some(piece.number);
        }
        let (start, end) = (span.start.max(range.start), span.end.min(range.end));
        let part = &whole[(start - span.start) as usize..(end - span.start) as usize];
        buf[(start - range.start) as usize..(end - range.start) as usize].copy_from_slice(part);
        None
    }

    /// Whether a piece is what it must be; true for one that was checked before.
    fn check(&self, piece: &Piece, buf: &mut [u8]) -> bool {
        let Some(expect) = piece.expect else { return true };
        let span = self.file.span(piece.number);
        let buf = &mut buf[..(span.end - span.start) as usize];
        self.pread(span.start, buf) && crc32c::crc32c(buf) == expect
    }

    /// Fills `buf`; false where the disk fails or the file ends before.
    fn pread(&self, offset: u64, buf: &mut [u8]) -> bool {
        match self.data.file.read_at(buf, offset) {
            Ok(read) => read == buf.len(),
            Err(error) => {
                tracing::warn!(ino = %self.file.ino(), offset, "read the cache: {error}");
                false
            }
        }
    }

    /// Lets go of pieces that were not read.
    fn abandon(self) {
        self.let_go(&mut locked(&self.file.meta));
    }

    /// Lets go of pieces that were all read: remembers which are good, drops the bad ones. False when the file left
    /// meanwhile: then what was read is of nobody knows what.
    fn release(self, bad: &[u64]) -> bool {
        let mut meta = locked(&self.file.meta);
        let live = self.let_go(&mut meta);
        let read = self.pieces.iter().filter(|piece| live && piece.expect.is_some() && !bad.contains(&piece.number));
        for (block, bit) in read.map(|piece| layout::place(piece.number)) {
            if let Some(state) = meta.blocks.get_mut(&block) {
                state.checked |= bit & state.record.mask;
            }
        }
        drop(meta);
        if live {
            bad.iter().for_each(|number| self.file.drop_bad(*number));
        }
        live
    }

    /// Lowers the counts of readers; false when the file is no longer the one whose counts were raised.
    fn let_go(&self, meta: &mut Meta) -> bool {
        if meta.generation != self.generation {
            return false;
        }
        let mut last = None;
        for (block, _) in self.pieces.iter().map(|piece| layout::place(piece.number)) {
            if last != Some(block)
                && let Some(state) = meta.blocks.get_mut(&block)
            {
                state.readers -= 1;
            }
            last = Some(block);
        }
        meta.phase == Phase::Live
    }
}

/// Reads a piece of a file that is not cached yet, and sums it; `None` where the file ends before.
pub(super) fn sum_of(file: &dyn crate::sys::DiskFile, span: Range<u64>, buf: &mut Vec<u8>) -> Result<Option<u32>> {
    buf.resize((span.end - span.start) as usize, 0);
    let read = file.read_at(buf, span.start).context("read a file that becomes cache")?;
    Ok((read == buf.len()).then(|| crc32c::crc32c(buf)))
}
