//! What a handle reads next: the size of the read-ahead, as a pure function of the reads so far.
//!
//! The first small read of a file gets what it asks for and no more: thumbnailers and type sniffers read 4 to 64 KiB and go
//! away. Who goes on, or begins with a large read, gets a window in proportion to what was read in one go, so that never much
//! more is fetched than somebody wanted. A player stays ahead of its film with a small one; who still has to wait for bytes
//! reads as fast as the link gives them, and its window grows to what keeps a fast link full. A jump begins anew.

use super::{PIECE, RUN_BYTES_MAX};
use std::ops::Range;

/// A first read from the start of this many bytes is the begin of a sequence, bytes.
const EAGER: u64 = 512 << 10;

/// The window of a reader that does not wait: so many times what it read in one go, and at most so many bytes.
const CALM: (u64, u64) = (2, 16 << 20);

/// The same for one that waits.
const KEEN: (u64, u64) = (8, WINDOW_MAX);

/// The largest window, bytes. All runs under way end at about the same time, and what is read next must be under way by then:
/// 16 connections with [`RUN_BYTES_MAX`] each, and half as many runs that wait for one.
const WINDOW_MAX: u64 = 192 << 20;

/// Kernel read-ahead is sent by several threads, so reads of one sequential reader arrive slightly out of order.
const SLACK: u64 = 1 << 20;

/// Files up to this size come whole with their first read.
const SMALL: u64 = 1 << 20;

/// What to fetch ahead of a read.
pub type Ahead = Vec<Range<u64>>;

/// One read, as the pattern sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub range: Range<u64>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Whether its bytes were there.
    pub hit: bool,
    /// What may be fetched ahead at most, bytes: a share of the cache, or what comes would push out what is still to be read.
    pub window_max: u64,
}

/// One handle's reads so far.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// Where this sequence began, and the end of its last read.
    start: u64,
    next: u64,
    window: u64,
    ahead_to: u64,
    seen: bool,
}

impl Pattern {
    /// Notes a read; returns the runs to start now, in order, each at most [`RUN_BYTES_MAX`] long and within the file.
    pub fn read(&mut self, read: Seen) -> Ahead {
        let Seen { range, size, hit, window_max } = read;
        if size <= SMALL {
            let first = !std::mem::replace(&mut self.seen, true);
            return std::iter::repeat_n(0..size, usize::from(first)).collect();
        }
        let sequential = self.seen && range.start + SLACK >= self.next && range.start <= self.next + SLACK;
        let first = !std::mem::replace(&mut self.seen, true);
        if !sequential {
            *self = Pattern { start: range.start, next: range.end, window: 0, ahead_to: range.end, seen: true };
            if !first || range.start != 0 || range.end < EAGER {
                return Vec::new();
            }
        }
        self.next = self.next.max(range.end);
        let (times, most) = if hit { CALM } else { KEEN };
        let wanted = ((self.next - self.start) * times).min(most).max(self.window);
        self.window = wanted.clamp(2 * PIECE, window_max.clamp(2 * PIECE, WINDOW_MAX));
        self.ahead_to = self.ahead_to.max(range.end.div_ceil(PIECE) * PIECE);
        let goal = (self.next + self.window).min(size);
        let run = (self.window / 8).clamp(4 * PIECE, RUN_BYTES_MAX) / PIECE * PIECE;
        let mut runs = Vec::new();
        while self.ahead_to < goal && (goal - self.ahead_to >= run || goal == size) {
            // Shorter towards the end, so that no connection is left alone with the last long run.
            let last = ((size - self.ahead_to) / 16).max(SMALL) / PIECE * PIECE;
            let end = (self.ahead_to + run.min(last)).min(size);
            runs.push(self.ahead_to..end);
            self.ahead_to = end;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 4 << 30;

    fn seen(range: Range<u64>, hit: bool) -> Seen {
        Seen { range, size: FILE, hit, window_max: u64::MAX }
    }

    /// Reads 25 MiB from the start; how much of the file was asked for ahead in the end.
    fn sequence(hit: bool, window_max: u64) -> u64 {
        let mut p = Pattern::default();
        let mut ahead = 0;
        for i in 0..200u64 {
            for run in p.read(Seen { window_max, ..seen(i * 131072..(i + 1) * 131072, hit) }) {
                assert!(run.end - run.start <= RUN_BYTES_MAX && run.start >= ahead);
                ahead = run.end;
            }
        }
        ahead - 200 * 131072
    }

    #[test]
    fn a_sniffer_gets_nothing_ahead_and_a_large_read_something() {
        assert!(Pattern::default().read(seen(0..65536, false)).is_empty());
        assert!(!Pattern::default().read(seen(0..1 << 20, false)).is_empty());
    }

    #[test]
    fn never_much_more_is_fetched_than_was_read() {
        let mut p = Pattern::default();
        let mut ahead = 0;
        for i in 0..16u64 {
            ahead = p.read(seen(i * 65536..(i + 1) * 65536, false)).last().map_or(ahead, |run| run.end);
        }
        assert!((1 << 20..=9 << 20).contains(&ahead), "{ahead}");
    }

    #[test]
    fn who_waits_gets_more_ahead_than_who_does_not() {
        assert!(sequence(false, u64::MAX) > WINDOW_MAX / 2);
        assert!((CALM.1 / 2..=CALM.1).contains(&sequence(true, u64::MAX)));
        assert!(sequence(false, 4 << 20) <= 4 << 20, "a small cache is not flooded");
    }

    #[test]
    fn a_jump_ends_the_window() {
        let mut p = Pattern::default();
        for i in 0..50u64 {
            p.read(seen(i * 131072..(i + 1) * 131072, false));
        }
        assert!(p.read(seen(700 << 20..(700 << 20) + 4096, false)).is_empty());
        assert!(p.read(seen(100 << 20..(100 << 20) + 4096, false)).is_empty());
    }

    #[test]
    fn a_small_file_comes_whole_once() {
        let mut p = Pattern::default();
        let small = |range| Seen { size: 500_000, ..seen(range, false) };
        assert_eq!(p.read(small(0..4096)), vec![0..500_000]);
        assert!(p.read(small(4096..8192)).is_empty());
    }
}
