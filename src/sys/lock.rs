//! Locks that outlive a panic, and the one order that two of them have: a staged file before the store's writer.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also when a thread panicked while it held it.
///
/// What our locks guard is brought from one whole state to the next within a few lines that cannot panic, so a poisoned
/// lock means that some other line of that thread did, and a drive that refuses everything afterwards helps nobody.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar`, also when a thread panicked while it held the lock.
pub(crate) fn waited<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// This thread has the store's writer, until it is dropped.
pub(crate) struct Writing(());

impl Writing {
    pub(crate) fn begin() -> Writing {
        WRITING.set(true);
        Writing(())
    }

    /// Whether this thread has it. Whoever locks a staged file then could wait for one that has the file and waits for the
    /// writer: the whole mount would stand still.
    pub(crate) fn goes_on() -> bool {
        WRITING.get()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.set(false);
    }
}
