//! Open handles. A handle's number tells by itself whether it may write, so a new worker can rebuild it from the number and
//! the inode; what else is kept with it (the pattern of reads) is only a matter of speed.

use super::Drive;
use super::patience::Patience;
use crate::fetch::Pattern;
use crate::model::Ino;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The number of an open file, as the kernel keeps it. Bit 0 tells whether it may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

impl Fh {
    /// Whether the handle may write.
    pub fn writes(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What a worker keeps with a handle.
#[derive(Default)]
pub(super) struct Handle {
    pub(super) pattern: Mutex<Pattern>,
    patience: Mutex<Patience>,
}

impl Handle {
    /// When its reads began to wait, and when they stopped.
    pub(super) fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open handles of this worker.
pub(super) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<Fh, Arc<Handle>>>,
}

impl Handles {
    /// `seed` differs between workers, so that numbers of an earlier one are not given again.
    pub(super) fn new(seed: u64) -> Handles {
        Handles { next: AtomicU64::new(seed >> 8), open: RwLock::default() }
    }

    pub(super) fn add(&self, writes: bool) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed) << 1 | u64::from(writes));
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(fh, Arc::default());
        fh
    }

    fn find(&self, fh: Fh) -> Option<Arc<Handle>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&fh).cloned()
    }

    fn remove(&self, fh: Fh) -> bool {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&fh).is_some()
    }
}

impl Drive {
    /// The handle `fh`; one that an earlier worker opened is known from now on.
    pub(super) fn handle(&self, ino: Ino, fh: Fh) -> Arc<Handle> {
        if let Some(handle) = self.inner.handles.find(fh) {
            return handle;
        }
        let mut open = self.inner.handles.open.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = !open.contains_key(&fh);
        let handle = open.entry(fh).or_default().clone();
        drop(open);
        if fresh {
            self.store().opens().opened(ino, fh.writes());
        }
        handle
    }

    /// How long a read through `fh` that must wait may do so, of `limit` for all that its handle waits without an answer.
    pub fn time_left(&self, ino: Ino, fh: Fh, limit: Duration) -> Duration {
        self.handle(ino, fh).patience().left(self.parts().clock.monotonic(), limit)
    }

    /// The last descriptor of an open file was closed. The row is brought up to date and the planner told.
    pub fn release(&self, ino: Ino, fh: Fh) {
        if self.inner.handles.remove(fh) {
            self.store().opens().closed(ino, fh.writes());
        }
        if fh.writes()
            && let Err(e) = self.bring_row_up_to_date(ino)
        {
            tracing::warn!("release inode {ino}: {e}");
        }
    }
}
