//! Tells the kernel of changes that are not its own, from one thread that holds no lock and serves no request.
//!
//! A notification waits for a directory's lock that an unanswered lookup may hold, so it is never sent from a handler. What
//! was not sent when a worker died stands in the store's outbox and is sent by the next one.

use crate::error::Result;
use crate::model::Ino;
use crate::store::{Event, Listener, Store};
use fuser::{INodeNo, Notifier};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Takes note that something is in the outbox.
pub struct Notices {
    wake: SyncSender<()>,
}

impl Notices {
    /// A listener for the store, and what wakes the thread.
    pub fn channel() -> (Notices, Receiver<()>) {
        // One waiting wake-up is enough: the thread empties the outbox each time.
        let (wake, woken) = sync_channel(1);
        (Notices { wake }, woken)
    }

    /// Runs until the other end is dropped.
    pub fn serve(store: &Store, notifier: &Notifier, woken: &Receiver<()>) {
        while woken.recv().is_ok() {
            if let Err(e) = empty_outbox(store, notifier) {
                tracing::warn!("tell the kernel of changes: {e}");
            }
        }
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

impl Listener for Notices {
    fn notice(&self, events: &[Event]) {
        if events.iter().any(|e| matches!(e, Event::Entry { .. } | Event::Content(_))) {
            self.wake();
        }
    }
}

/// Two listeners of one store.
pub struct Both<A, B>(pub Arc<A>, pub Arc<B>);

impl<A: Listener, B: Listener> Listener for Both<A, B> {
    fn notice(&self, events: &[Event]) {
        self.0.notice(events);
        self.1.notice(events);
    }
}

fn empty_outbox(store: &Store, notifier: &Notifier) -> Result<()> {
    let waiting = store.read(|rows| rows.outbox())?;
    let Some((last, _, _)) = waiting.last() else { return Ok(()) };
    for (_, ino, name) in &waiting {
        // ENOENT says that the kernel holds nothing of it, which is as good.
        let _ = match name {
            Some(name) => notifier.inval_entry(number(*ino), name.as_os_str()),
            None => notifier.inval_inode(number(*ino), 0, 0),
        };
    }
    store.write(|tx| tx.told(*last))
}

fn number(ino: Ino) -> INodeNo {
    INodeNo(ino.get())
}
