//! How `drive` and `sync` reach each other without calling each other: what a program waits for that only the remote can tell.

use crate::error::{Error, Kind, Result};
use crate::model::Ino;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait at once. The kernel has at most `max_background` and a few more open.
const WANTS_MAX: usize = 4096;

/// Something that a program on the mount waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The children of a directory that was never listed.
    List(Ino),
    /// Whether the remote still has the version that we know.
    Check(Ino),
    /// The attributes of an inode whose listing did not tell them.
    Meta(Ino),
    /// Where a remote's symbolic link points to.
    Link(Ino),
}

/// A wish, and where its answer goes. The answer says only that the store now knows.
pub struct Want {
    pub wish: Wish,
    pub done: oneshot::Sender<Result<()>>,
}

/// The drive's end.
pub struct Wants {
    sender: mpsc::Sender<Want>,
    online: AtomicBool,
}

impl Wants {
    /// A channel; the second end belongs to `sync`.
    pub fn channel() -> (Wants, mpsc::Receiver<Want>) {
        let (sender, receiver) = mpsc::channel(WANTS_MAX);
        (Wants { sender, online: AtomicBool::new(true) }, receiver)
    }

    /// Whether the remote answered lately. Kept by `sync`.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Notes whether the remote answers.
    pub fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
    }

    /// Waits until the wish is fulfilled; the caller sets the deadline. `Unavailable` when too much is waiting.
    pub async fn wait(&self, wish: Wish) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.sender
            .try_send(Want { wish, done })
            .map_err(|_| Error::new(Kind::Unavailable, "too many programs wait for the remote"))?;
        answer.await.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the drive is shutting down")))
    }
}
