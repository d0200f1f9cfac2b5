//! How `drive` and `sync` reach each other without calling each other: what a program waits for that only the remote can tell.

use crate::error::{Error, Kind, Result, Retry};
use crate::model::Ino;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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
    /// That the remote has what was written to this file.
    Save(Ino),
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
    /// Whether the last answer that a program waited for shortly came in time.
    prompt: AtomicBool,
}

impl Wants {
    /// A channel; the second end belongs to `sync`.
    pub fn channel() -> (Wants, mpsc::Receiver<Want>) {
        let (sender, receiver) = mpsc::channel(WANTS_MAX);
        (Wants { sender, online: AtomicBool::new(true), prompt: AtomicBool::new(true) }, receiver)
    }

    /// Whether the remote answered lately. Kept by `sync`.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Whether the remote answers, and the last answer that a program waited for came in time.
    pub fn is_prompt(&self) -> bool {
        self.is_online() && self.prompt.load(Ordering::Relaxed)
    }

    /// Notes whether the remote answers.
    pub fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
    }

    /// Waits for at most `patience` for what a program can do without. On a line that hangs one program waits once: until an
    /// answer comes, however late, nobody waits again.
    pub async fn wait_shortly(&self, wish: Wish, patience: Duration) {
        if !self.is_prompt() {
            // Asked all the same: its answer tells that the line is back.
            let _ = self.send(wish);
            return;
        }
        let Ok(answer) = self.send(wish) else { return };
        let hangs = match tokio::time::timeout(patience, answer).await {
            Err(_) => true,
            Ok(answered) => matches!(answered, Ok(Err(e)) if e.kind.retry() == Retry::Later),
        };
        if hangs {
            self.prompt.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that a wish was fulfilled.
    pub fn set_prompt(&self) {
        self.prompt.store(true, Ordering::Relaxed);
    }

    /// Waits until the wish is fulfilled; the caller sets the deadline. `Unavailable` when too much is waiting.
    pub async fn wait(&self, wish: Wish) -> Result<()> {
        self.send(wish)?.await.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the drive is shutting down")))
    }

    fn send(&self, wish: Wish) -> Result<oneshot::Receiver<Result<()>>> {
        let (done, answer) = oneshot::channel();
        self.sender
            .try_send(Want { wish, done })
            .map_err(|_| Error::new(Kind::Unavailable, "too many programs wait for the remote"))?;
        Ok(answer)
    }
}
