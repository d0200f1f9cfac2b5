//! Attempts whose answer was lost: what was sent is noted before, and what the remote shows later is compared with the note.

use super::Shared;
use super::goal::Goal;
use super::operate::Progress;
use crate::error::{Kind, Result};
use crate::model::{FileKind, Ino};
use crate::remote::{Body, Place};
use crate::store::{Attempt, View, Which};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

/// Contents up to this size are remembered by their hash while they are sent, bytes.
const ATTEMPT_BYTES_MAX: u64 = 8 << 20;

/// A note of content that goes to `goal`.
pub(super) fn content_of(goal: &Goal, body: &Body) -> Result<Attempt> {
    let sha256 = match body.size() {
        size if size <= ATTEMPT_BYTES_MAX => Sha256::digest(body.read(0..size)?).to_vec(),
        _ => Vec::new(),
    };
    Ok(Attempt { size: body.size(), sha256, ..Attempt::at(goal.parent, &goal.raw) })
}

/// A note of a symbolic link that goes to `goal`.
pub(super) fn link_of(goal: &Goal, target: &[u8]) -> Attempt {
    Attempt {
        size: target.len() as u64,
        sha256: Sha256::digest(target).to_vec(),
        ..Attempt::at(goal.parent, &goal.raw)
    }
}

impl Shared {
    /// Finds out what became of the last attempt, if its answer was lost: what it sent is known by a note that the next
    /// attempt replaces. `None` where it left nothing; else the planner must look first.
    pub(super) async fn last_attempt(&self, ino: Ino) -> Result<Option<Progress>> {
        let facts = self.store().read(|rows| {
            let Some(attempt) = rows.attempt(ino)? else { return Ok(None) };
            let directory = rows.remote_path(0, attempt.parent)?;
            let (base, before) = (rows.view(ino, 0, Which::Base)?, rows.view(ino, 0, Which::Remote)?);
            let way = rows.on_its_way(attempt.parent)?;
            Ok(Some((attempt.parent, way, directory.map(|directory| directory.join(&attempt.name)), base, before)))
        })?;
        let Some((parent, way, path, base, before)) = facts else { return Ok(None) };
        if before.as_ref().is_some_and(|before| base.is_none_or(|base| !base.same_content(before))) {
            // Seen since the step was planned.
            return Ok(Some(Progress::Went));
        }
        if let Some(way) = way {
            return Ok(Some(Progress::Waits(way)));
        }
        if let Some(path) = path {
            if self.guard.is_busy(&path) {
                return Ok(Some(Progress::Busy));
            }
            let (_, noted) = self.look_closely(&Place::at(path)).await?;
            if !noted {
                // A call of ours touched the place meanwhile.
                return Ok(Some(Progress::Busy));
            }
        }
        self.store().write(|tx| {
            if tx.view(ino, 0, Which::Remote)? != before {
                return Ok(Some(Progress::Went));
            }
            if let Some(way) = tx.on_its_way(parent)? {
                return Ok(Some(Progress::Waits(way)));
            }
            tx.set_attempt(ino, None)?;
            Ok(None)
        })
    }

    /// Whether the remote's content, or the target of its link, is what we last sent without hearing of it.
    pub(super) async fn is_ours(&self, ino: Ino, view: &View) -> Result<bool> {
        let link = view.kind == FileKind::Symlink;
        // What an inode sent that had the name before is ours too. Not every remote tells a link's size.
        let sent: Vec<Attempt> = self.store().read(|rows| {
            let at = rows.attempts_at(view.parent, &view.name)?;
            Ok(at.into_iter().chain(rows.attempt(ino)?).filter(|sent| link || sent.size == view.size).collect())
        })?;
        if link && !sent.is_empty() {
            let sum = Sha256::digest(self.link_target(ino).await?);
            return Ok(sent.iter().any(|sent| sent.sha256[..] == sum[..]));
        }
        let Some(version) = view.version.as_ref().filter(|_| !sent.is_empty()) else { return Ok(false) };
        let size = view.size;
        let mut sum = Sha256::new();
        if size > 0 {
            let place = self.place(ino)?;
            let mut stream = match self.remote().read(&place, version, 0..size).await {
                Err(e) if e.kind == Kind::Changed => return Ok(false),
                other => other?,
            };
            while let Some(chunk) = stream.next().await {
                sum.update(&chunk?);
            }
        }
        let sum = sum.finalize();
        Ok(sent.iter().any(|sent| sent.sha256[..] == sum[..]))
    }
}
