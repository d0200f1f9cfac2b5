//! Which inode is looked at when.

use crate::model::{Ino, Name};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// What a user last did to an inode: its place and its time of change, nanoseconds since 1970. `None`: it is gone.
pub(super) type Mark = Option<(Option<(Ino, Name)>, i64)>;

/// The order of work. Times are of the monotonic clock.
#[derive(Default)]
pub(super) struct Queue {
    order: BTreeSet<(Duration, Ino)>,
    due: HashMap<Ino, Duration>,
    tries: HashMap<Ino, u32>,
    waiters: HashMap<Ino, Vec<Ino>>,
    /// Those that failed, until when they are left alone, and what they were like.
    held: HashMap<Ino, (Duration, Mark)>,
}

impl Queue {
    /// Looks at `ino` at `at`; replaces an earlier plan for it.
    pub(super) fn put(&mut self, ino: Ino, at: Duration) {
        if let Some(old) = self.due.insert(ino, at) {
            self.order.remove(&(old, ino));
        }
        self.order.insert((at, ino));
    }

    /// The next inode that is due, or how long until one is.
    pub(super) fn next(&mut self, now: Duration) -> Result<Ino, Option<Duration>> {
        match self.order.first().copied() {
            Some((at, ino)) if at <= now => {
                self.order.remove(&(at, ino));
                self.due.remove(&ino);
                Ok(ino)
            }
            Some((at, _)) => Err(Some(at - now)),
            None => Err(None),
        }
    }

    /// Leaves `ino` alone until `until`, however often it is put, unless a user changes it: our own failing call touches the
    /// inode too.
    pub(super) fn hold(&mut self, ino: Ino, until: Duration, mark: Mark) {
        self.held.insert(ino, (until, mark));
        self.put(ino, until);
    }

    /// Until when `ino` is left alone.
    pub(super) fn held(&mut self, ino: Ino, now: Duration, mark: &Mark) -> Option<Duration> {
        let (until, then) = self.held.get(&ino)?;
        if *until > now && then == mark {
            return Some(*until);
        }
        self.held.remove(&ino);
        None
    }

    /// Makes all that is waiting due at `now` at the latest.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.held.clear();
        let later: Vec<Ino> = self.order.iter().filter(|(at, _)| *at > now).map(|(_, ino)| *ino).collect();
        for ino in later {
            self.put(ino, now);
        }
    }

    /// Counts a failure; returns how often it failed in a row.
    pub(super) fn failed(&mut self, ino: Ino) -> u32 {
        let tries = self.tries.entry(ino).or_default();
        *tries = tries.saturating_add(1);
        *tries
    }

    /// Forgets the failures.
    pub(super) fn succeeded(&mut self, ino: Ino) {
        self.tries.remove(&ino);
        self.held.remove(&ino);
    }

    /// `ino` can go on once something happened to `on`.
    pub(super) fn wait_for(&mut self, ino: Ino, on: Ino) {
        self.waiters.entry(on).or_default().push(ino);
    }

    /// Something happened to `on`: who waited for it is due.
    pub(super) fn wake(&mut self, on: Ino, now: Duration) {
        for ino in self.waiters.remove(&on).unwrap_or_default() {
            self.put(ino, now);
        }
    }
}
