//! What a handle reads next: the size of the read-ahead, as a pure function of the reads so far.
//!
//! The first read of a file gets what it asks for and no more: thumbnailers and type sniffers read 4 to 64 KiB and go away.
//! A reader that goes on gets a window that doubles up to what keeps a fast link full. A reader that jumps gets nothing ahead.

use super::{PIECE, RUN_BYTES_MAX};
use std::ops::Range;

/// The window's largest size: 250 MB/s times 50 ms is 12.5 MB, and each connection is slower than the link, so several
/// runs must be under way at once.
const WINDOW_MAX: u64 = 64 << 20;

/// Kernel read-ahead is sent by several threads, so reads of one sequential reader arrive slightly out of order.
const SLACK: u64 = 1 << 20;

/// Files up to this size come whole with their first read.
const SMALL: u64 = 1 << 20;

/// What to fetch ahead of a read.
pub type Ahead = Vec<Range<u64>>;

/// One handle's reads so far.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    next: u64,
    window: u64,
    ahead_to: u64,
    seen: bool,
}

impl Pattern {
    /// Notes a read of `range` of a file of `size` bytes; returns the runs to start now, in order, each at most
    /// [`RUN_BYTES_MAX`] long and within the file.
    pub fn read(&mut self, range: Range<u64>, size: u64) -> Ahead {
        if size <= SMALL {
            let first = !std::mem::replace(&mut self.seen, true);
            return std::iter::repeat_n(0..size, usize::from(first)).collect();
        }
        let sequential = self.seen && range.start + SLACK >= self.next && range.start <= self.next + SLACK;
        let first = !std::mem::replace(&mut self.seen, true);
        if !sequential {
            *self = Pattern { next: range.end, window: 0, ahead_to: range.end, seen: true };
            if !first || range.start != 0 {
                return Vec::new();
            }
            self.window = PIECE / 2;
            return Vec::new();
        }
        self.next = self.next.max(range.end);
        self.window = (self.window * 2).clamp(2 * PIECE, WINDOW_MAX);
        self.ahead_to = self.ahead_to.max(range.end.div_ceil(PIECE) * PIECE);
        let goal = (self.next + self.window).min(size);
        let run = (self.window / 4).clamp(2 * PIECE, RUN_BYTES_MAX) / PIECE * PIECE;
        let mut runs = Vec::new();
        while self.ahead_to < goal && (goal - self.ahead_to >= run || goal == size) {
            let end = (self.ahead_to + run).min(size);
            runs.push(self.ahead_to..end);
            self.ahead_to = end;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 1 << 30;

    #[test]
    fn a_sniffer_gets_nothing_ahead_and_a_reader_a_growing_window() {
        let mut p = Pattern::default();
        assert!(p.read(0..65536, FILE).is_empty());
        let mut ahead = 0;
        for i in 1..200u64 {
            for run in p.read(i * 131072..(i + 1) * 131072, FILE) {
                assert!(run.end - run.start <= RUN_BYTES_MAX && run.start >= ahead);
                ahead = run.end;
            }
        }
        assert!(ahead - 200 * 131072 > WINDOW_MAX / 2, "{ahead}");
    }

    #[test]
    fn a_jump_ends_the_window() {
        let mut p = Pattern::default();
        for i in 0..50u64 {
            p.read(i * 131072..(i + 1) * 131072, FILE);
        }
        assert!(p.read(700 << 20..(700 << 20) + 4096, FILE).is_empty());
        assert!(p.read(100 << 20..(100 << 20) + 4096, FILE).is_empty());
    }

    #[test]
    fn a_small_file_comes_whole_once() {
        let mut p = Pattern::default();
        assert_eq!(p.read(0..4096, 500_000), vec![0..500_000]);
        assert!(p.read(4096..8192, 500_000).is_empty());
    }
}
