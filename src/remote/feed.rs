//! A bounded log of touched paths, behind the change feeds of the remotes that are part of this program.
//!
//! The log says *where* something happened; what is there now is looked up when a cursor is read. So each path is in the log
//! once, at its last change, and reading the same cursor twice is harmless.

use std::collections::BTreeMap;

/// Paths kept. When more are touched the oldest are dropped and cursors before them expire: a sweep is cheaper then.
const PATHS_MAX: usize = 20_000;

/// The log of one process; cursors of another process are expired for it.
pub(super) struct Feed {
    name: u64,
    seq: u64,
    /// Cursors below this have missed something.
    floor: u64,
    log: BTreeMap<u64, Touched>,
    latest: BTreeMap<String, u64>,
}

/// A path at which something happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Touched {
    pub path: String,
    /// Whether anything below it may have changed too, unlogged.
    pub deep: bool,
}

/// What a cursor is told.
pub(super) struct Page {
    /// Parents before their children.
    pub touched: Vec<Touched>,
    pub cursor: String,
    pub reset: bool,
}

impl Feed {
    /// An empty log. `name` tells the cursors of one log from those of another.
    pub fn new(name: u64) -> Self {
        Feed { name, seq: 0, floor: 0, log: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// Notes that something happened at `path`; with `deep`, also below it.
    pub fn touch(&mut self, path: &str, deep: bool) {
        self.seq += 1;
        let before = self.latest.insert(path.to_owned(), self.seq).and_then(|seq| self.log.remove(&seq));
        let deep = deep || before.is_some_and(|touched| touched.deep);
        self.log.insert(self.seq, Touched { path: path.to_owned(), deep });
        if self.log.len() > PATHS_MAX
            && let Some((seq, oldest)) = self.log.pop_first()
        {
            self.latest.remove(&oldest.path);
            self.floor = seq;
        }
    }

    /// Expires every cursor given so far.
    pub fn expire(&mut self) {
        self.seq += 1;
        self.floor = self.seq;
        self.log.clear();
        self.latest.clear();
    }

    /// Where the log stands now.
    pub fn cursor(&self) -> String {
        format!("{:016x}:{}", self.name, self.seq)
    }

    /// What was touched after `cursor`.
    pub fn since(&self, cursor: &str) -> Page {
        let at = cursor
            .split_once(':')
            .filter(|(name, _)| *name == format!("{:016x}", self.name))
            .and_then(|(_, seq)| seq.parse::<u64>().ok())
            .filter(|seq| (self.floor..=self.seq).contains(seq));
        let Some(at) = at else {
            return Page { touched: Vec::new(), cursor: self.cursor(), reset: true };
        };
        let mut touched: Vec<_> = self.log.range(at + 1..).map(|(_, touched)| touched.clone()).collect();
        touched.sort();
        Page { touched, cursor: self.cursor(), reset: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(page: &Page) -> Vec<&str> {
        page.touched.iter().map(|touched| touched.path.as_str()).collect()
    }

    #[test]
    fn a_cursor_sees_each_path_touched_after_it_once() {
        let mut feed = Feed::new(1);
        feed.touch("old", false);
        let cursor = feed.cursor();
        feed.touch("b", true);
        feed.touch("a", false);
        feed.touch("b", false);
        let page = feed.since(&cursor);
        assert_eq!(paths(&page), ["a", "b"]);
        assert!(page.touched[1].deep && !page.reset);
        assert_eq!(paths(&feed.since(&page.cursor)), [""; 0]);
        assert_eq!(paths(&feed.since(&cursor)), ["a", "b"]);
    }

    #[test]
    fn a_cursor_that_missed_something_is_told_to_start_over() {
        let mut feed = Feed::new(1);
        let cursor = feed.cursor();
        for n in 0..PATHS_MAX {
            feed.touch(&n.to_string(), false);
        }
        assert!(!feed.since(&cursor).reset);
        feed.touch("one more", false);
        assert!(feed.since(&cursor).reset);
        assert!(feed.since("junk").reset && feed.since(&Feed::new(2).cursor()).reset);
        let cursor = feed.cursor();
        feed.expire();
        assert!(feed.since(&cursor).reset && !feed.since(&feed.cursor()).reset);
    }
}
