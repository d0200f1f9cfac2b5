//! Storing fetched bytes.
//!
//! Space is reserved before anything is marked or written, with no lock held, since making room may evict blocks of this
//! very file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::file::{CacheFile, Meta, Phase};
use super::layout::{self, PIECE};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{locked, waited};

/// What became of bytes that were handed to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// They are present now, or were before.
    Kept,
    /// The bound or the disk left no room; nothing is lost, they are only not cached.
    NoSpace,
    /// The file has left the cache (removed, taken, replaced).
    Gone,
}

/// Room for two blocks of a directory, which may grow when the pair is made.
const DIRECTORY_ROOM: u64 = 8 << 10;
/// How often a store reserves anew because others changed meanwhile what is present. Then it gives up, as for no space.
const TRIES_MAX: u32 = 8;

/// Bits of pieces, by block.
type Masks = BTreeMap<u32, u16>;

impl CacheFile {
    /// Keeps bytes of this version.
    ///
    /// * `offset`: a multiple of [`PIECE`]. `data`: whole pieces, or up to the end of the file.
    /// * Pieces that are present are left as they are: equal versions have equal bytes. Safe to repeat, and from several
    ///   threads at once.
    /// * [`Kind::Invalid`]: `offset` or the length is not as said. [`Kind::Disk`]: the disk failed; what was written
    ///   before reads as missing.
    pub fn store(&self, offset: u64, data: &[u8]) -> Result<Stored> {
        let range = self.range(offset, data.len())?;
        if !range.start.is_multiple_of(PIECE) || (!range.end.is_multiple_of(PIECE) && range.end != self.size()) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{}..{} does not cover whole pieces", range.start, range.end),
            ));
        }
        for _ in 0..TRIES_MAX {
            let Some(meta) = self.live()? else { return Ok(Stored::Gone) };
            let Some((meta, wanted)) = self.wanted(meta, &range) else { continue };
            if wanted.is_empty() {
                return Ok(Stored::Kept);
            }
            let room = self.charge_of_all(&wanted) + self.pair_room(&meta);
            drop(meta);
            let charge = match self.shared.ledger.reserve(room) {
                Ok(charge) => charge,
                Err(error) if error.kind == Kind::NoSpace => return Ok(Stored::NoSpace),
                Err(error) => return Err(error),
            };
            let Some(meta) = self.live()? else { return Ok(Stored::Gone) };
            let Some((mut meta, wanted)) = self.wanted(meta, &range) else { continue };
            if wanted.is_empty() {
                return Ok(Stored::Kept);
            }
            if self.charge_of_all(&wanted) + self.pair_room(&meta) > charge.bytes() {
                continue;
            }
            let outcome = self.mark(&mut meta, &wanted, charge);
            drop(meta);
            return match outcome {
                Ok(()) => self.write(&range, data, wanted),
                Err(error) if error.kind == Kind::NoSpace => Ok(Stored::NoSpace),
                Err(error) => Err(error),
            };
        }
        Ok(Stored::NoSpace)
    }

    /// Which pieces of `range` are not present; waits for those on the move. `None` when a change began meanwhile.
    fn wanted<'a>(&self, mut meta: MutexGuard<'a, Meta>, range: &Range<u64>) -> Option<(MutexGuard<'a, Meta>, Masks)> {
        'again: loop {
            if meta.phase != Phase::Live {
                return None;
            }
            let mut wanted = Masks::new();
            for (block, bit) in self.pieces_of(range).map(layout::place) {
                let state = meta.blocks.get(&block).copied().unwrap_or_default();
                if state.moving & bit != 0 {
                    meta = waited(&self.settled, meta);
                    continue 'again;
                }
                if state.record.mask & bit == 0 {
                    *wanted.entry(block).or_default() |= bit;
                }
            }
            return Some((meta, wanted));
        }
    }

    fn charge_of_all(&self, masks: &Masks) -> u64 {
        masks.iter().map(|(block, mask)| self.charge_of(*block, *mask)).sum()
    }

    /// What making the pair takes; 0 where it exists.
    fn pair_room(&self, meta: &Meta) -> u64 {
        if meta.files.is_some() { 0 } else { self.index_charge() + DIRECTORY_ROOM }
    }

    /// Makes the pair where needed, charges the pieces and marks them as being written.
    fn mark(&self, meta: &mut Meta, wanted: &Masks, charge: super::ledger::Charge<'_>) -> Result<()> {
        let (pieces, index) = (self.charge_of_all(wanted), self.index_charge());
        if meta.files.is_some() {
            charge.commit(pieces)?;
        } else {
            charge.commit(pieces + index)?;
            if let Err(error) = self.create_pair(meta) {
                self.shared.ledger.release(pieces + index);
                return Err(error);
            }
        }
        for (block, mask) in wanted {
            meta.blocks.entry(*block).or_default().moving |= mask;
        }
        meta.charge += pieces;
        meta.moving += 1;
        Ok(())
    }

    /// Writes marked pieces, then their records.
    fn write(&self, range: &Range<u64>, data: &[u8], wanted: Masks) -> Result<Stored> {
        let outcome = self.write_content(range, data, &wanted);
        let mut meta = locked(&self.meta);
        let outcome = outcome.and_then(|()| self.record(&mut meta, range, data, &wanted));
        if let Err(error) = outcome {
            for (block, mask) in &wanted {
                // Whatever was recorded before the failure goes too: a store is kept whole or not at all.
                self.unrecord(&mut meta, *block, *mask);
            }
            drop(meta);
            self.settle(&wanted);
            self.remove_if_empty()?;
            let error = Error::disk(format_args!("store {} bytes of inode {}", data.len(), self.ino()), &error);
            return if error.kind == Kind::NoSpace { Ok(Stored::NoSpace) } else { Err(error) };
        }
        for (block, mask) in &wanted {
            meta.blocks.entry(*block).or_default().moving &= !mask;
        }
        meta.moving -= 1;
        drop(meta);
        self.settled.notify_all();
        self.used.store(true, Ordering::Relaxed);
        self.shared.recency.touch(self.key, wanted.keys().copied());
        Ok(Stored::Kept)
    }

    fn write_content(&self, range: &Range<u64>, data: &[u8], wanted: &Masks) -> std::io::Result<()> {
        let Some(file) = locked(&self.meta).files.as_ref().map(|files| files.data.clone()) else { return Ok(()) };
        let mut run: Option<Range<u64>> = None;
        let pieces = wanted.iter().flat_map(|(block, mask)| layout::pieces_in(*block, *mask));
        let write = |run: &Range<u64>| {
            let bytes = &data[(run.start - range.start) as usize..(run.end - range.start) as usize];
            file.file.write_at(bytes, run.start)
        };
        for span in pieces.map(|piece| self.span(piece)) {
            match &mut run {
                Some(run) if run.end == span.start => run.end = span.end,
                _ => {
                    run.as_ref().map_or(Ok(()), write)?;
                    run = Some(span);
                }
            }
        }
        run.as_ref().map_or(Ok(()), write)
    }

    /// Makes written pieces present, in memory and on disk.
    fn record(&self, meta: &mut Meta, range: &Range<u64>, data: &[u8], wanted: &Masks) -> std::io::Result<()> {
        for (block, mask) in wanted {
            let state = meta.blocks.entry(*block).or_default();
            let mut bytes = 0;
            for piece in layout::pieces_in(*block, *mask) {
                let span = self.span(piece);
                let content = &data[(span.start - range.start) as usize..(span.end - range.start) as usize];
                state.record.sums[(piece % layout::PIECES) as usize] = crc32c::crc32c(content);
                bytes += content.len() as u64;
            }
            state.record.mask |= mask;
            // Summed from memory, written without an error: as good as read back.
            state.checked |= mask;
            meta.present += bytes;
            self.write_record(meta, *block)?;
        }
        Ok(())
    }

    /// Makes pieces missing, in memory and on disk; returns their bytes to nobody yet.
    fn unrecord(&self, meta: &mut Meta, block: u32, mask: u16) {
        let Some(state) = meta.blocks.get_mut(&block) else { return };
        let gone = state.record.mask & mask;
        state.record.mask &= !mask;
        state.checked &= !mask;
        meta.present -= layout::pieces_in(block, gone).map(|piece| layout::piece_len(piece, self.size())).sum::<u64>();
        if gone != 0
            && let Err(error) = self.write_record(meta, block)
        {
            // The old record now names pieces that are about to be punched: their checksums will say so.
            tracing::warn!(ino = %self.ino(), block, "clear a record of the cache: {error}");
        }
    }

    /// Makes present pieces missing and marks them as moving, before [`CacheFile::punch_moving`].
    pub(super) fn withdraw(&self, meta: &mut Meta, block: u32, mask: u16) {
        self.unrecord(meta, block, mask);
        if let Some(state) = meta.blocks.get_mut(&block) {
            state.moving |= mask;
            meta.moving += 1;
        }
    }

    /// Punches pieces that are marked as moving and gives their space back; returns the bytes given back.
    pub(super) fn punch_moving(&self, block: u32, mask: u16) -> u64 {
        self.settle(&Masks::from([(block, mask)]))
    }

    /// Punches marked pieces, unmarks them, and gives their charge back.
    fn settle(&self, masks: &Masks) -> u64 {
        let file = locked(&self.meta).files.as_ref().map(|files| files.data.clone());
        for (block, mask) in masks {
            for piece in layout::pieces_in(*block, *mask) {
                let (span, Some(file)) = (self.span(piece), &file) else { continue };
                // A whole file-system block also at the end of the file, or the last one would stay.
                let punched = file.file.punch(span.start, self.shared.ledger.rounded(span.end - span.start));
                if let Err(error) = punched.context("punch a hole into the cache") {
                    // Counted as free although it is not: the next load finds and punches it again.
                    tracing::warn!(ino = %self.ino(), block, "{error}");
                }
            }
        }
        let charge = self.charge_of_all(masks);
        let mut meta = locked(&self.meta);
        for (block, mask) in masks {
            if let Some(state) = meta.blocks.get_mut(block) {
                state.moving &= !mask;
                if state.record.mask == 0 && state.moving == 0 && state.readers == 0 {
                    meta.blocks.remove(block);
                }
            }
        }
        meta.moving -= 1;
        meta.charge -= charge;
        drop(meta);
        self.settled.notify_all();
        drop(file);
        self.shared.ledger.release(charge);
        charge
    }
}
