//! How remote changes become known: the change feed, or listing again what is in use; and the work that waits for nobody.

use super::Shared;
use super::guard::Listing;
use crate::error::{Kind, Result};
use crate::model::{Entry, FileKind, Ino, RemotePath};
use crate::remote::{Change, ChangeFeed, Place};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// The fact under which the feed's cursor is kept.
const CURSOR: &str = "cursor";
/// The fact that says when the last sweep of the whole tree ended, nanoseconds since 1970.
pub const SWEPT: &str = "swept";
/// A directory counts as in use for this long after a program last looked into it.
const IN_USE: Duration = Duration::from_secs(180);
/// Directories that are listed again in one round.
const REFRESHED_MAX: usize = 64;
/// Attributes asked for at once where listings do not tell them.
const META_AT_ONCE: usize = 32;
/// Shortest time between two sweeps of a remote without a feed.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// How often doubted places are looked at; twice as long after each round that left one of them in doubt.
const DOUBTS_EVERY: Duration = Duration::from_millis(100);
/// The longest of these pauses.
const DOUBTS_EVERY_MAX: Duration = Duration::from_secs(5);
/// How often the quota is asked for.
const QUOTA_EVERY: Duration = Duration::from_secs(60);
/// How long after a failed try the remote is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `stop`.
pub(super) async fn watch(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let work = async {
        tokio::join!(changes(&shared), refresh(&shared), quota(&shared), metadata(&shared), doubts(&shared));
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

impl Shared {
    fn heard<T>(&self, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.parts.wants.set_online(true),
            Err(e) => {
                if matches!(e.kind, Kind::Offline | Kind::TimedOut) {
                    self.parts.wants.set_online(false);
                }
                self.rates.set_error(&e.to_string(), self.parts.clock.wall_ns());
            }
        }
    }

    fn keep_fact(&self, key: &str, value: &str) {
        if let Err(e) = self.store().write(|tx| tx.set_fact(key, value)) {
            tracing::error!("keep {key}: {e}");
        }
    }
}

/// The sweep at the start, then the feed, or sweeps at an interval fitted to their cost.
async fn changes(shared: &Arc<Shared>) {
    let feed = shared.remote().capabilities().changes == ChangeFeed::Cursor;
    loop {
        let began = shared.parts.clock.monotonic();
        // The cursor comes before the sweep, so that no change falls between them.
        let cursor = if feed { shared.remote().changes(None, 0).await.map(|c| Some(c.cursor)) } else { Ok(None) };
        let outcome = match cursor {
            Ok(cursor) => {
                shared.sweeping.store(true, Ordering::Relaxed);
                let swept = shared.sweep().await;
                shared.sweeping.store(false, Ordering::Relaxed);
                swept.map(|()| cursor)
            }
            Err(e) => Err(e),
        };
        shared.heard(&outcome);
        match outcome {
            Ok(cursor) => {
                shared.keep_fact(SWEPT, &shared.parts.clock.wall_ns().to_string());
                let took = shared.parts.clock.monotonic() - began;
                if let Some(cursor) = cursor {
                    shared.keep_fact(CURSOR, &cursor);
                    follow(shared, cursor).await;
                } else {
                    tokio::time::sleep(SWEEP_EVERY.max(took * 20)).await;
                }
            }
            Err(e) => {
                tracing::warn!("sweep: {e}");
                tokio::time::sleep(e.retry_after.unwrap_or(RETRY)).await;
            }
        }
    }
}

/// Follows the feed until its cursor is of no more use.
async fn follow(shared: &Arc<Shared>, mut cursor: String) {
    let wait_ms = shared.settings.poll.as_millis() as u64;
    loop {
        // What our own calls touch from here on is not believed: the feed may have looked before them.
        let listing = shared.guard.listing();
        let outcome = shared.remote().changes(Some(cursor.clone()), wait_ms).await;
        shared.heard(&outcome);
        match outcome {
            Ok(changes) if changes.reset => return,
            Ok(changes) => {
                if let Err(e) = apply(shared, &listing, changes.changes).await {
                    tracing::warn!("apply changes: {e}");
                    tokio::time::sleep(RETRY).await;
                    // A sweep finds what could not be applied.
                    return;
                }
                if cursor != changes.cursor {
                    shared.keep_fact(CURSOR, &changes.cursor);
                    cursor = changes.cursor;
                }
            }
            Err(e) => tokio::time::sleep(e.retry_after.unwrap_or(RETRY)).await,
        }
    }
}

/// Our own calls are reported too: what they touch is looked at again, when they have ended.
async fn apply(shared: &Arc<Shared>, listing: &Listing<'_>, changes: Vec<Change>) -> Result<()> {
    let mut look: Vec<(RemotePath, bool)> = Vec::new();
    let mut seen: Vec<(RemotePath, Entry)> = Vec::new();
    for change in changes {
        match change {
            Change::Present(path, entry) => {
                seen.push((path.clone(), (*entry).clone()));
                if shared.note_present(&path, &entry, listing)?.is_none() {
                    // A call of ours was there, or its directory is not known: it was doubted itself, or comes later.
                    shared.guard.doubt(&path);
                } else if entry.kind == FileKind::Directory {
                    look.push((path, true));
                }
            }
            Change::Absent(path) => {
                if shared.guard.is_busy(&path) || shared.guard.is_busy_below(&path) {
                    shared.guard.doubt(&path);
                } else {
                    // A rename here makes the old place absent; whatever is there now is asked for.
                    shared.look(&Place::at(path)).await?;
                }
            }
            Change::Look { directory, deep } => look.push((directory, deep)),
        }
    }
    // Once all that moved is known at its new place.
    for (path, entry) in seen {
        shared.ask_for(shared.namesakes_at(&path, &entry)?).await?;
    }
    look.sort();
    look.dedup();
    for (directory, deep) in look {
        let Some(ino) = shared.store().read(|rows| rows.at_remote_path(0, &directory))? else { continue };
        list_below(shared, ino, deep).await?;
    }
    Ok(())
}

pub(super) async fn list_below(shared: &Arc<Shared>, ino: Ino, deep: bool) -> Result<()> {
    let mut next = vec![ino];
    while let Some(ino) = next.pop() {
        match shared.list_directory(ino).await {
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::NotDirectory | Kind::Stale) => {}
            Err(e) => return Err(e),
            Ok(()) if deep => {
                let below = shared.store().read(|rows| {
                    let children = rows.remote_children(0, ino)?;
                    let mut found = Vec::new();
                    for (child, _) in children {
                        found.extend(rows.find_node(child)?.filter(|n| n.kind == FileKind::Directory).map(|n| n.ino));
                    }
                    Ok(found)
                })?;
                next.extend(below);
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Looks again at what was heard while our own calls touched the same place.
async fn doubts(shared: &Arc<Shared>) {
    let mut unlisted = Vec::new();
    let mut pause = DOUBTS_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let taken = shared.guard.take_doubted();
        for (path, below) in &taken {
            let below = *below;
            let outcome = look_again(shared, path, below).await;
            shared.heard(&outcome);
            match outcome {
                Ok(directory) => unlisted.extend(directory),
                Err(_) if below => shared.guard.doubt_below(path),
                Err(_) => shared.guard.doubt(path),
            }
        }
        for directory in std::mem::take(&mut unlisted) {
            let outcome = list_below(shared, directory, true).await;
            shared.heard(&outcome);
            if outcome.is_err() {
                unlisted.push(directory);
            }
        }
        let in_vain = !unlisted.is_empty() || taken.iter().any(|(path, _)| shared.guard.is_doubted(path));
        pause = if in_vain { (pause * 2).min(DOUBTS_EVERY_MAX) } else { DOUBTS_EVERY };
    }
}

/// Looks at a doubted place. Returns a directory that must be listed: it was not known before, so what was heard of its
/// children was heard in vain.
async fn look_again(shared: &Shared, path: &RemotePath, below: bool) -> Result<Option<Ino>> {
    let known = || shared.store().read(|rows| rows.at_remote_path(0, path));
    let before = known()?;
    let entry = shared.look(&Place::at(path.clone())).await?;
    let now = known()?;
    if entry.is_some() && now.is_none() {
        match path.split() {
            // Nothing can be noted of it before its directory is known.
            Some((parent, _)) if shared.store().read(|rows| rows.at_remote_path(0, &parent))?.is_none() => {
                shared.guard.doubt_below(&parent);
            }
            _ => shared.guard.doubt(path),
        }
    }
    let is_directory = entry.is_some_and(|entry| entry.kind == FileKind::Directory);
    Ok(now.filter(|_| is_directory && (below || before.is_none())))
}

/// The directories that are worth listing again now.
///
/// What somebody looked into is listed every `refresh`, then more and more rarely until somebody looks again. Where more than
/// [`REFRESHED_MAX`] are in use something walks the tree (`find`, a backup): then only those that somebody came back to.
fn to_refresh(shared: &Shared, now: Duration) -> Vec<Ino> {
    let opens = shared.store().opens();
    let used = opens.used_directories(now.saturating_sub(IN_USE));
    let walked = used.len() > REFRESHED_MAX;
    let due = |ino: Ino, unused: Duration| {
        let age = opens.checked(ino).map_or(Duration::MAX, |then| now.saturating_sub(then));
        age >= shared.settings.refresh.max(unused)
    };
    let worth = used.into_iter().filter(|(_, used)| used.again || !walked);
    worth.filter(|(ino, used)| due(*ino, now.saturating_sub(used.at))).map(|(ino, _)| ino).take(REFRESHED_MAX).collect()
}

/// Lists directories in use again, where no feed reports changes.
async fn refresh(shared: &Arc<Shared>) {
    if shared.remote().capabilities().changes == ChangeFeed::Cursor {
        return;
    }
    loop {
        tokio::time::sleep(shared.settings.refresh).await;
        // A sweep under way lists everything.
        if shared.sweeping.load(Ordering::Relaxed) {
            continue;
        }
        for ino in to_refresh(shared, shared.parts.clock.monotonic()) {
            let outcome = shared.list_directory(ino).await;
            shared.heard(&outcome);
            if let Err(e) = outcome
                && e.kind.retry() == crate::error::Retry::Later
            {
                break;
            }
        }
    }
}

async fn quota(shared: &Arc<Shared>) {
    if !shared.remote().capabilities().quota {
        return;
    }
    loop {
        let outcome = shared.remote().quota().await;
        shared.heard(&outcome);
        if let Ok(quota) = outcome {
            shared.keep_fact(crate::model::QUOTA_FACT, &quota.text());
        }
        tokio::time::sleep(QUOTA_EVERY).await;
    }
}

/// Asks, in the background, for attributes and link targets that no listing told.
async fn metadata(shared: &Arc<Shared>) {
    loop {
        let mut after = 0;
        loop {
            let found = shared.store().read(|rows| rows.meta_unknown(after, 1024)).unwrap_or_default();
            let Some(last) = found.last() else { break };
            after = last.get();
            let failed = futures_util::stream::iter(found)
                .map(|ino| async move { tell_meta(shared, ino).await })
                .buffer_unordered(META_AT_ONCE)
                .filter(|outcome| std::future::ready(outcome.is_err()))
                .count()
                .await;
            if failed > 0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn tell_meta(shared: &Shared, ino: Ino) -> Result<()> {
    let place = match shared.place(ino) {
        Ok(place) => place,
        Err(_) => {
            // Nothing to ask: the remote does not have it.
            return shared.store().write(|tx| {
                let mut node = tx.node(ino)?;
                node.meta_known = true;
                tx.set_node(&node)
            });
        }
    };
    let outcome = shared.look(&place).await.map(drop);
    shared.heard(&outcome);
    outcome
}
