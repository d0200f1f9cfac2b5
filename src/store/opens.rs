//! What this worker knows of the kernel's side and of the last looks at the remote. In memory: a new worker learns a handle
//! again when the kernel first uses it, and looks at the remote again.

use super::lock;
use crate::model::{Ino, Version};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

/// How many inodes' last looks and last opened versions are kept. What is forgotten is looked at again.
const REMEMBERED_MAX: usize = 65536;

/// How often an inode is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    pub readers: u32,
    /// Handles that may write.
    pub writers: u32,
}

impl OpenCounts {
    /// Whether nothing is open.
    pub fn is_closed(self) -> bool {
        self.readers == 0 && self.writers == 0
    }
}

/// Looks at one directory that are further apart than this are two visits.
const VISIT: Duration = Duration::from_secs(1);

/// How programs looked into a directory lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The last time, by the monotonic clock.
    pub at: Duration,
    /// Whether somebody came back.
    pub again: bool,
}

/// The table of open inodes.
#[derive(Default)]
pub struct Opens {
    counts: Mutex<HashMap<Ino, OpenCounts>>,
    held: Mutex<HashSet<Ino>>,
    gone: Mutex<HashSet<Ino>>,
    checked: Mutex<HashMap<Ino, Duration>>,
    seen: Mutex<HashMap<Ino, Option<Version>>>,
    used: Mutex<HashMap<Ino, Use>>,
}

impl Opens {
    /// Counts one more handle.
    pub fn opened(&self, ino: Ino, writes: bool) {
        let mut counts = lock(&self.counts);
        let count = counts.entry(ino).or_default();
        if writes { count.writers += 1 } else { count.readers += 1 }
    }

    /// Counts one handle less; returns what is left.
    pub fn closed(&self, ino: Ino, writes: bool) -> OpenCounts {
        let mut counts = lock(&self.counts);
        let Some(count) = counts.get_mut(&ino) else { return OpenCounts::default() };
        if writes {
            count.writers = count.writers.saturating_sub(1);
        } else {
            count.readers = count.readers.saturating_sub(1);
        }
        let left = *count;
        if left.is_closed() {
            counts.remove(&ino);
        }
        left
    }

    /// How often `ino` is open.
    pub fn get(&self, ino: Ino) -> OpenCounts {
        lock(&self.counts).get(&ino).copied().unwrap_or_default()
    }

    /// The kernel still holds this inode, which has lost its name: it must stay until the kernel forgets it.
    pub fn hold(&self, ino: Ino) {
        lock(&self.held).insert(ino);
    }

    /// The remote took this inode's name away: who finds it by an old name must look again. Set before its writers are
    /// counted, so that an open that is not counted sees it.
    pub fn set_gone(&self, ino: Ino, gone: bool) {
        let mut set = lock(&self.gone);
        if gone {
            set.insert(ino)
        } else {
            set.remove(&ino)
        };
    }

    /// Whether the remote took its name away.
    pub fn is_gone(&self, ino: Ino) -> bool {
        lock(&self.gone).contains(&ino)
    }

    /// The kernel holds it no longer; whether it was held without a name.
    pub fn release(&self, ino: Ino) -> bool {
        lock(&self.gone).remove(&ino);
        lock(&self.held).remove(&ino)
    }

    /// Whether the kernel holds it although it has no name.
    pub fn is_held(&self, ino: Ino) -> bool {
        lock(&self.held).contains(&ino)
    }

    /// Notes that the remote's version of a file, or of all children of a directory, was looked at, by the monotonic clock.
    pub fn set_checked(&self, ino: Ino, at: Duration) {
        let mut checked = lock(&self.checked);
        if checked.len() >= REMEMBERED_MAX {
            checked.clear();
        }
        checked.insert(ino, at);
    }

    /// When the remote was last looked at.
    pub fn checked(&self, ino: Ino) -> Option<Duration> {
        lock(&self.checked).get(&ino).copied()
    }

    /// Notes the version of this open (`None`: written here); whether the last open had the same.
    pub fn seen(&self, ino: Ino, version: Option<Version>) -> bool {
        let mut seen = lock(&self.seen);
        if seen.len() >= REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(ino, version.clone()).is_some_and(|last| last == version)
    }

    /// The bytes that were written here are now this version of the remote: pages of the kernel stay right.
    pub fn became(&self, ino: Ino, version: &Version) {
        let mut seen = lock(&self.seen);
        if let Some(last) = seen.get_mut(&ino)
            && last.is_none()
        {
            *last = Some(version.clone());
        }
    }

    /// The remote calls the same bytes by another tag now.
    pub fn renamed(&self, ino: Ino, old: &Version, new: &Version) {
        let mut seen = lock(&self.seen);
        if let Some(last) = seen.get_mut(&ino)
            && last.as_ref() == Some(old)
        {
            *last = Some(new.clone());
        }
    }

    /// Notes that a program looked into a directory.
    pub fn use_directory(&self, ino: Ino, at: Duration) {
        let mut used = lock(&self.used);
        if used.len() >= REMEMBERED_MAX {
            used.clear();
        }
        used.entry(ino)
            .and_modify(|used| {
                used.again |= at.saturating_sub(used.at) > VISIT;
                used.at = at;
            })
            .or_insert(Use { at, again: false });
    }

    /// The directories that were looked into since `since`, the latest first.
    pub fn used_directories(&self, since: Duration) -> Vec<(Ino, Use)> {
        let mut used = lock(&self.used);
        used.retain(|_, used| used.at >= since);
        let mut found: Vec<(Ino, Use)> = used.iter().map(|(ino, used)| (*ino, *used)).collect();
        found.sort_unstable_by_key(|(ino, used)| std::cmp::Reverse((used.at, *ino)));
        found
    }
}
