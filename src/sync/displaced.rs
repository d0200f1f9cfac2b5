//! Inodes that the remote had at a place where it has another one now.
//!
//! A listing, or a feed that speaks of paths, tells what is there and not what left: that may be somewhere else, a namesake (some
//! providers allow two of one name), or gone. Ids tell.

use super::Shared;
use crate::error::Result;
use crate::model::{Entry, Ino, RemotePath};
use crate::remote::Place;
use crate::store::{Rows, Which};

/// The inodes other than `entry`'s that we believe at its place, by their ids.
pub(super) fn namesakes(rows: &Rows<'_>, parent: Ino, raw: &str, entry: &Entry) -> Result<Vec<Ino>> {
    let Some(id) = &entry.id else { return Ok(Vec::new()) };
    let mut others = Vec::new();
    for ino in rows.remote_namesakes(0, parent, raw)? {
        let theirs = rows.view(ino, 0, Which::Remote)?.and_then(|view| view.id);
        if theirs.is_some_and(|theirs| theirs != *id) {
            others.push(ino);
        }
    }
    Ok(others)
}

impl Shared {
    /// The same by the path of the entry.
    pub(super) fn namesakes_at(&self, path: &RemotePath, entry: &Entry) -> Result<Vec<Ino>> {
        let Some((parent, raw)) = path.split() else { return Ok(Vec::new()) };
        self.store().read(|rows| match rows.at_remote_path(0, &parent)? {
            Some(parent) => namesakes(rows, parent, raw, entry),
            None => Ok(Vec::new()),
        })
    }

    /// Asks for each of these by its id, and notes which are gone. Nothing to do where ids are not stable.
    pub(super) async fn ask_for(&self, suspects: impl IntoIterator<Item = Ino>) -> Result<()> {
        if !self.remote().capabilities().stable_ids {
            return Ok(());
        }
        for ino in suspects {
            let facts = |rows: &Rows<'_>| {
                Ok((rows.view(ino, 0, Which::Remote)?, rows.remote_path(0, ino)?, rows.moving(ino)?.is_some()))
            };
            let seen = self.store().read(facts)?;
            let (Some(view), Some(path), false) = seen.clone() else { continue };
            let Some(id) = view.id else { continue };
            let listing = self.guard.listing();
            if self.remote().stat(&Place { path: path.clone(), id: Some(id) }).await?.is_some() {
                continue;
            }
            let gone = self.store().write(|tx| {
                let still = facts(tx)? == seen && listing.believes(&path);
                if still {
                    self.observer().absent(tx, ino)?;
                }
                Ok(still)
            })?;
            if gone {
                tracing::debug!("inode {ino}: gone on the remote; {path} is another one");
                self.drop_if_unneeded(ino)?;
            }
        }
        Ok(())
    }
}
