//! What makes both sides agree: sweeps and the change feed bring the remote's view, the planner and its workers send ours.
//!
//! One task decides (`engine`), many act. What a crash interrupts is seen again in the views; only upload sessions are kept.
//! `drive` is reached through the store and [`crate::events`] alone.

mod attempts;
mod circle;
mod conflict;
mod displaced;
mod engine;
mod feed;
mod goal;
mod guard;
mod listing;
mod locate;
mod names;
mod observe;
mod operate;
pub mod plan;
mod queue;
mod report;
mod upload;
mod wants;

pub use engine::{Sync, SyncSettings, Touched};
pub use feed::SWEPT;
pub use report::{Moving, Report};

use crate::cache::Cache;
use crate::error::{Error, Kind, Result};
use crate::events::Wants;
use crate::fetch::Fetcher;
use crate::journal::Journal;
use crate::model::{Entry, FileKind, Ino, RemotePath};
use crate::remote::{Place, Remote};
use crate::store::{Rows, Store, Tx, Which};
use crate::sys::Clock;
use guard::{Guard, Listing};
use names::Names;
use observe::Observer;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// The parts that `sync` works with.
pub struct SyncParts {
    pub store: Arc<Store>,
    pub journal: Arc<Journal>,
    pub cache: Arc<Cache>,
    pub fetcher: Arc<Fetcher>,
    pub remote: Arc<dyn Remote>,
    pub clock: Arc<dyn Clock>,
    pub wants: Arc<Wants>,
}

/// What all workers share.
pub(crate) struct Shared {
    parts: SyncParts,
    settings: SyncSettings,
    names: Names,
    guard: Guard,
    /// Whether the whole tree is being looked at.
    sweeping: AtomicBool,
    /// Rung when what waits is to be sent without waiting for the quiet time.
    hurry: Notify,
    /// Files whose close waits for the remote: sent although they are still open.
    awaited: Mutex<HashSet<Ino>>,
    moving: report::MovingTable,
    rates: report::Rates,
}

impl Shared {
    fn store(&self) -> &Store {
        &self.parts.store
    }

    fn remote(&self) -> &dyn Remote {
        self.parts.remote.as_ref()
    }

    fn observer(&self) -> Observer<'_> {
        let meta = self.remote().capabilities().meta;
        Observer {
            names: &self.names,
            opens: self.parts.store.opens(),
            now_ns: self.parts.clock.wall_ns(),
            meta_in_listing: meta.in_listing,
            keeps_meta: meta.mode || meta.mtime_step_ns > 0 || meta.xattr_bytes_max > 0,
        }
    }

    /// Where an inode is on the remote. `NotFound`: the remote does not have it.
    fn place(&self, ino: Ino) -> Result<Place> {
        self.store().read(|rows| place_of(rows, ino))
    }

    /// Notes what the remote has at a path. `None`, and nothing noted, where the listing is not to be believed there (the place is
    /// doubted then) or its directory is not known.
    ///
    /// Believed inside the transaction: a call of ours that begins after it is noted after it too.
    fn note_present(&self, path: &RemotePath, entry: &Entry, listing: &Listing<'_>) -> Result<Option<Ino>> {
        let Some((parent, raw)) = path.split() else { return Ok(None) };
        self.store().write(|tx| {
            if !listing.believes(path) {
                return Ok(None);
            }
            let entry = &listing.settled(path, entry);
            let Some(parent) = tx.at_remote_path(0, &parent)? else { return Ok(None) };
            let (ino, noted) = self.take_in(tx, listing, path, (parent, raw), entry)?;
            Ok(noted.then_some(ino))
        })
    }

    /// Notes an entry at its place; its inode, and whether it was noted. Not while our own move of it is under way, nor where somebody
    /// else's move of it may have been heard of already: then the place is doubted.
    fn take_in(
        &self,
        tx: &mut Tx<'_>,
        listing: &Listing<'_>,
        path: &RemotePath,
        (parent, raw): (Ino, &str),
        entry: &Entry,
    ) -> Result<(Ino, bool)> {
        let known = entry.id.as_ref().map_or(Ok(None), |id| tx.by_id(0, id))?;
        if let Some(ino) = known
            && let Some(view) = tx.view(ino, 0, Which::Remote)?
            && (view.parent, view.name.as_str()) != (parent, raw)
            && !listing.moves(ino, path)
        {
            return Ok((ino, false));
        }
        let ino = self.observer().present(tx, parent, raw, entry)?;
        let moving = tx.moving(ino)?.is_some();
        if moving {
            self.guard.doubt(path);
        }
        Ok((ino, !moving))
    }

    /// Notes that the remote has nothing at a path. False, and nothing noted, where the listing is not to be believed there.
    fn note_absent(&self, path: &RemotePath, listing: &Listing<'_>) -> Result<bool> {
        let mut believed = true;
        let gone = self.store().write(|tx| {
            if !listing.believes_absence(path) {
                believed = false;
                return Ok(None);
            }
            let Some(ino) = tx.at_remote_path(0, path)?.filter(|ino| *ino != Ino::ROOT) else { return Ok(None) };
            self.observer().absent(tx, ino)?;
            Ok(Some(ino))
        })?;
        if let Some(ino) = gone {
            self.drop_if_unneeded(ino)?;
        }
        Ok(believed)
    }

    /// Looks at one place of the remote and notes what is there; nothing if a call of ours touched it meanwhile. By its path: what has
    /// the id of the place may be somewhere else by now.
    async fn look(&self, place: &Place) -> Result<Option<Entry>> {
        Ok(self.look_closely(place).await?.0)
    }

    /// The same, and whether it was noted.
    async fn look_closely(&self, place: &Place) -> Result<(Option<Entry>, bool)> {
        let listing = self.guard.listing();
        let entry = self.remote().stat(&Place::at(place.path.clone())).await?;
        let noted = match &entry {
            Some(entry) => self.note_present(&place.path, entry, &listing)?.is_some(),
            None => self.note_absent(&place.path, &listing)?,
        };
        Ok((entry, noted))
    }

    /// Drops cached blocks of an inode but those of `keep`. It is only cache: a failure costs space, not bytes.
    fn forget_blocks(&self, ino: Ino, keep: Option<&crate::model::Version>) {
        if let Err(e) = self.parts.cache.remove(ino, keep) {
            tracing::warn!("{e}");
        }
    }

    /// Drops the rows, the journal file and the blocks of an inode that neither side and no program needs.
    fn drop_if_unneeded(&self, ino: Ino) -> Result<()> {
        if self.store().purge(ino, || self.parts.journal.discard(ino))? {
            self.forget_blocks(ino, None);
        }
        Ok(())
    }
}

/// Where an inode is on the remote, by the remote's own view.
fn place_of(rows: &Rows<'_>, ino: Ino) -> Result<Place> {
    let path = rows.remote_path(0, ino)?;
    let path = path.ok_or_else(|| Error::new(Kind::NotFound, format!("inode {ino} is not on the remote")))?;
    let id = rows.view(ino, 0, Which::Remote)?.and_then(|v| v.id);
    Ok(Place { path, id })
}

/// Whether an inode has content that is sent byte for byte.
fn has_content(kind: FileKind) -> bool {
    kind == FileKind::File
}
