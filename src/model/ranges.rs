//! A set of byte positions, as sorted half-open ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64` positions. Ranges inside never touch or overlap; empty ranges are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        RangeSet::default()
    }

    /// Adds `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&s, &e)) = self.ends.range(..=start).next_back()
            && e >= start
        {
            start = s;
            end = end.max(e);
        }
        while let Some((&s, &e)) = self.ends.range(start..=end).next() {
            end = end.max(e);
            self.ends.remove(&s);
        }
        self.ends.insert(start, end);
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&s, &e)) = self.ends.range(..range.start).next_back()
            && e > range.start
        {
            self.ends.insert(s, range.start);
            if e > range.end {
                self.ends.insert(range.end, e);
            }
        }
        while let Some((&s, &e)) = self.ends.range(range.start..range.end).next() {
            self.ends.remove(&s);
            if e > range.end {
                self.ends.insert(range.end, e);
            }
        }
    }

    /// Whether every position of `range` is in the set; true for an empty range.
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.ends.range(..=range.start).next_back().is_some_and(|(_, &e)| e >= range.end)
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        if let Some((_, &e)) = self.ends.range(..=at).next_back() {
            at = at.max(e);
        }
        for (&s, &e) in self.ends.range(range.start..range.end) {
            if s > at {
                gaps.push(at..s);
            }
            at = at.max(e);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&s, &e)| s..e)
    }

    /// How many positions are in the set.
    pub fn total(&self) -> u64 {
        self.ends.iter().map(|(s, e)| e - s).sum()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes out every position from `end` on.
    pub fn truncate(&mut self, end: u64) {
        self.remove(end..u64::MAX);
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_bitmap() {
        let mut seed = 1u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let (mut set, mut bits) = (RangeSet::new(), [false; 64]);
        for _ in 0..20_000 {
            let (a, b) = (next(65), next(65));
            let range = a.min(b)..a.max(b);
            let span = range.start as usize..range.end as usize;
            match next(3) {
                0 => {
                    set.insert(range);
                    bits[span].fill(true);
                }
                1 => {
                    set.remove(range);
                    bits[span].fill(false);
                }
                _ => {
                    assert_eq!(set.contains(range.clone()), bits[span.clone()].iter().all(|b| *b));
                    let gaps: u64 = set.missing(range).iter().map(|r| r.end - r.start).sum();
                    assert_eq!(gaps as usize, bits[span].iter().filter(|b| !**b).count());
                }
            }
            assert_eq!(set.total() as usize, bits.iter().filter(|b| **b).count());
        }
    }
}
