//! The log of a partly present file: which ranges became valid, in order.
//!
//! Records of 32 bytes, which never straddle a page or sector: kind (u32), CRC32C of all other fields (u32), start (u64),
//! end (u64), zeros (u64), all little-endian. A record counts
//! only if its checksum is right; the first that does not ends the log.

use crate::model::RangeSet;
use crate::sys::DiskFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

const RECORD_BYTES: usize = 32;

/// What a record says of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A program wrote it.
    Written = 1,
    /// It was fetched from the base version.
    Filled = 2,
    /// Everything from `start` on was cut off.
    Cut = 3,
}

/// An open log.
pub(super) struct Log {
    file: Arc<dyn DiskFile>,
    len: u64,
    last: Option<Range<u64>>,
}

impl Log {
    /// Goes on with a log of `len` bytes.
    pub(super) fn new(file: Arc<dyn DiskFile>, len: u64) -> Log {
        Log { file, len, last: None }
    }

    /// Appends a record. A write that goes on where the last one ended replaces its record by a longer one.
    pub(super) fn append(&mut self, mark: Mark, range: Range<u64>) -> io::Result<()> {
        let goes_on = mark == Mark::Written && self.last.as_ref().is_some_and(|l| l.end == range.start);
        let (at, range) = match (&self.last, goes_on) {
            (Some(last), true) => (self.len - RECORD_BYTES as u64, last.start..range.end),
            _ => (self.len, range),
        };
        self.file.write_at(&record(mark, &range), at)?;
        self.len = at + RECORD_BYTES as u64;
        self.last = (mark == Mark::Written).then_some(range);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn record(mark: Mark, range: &Range<u64>) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0..4].copy_from_slice(&(mark as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&range.start.to_le_bytes());
    bytes[16..24].copy_from_slice(&range.end.to_le_bytes());
    let sum = checksum(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[0..4]), &record[8..32])
}

/// What a log says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// What is valid.
    pub present: RangeSet,
    /// Bytes of the log's good part.
    pub good: u64,
    /// The base version counts below this only: the rest was cut off once.
    pub base_end: u64,
    /// The cut that is the last record: it was perhaps not carried out.
    pub cut: Option<u64>,
}

/// Reads a log, beginning with what was valid when the file was staged from a version of `base_end` bytes.
/// `trust_filled`: whether fetched ranges count (after a power cut they may not be on the disk).
pub(super) fn replay(log: &[u8], present: RangeSet, base_end: u64, trust_filled: bool) -> Replayed {
    let word = |record: &[u8], at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut read = Replayed { present, good: 0, base_end, cut: None };
    for record in log.chunks_exact(RECORD_BYTES) {
        let mut sum = [0; 4];
        sum.copy_from_slice(&record[4..8]);
        if checksum(record) != u32::from_le_bytes(sum) {
            break;
        }
        let (start, end) = (word(record, 8), word(record, 16));
        read.cut = None;
        match record[0] {
            1 => read.present.insert(start..end),
            2 if trust_filled => read.present.insert(start..end),
            2 => {}
            3 => {
                read.present.truncate(start);
                read.base_end = read.base_end.min(start);
                read.cut = Some(start);
            }
            _ => break,
        }
        read.good += RECORD_BYTES as u64;
    }
    read
}

impl Replayed {
    /// The size of a file that is `found` bytes long on the disk. A change is logged before it is acknowledged, or carried out when
    /// it cuts: what lies behind all that is known is of a write that was not, and a last cut is carried out now.
    pub(super) fn size(&self, found: u64) -> u64 {
        let known = self.present.iter().map(|range| range.end).max().unwrap_or(0).max(self.base_end);
        found.min(self.cut.unwrap_or(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_ends_the_log_and_cuts_are_obeyed() {
        let mut log = Vec::new();
        log.extend(record(Mark::Written, &(0..10)));
        log.extend(record(Mark::Filled, &(10..20)));
        log.extend(record(Mark::Cut, &(15..15)));
        log.extend(&record(Mark::Written, &(100..110))[..31]);
        let read = replay(&log, RangeSet::new(), 50, true);
        assert_eq!((read.present.total(), read.good, read.base_end), (15, 96, 15));
        assert_eq!(replay(&log, RangeSet::new(), 50, false).present.total(), 10);
    }

    #[test]
    fn a_write_that_was_not_acknowledged_does_not_lengthen_a_file() {
        let log = record(Mark::Written, &(0..10));
        let sizes = |log: &[u8]| [5, 60, 100].map(|found| replay(log, RangeSet::new(), 50, true).size(found));
        assert_eq!(sizes(&log), [5, 50, 50]);
        let cut = [log, record(Mark::Cut, &(4..4))].concat();
        assert_eq!(sizes(&cut), [4, 4, 4]);
        let longer = [cut, record(Mark::Written, &(4..70)).to_vec()].concat();
        assert_eq!(sizes(&longer), [5, 60, 70]);
    }
}
