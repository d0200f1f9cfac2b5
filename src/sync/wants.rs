//! Serves what programs wait for: one look per inode at a time, however many ask.

use super::Shared;
use super::engine::is_local_only;
use crate::error::{Error, Kind, Result};
use crate::events::{Want, Wish};
use crate::model::Ino;
use crate::store::Content;
use crate::sys::locked;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Wishes under way on a line that hangs, of those that a program can do without: a `find` must not leave one for each file.
const HANGING_MAX: usize = 64;

/// How long a file that must be on the remote waits for one that cannot be reached.
const OFFLINE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often what waits is hurried meanwhile.
const HURRY_EVERY: Duration = Duration::from_secs(1);

type Waiting = Arc<Mutex<HashMap<(Ino, u8), Vec<oneshot::Sender<Result<()>>>>>>;

const fn number(wish: Wish) -> (Ino, u8) {
    match wish {
        Wish::List(ino) => (ino, 0),
        Wish::Check(ino) => (ino, 1),
        Wish::Meta(ino) => (ino, 2),
        Wish::Link(ino) => (ino, 3),
        Wish::Save(ino) => (ino, 4),
    }
}

/// Whether a program goes on with what is known when this is not fulfilled.
const fn can_do_without(wish: Wish) -> bool {
    matches!(wish, Wish::Check(_) | Wish::Meta(_))
}

/// Runs until the drive is gone.
pub(super) async fn serve(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Want>) {
    let waiting = Waiting::default();
    while let Some(Want { wish, done }) = inbox.recv().await {
        let key = number(wish);
        let first = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= HANGING_MAX && !shared.parts.wants.is_prompt() && can_do_without(wish) {
                let why = "the remote does not answer, and enough is asked of it";
                // Who gave up waiting needs no answer.
                let _ = done.send(Err(Error::new(Kind::Unavailable, why)));
                continue;
            }
            let asking = waiting.entry(key).or_default();
            asking.push(done);
            asking.len() == 1
        };
        if first {
            let (shared, waiting) = (shared.clone(), waiting.clone());
            tokio::spawn(async move {
                let answer = fulfil(&shared, wish).await;
                if answer.is_ok() {
                    shared.parts.wants.set_prompt();
                }
                let asking = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).unwrap_or_default();
                for done in asking {
                    // Who gave up waiting needs no answer.
                    let _ = done.send(answer.clone());
                }
            });
        }
    }
}

async fn fulfil(shared: &Shared, wish: Wish) -> Result<()> {
    match wish {
        Wish::List(ino) => shared.list_directory(ino).await,
        Wish::Check(ino) | Wish::Meta(ino) => {
            let now = shared.parts.clock.monotonic();
            let place = shared.place(ino)?;
            shared.look(&place).await?;
            shared.store().opens().set_checked(ino, now);
            if matches!(wish, Wish::Check(_)) {
                shared.use_directory(ino);
            }
            Ok(())
        }
        Wish::Link(ino) => shared.keep_link(ino).await,
        Wish::Save(ino) => shared.save(ino).await,
    }
}

impl Shared {
    /// Reads a link's target into the store.
    pub(super) async fn keep_link(&self, ino: Ino) -> Result<()> {
        let target = self.link_target(ino).await?;
        self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            if node.target.is_none() {
                node.size = target.len() as u64;
                node.target = Some(target);
                tx.set_node(&node)?;
            }
            Ok(())
        })
    }

    /// Waits until the remote has what was written to a file. An error says why it does not: the bytes stay here, and wait.
    async fn save(&self, ino: Ino) -> Result<()> {
        locked(&self.awaited).insert(ino);
        let saved = self.saved(ino).await;
        locked(&self.awaited).remove(&ino);
        saved
    }

    async fn saved(&self, ino: Ino) -> Result<()> {
        let mut offline_since = None;
        let mut rung: Option<Duration> = None;
        loop {
            // Not at each look: it ends the pauses after failures too.
            let asked = self.parts.clock.monotonic();
            if rung.is_none_or(|then| asked.saturating_sub(then) >= HURRY_EVERY) {
                self.hurry.notify_one();
                rung = Some(asked);
            }
            let (waits, failure) = self.store().read(|rows| {
                let dirty = rows.find_node(ino)?.is_some_and(|node| node.content == Content::Dirty);
                let name = rows.place(ino)?.map(|(_, name)| name);
                let sent = name.is_some_and(|name| !is_local_only(&self.settings.local_only, name.as_bytes()));
                Ok((dirty && sent, rows.failure(ino)?))
            })?;
            if !waits {
                return Ok(());
            }
            let kept = |kind, why: &str| Error::new(kind, format!("{why}; it is kept on this machine and sent later"));
            if let Some(reason) = failure {
                return Err(kept(Kind::Unavailable, &reason));
            }
            let now = self.parts.clock.monotonic();
            match offline_since {
                _ if self.parts.wants.is_online() => offline_since = None,
                None => offline_since = Some(now),
                Some(since) if now.saturating_sub(since) > OFFLINE_MAX => {
                    return Err(kept(Kind::Offline, "the remote cannot be reached"));
                }
                Some(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Notes that the directory of `ino` is in use, so that it is listed again in the background.
    pub(super) fn use_directory(&self, ino: Ino) {
        if let Ok(Some((parent, _))) = self.store().read(|rows| rows.place(ino)) {
            self.store().opens().use_directory(parent, self.parts.clock.monotonic());
        }
    }
}
