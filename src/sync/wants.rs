//! Serves what programs wait for: one look per inode at a time, however many ask.

use super::Shared;
use crate::error::Result;
use crate::events::{Want, Wish};
use crate::model::Ino;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

type Waiting = Arc<Mutex<HashMap<(Ino, u8), Vec<oneshot::Sender<Result<()>>>>>>;

const fn number(wish: Wish) -> (Ino, u8) {
    match wish {
        Wish::List(ino) => (ino, 0),
        Wish::Check(ino) => (ino, 1),
        Wish::Meta(ino) => (ino, 2),
        Wish::Link(ino) => (ino, 3),
    }
}

/// Runs until the drive is gone.
pub(super) async fn serve(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Want>) {
    let waiting = Waiting::default();
    while let Some(Want { wish, done }) = inbox.recv().await {
        let key = number(wish);
        let first = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Notes that the directory of `ino` is in use, so that it is listed again in the background.
    pub(super) fn use_directory(&self, ino: Ino) {
        if let Ok(Some((parent, _))) = self.store().read(|rows| rows.place(ino)) {
            self.store().opens().use_directory(parent, self.parts.clock.monotonic());
        }
    }
}
