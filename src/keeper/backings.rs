//! Which files the kernel reads and writes by itself: the backing ids of passthrough, kept where a worker's death cannot lose
//! them.
//!
//! An id belongs to the connection, not to the worker. While a passthrough open of an inode lives, every other open of it must
//! name the same id, or the kernel refuses it with EIO; and an id that nobody closes keeps its file's space on the disk. So a
//! worker notes an id *before* it replies to the open that uses it, and its successor reads the list when it starts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// How many there can be. When the table is full, further files go through the worker, which is slower and always right.
pub const BACKINGS_MAX: usize = 1024;

#[repr(C)]
struct Slot {
    /// 0: free.
    id: AtomicU32,
    ino: AtomicU64,
}

/// A backing id and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// As `fuser::BackingId::into_raw` gives it; never 0.
    pub id: u32,
    /// 0 where the worker died while it noted the id: nobody uses it, close it.
    pub ino: u64,
}

/// The table. Zeros are an empty one.
#[repr(C)]
pub struct Backings([Slot; BACKINGS_MAX]);

impl Backings {
    /// Notes an id. False: the table is full (or the id is 0); close the id and reply without passthrough.
    #[must_use]
    pub fn remember(&self, backing: Backing) -> bool {
        if backing.id == 0 {
            return false;
        }
        let claimed = self.0.iter().find(|slot| slot.id.compare_exchange(0, backing.id, SeqCst, SeqCst).is_ok());
        if let Some(slot) = claimed {
            slot.ino.store(backing.ino, SeqCst);
        }
        claimed.is_some()
    }

    /// Takes an id out. Call it before the id is closed: the kernel may give the number out again at once.
    pub fn forget(&self, id: u32) {
        if let Some(slot) = self.0.iter().find(|slot| slot.id.load(SeqCst) == id && id != 0) {
            slot.ino.store(0, SeqCst);
            slot.id.store(0, SeqCst);
        }
    }

    /// Those that are noted, in no order.
    pub fn all(&self) -> Vec<Backing> {
        self.0
            .iter()
            .map(|slot| Backing { id: slot.id.load(SeqCst), ino: slot.ino.load(SeqCst) })
            .filter(|backing| backing.id != 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Backings {
        Backings(std::array::from_fn(|_| Slot { id: AtomicU32::new(0), ino: AtomicU64::new(0) }))
    }

    #[test]
    fn the_table_holds_what_was_noted_until_it_is_full() {
        let table = empty();
        assert!(!table.remember(Backing { id: 0, ino: 1 }));
        for id in 1..=BACKINGS_MAX as u32 {
            assert!(table.remember(Backing { id, ino: u64::from(id) * 10 }));
        }
        assert!(!table.remember(Backing { id: 9999, ino: 1 }));
        table.forget(7);
        table.forget(7);
        table.forget(0);
        assert_eq!(table.all().len(), BACKINGS_MAX - 1);
        assert!(table.remember(Backing { id: 9999, ino: 1 }));
        assert!(table.all().contains(&Backing { id: 9999, ino: 1 }));
    }
}
