//! `write`, `truncate`, `flush`, `fsync`: into the journal.

use super::handles::Fh;
use super::open::regular;
use super::{Answer, Drive};
use crate::error::{Error, Kind, Result};
use crate::events::Wish;
use crate::journal::{Base, Clean, Identity, Staged};
use crate::model::Ino;
use crate::store::{Content, Node, Which};
use std::sync::Arc;
use std::time::Duration;

/// Space asked for at once by a writer that waits: enough that it does not wait again for each call.
const WAIT_BYTES: u64 = 4 << 20;

impl Drive {
    /// The staged file of an inode; a clean file is staged first, by renaming its cache file.
    pub(super) fn stage(&self, ino: Ino) -> Result<Arc<Staged>> {
        if let Some(staged) = self.parts().journal.get(ino) {
            return Ok(staged);
        }
        let (node, path, id) = self.store().read(|rows| {
            let id = rows.view(ino, 0, Which::Remote)?.and_then(|v| v.id);
            Ok((rows.node(ino)?, rows.path(ino)?.unwrap_or_default(), id))
        })?;
        regular(&node)?;
        let identity = Identity { ino, path, remote_id: id };
        let mtime_ns = node.times.mtime_ns;
        let staged = match &node.content {
            Content::Version(version) => {
                let base = Base { version: version.as_str().to_owned(), size: node.size };
                let cache = &self.parts().cache;
                self.parts().journal.stage(identity, Some(base), mtime_ns, node.size, |to, disk| {
                    match cache.take(ino, version, to) {
                        Ok(Some(taken)) => {
                            Ok(Clean { file: taken.file, present: taken.present, allocated: taken.allocated })
                        }
                        Ok(None) => Clean::nothing(to, disk),
                        // The cache is on another file system: what is missing is fetched.
                        Err(e) if e.kind == Kind::CrossDevice => Clean::nothing(to, disk),
                        Err(e) => Err(std::io::Error::from_raw_os_error(e.errno())),
                    }
                })?
            }
            _ => {
                let staged = self.parts().journal.create(identity, mtime_ns)?;
                self.stay_dirty(ino)?;
                staged
            }
        };
        if matches!(node.content, Content::Version(_)) && !self.mark_dirty(&node)? {
            // The remote's change came in between. Nothing was acknowledged yet.
            self.parts().journal.discard(ino)?;
            return Err(Error::new(Kind::Stale, format!("inode {ino} was changed by the remote")));
        }
        if !staged.is_whole() {
            // The rest of this version, as long as the remote has it.
            match self.base_target(ino, staged.clone()) {
                Ok(target) => self.parts().fetcher.fill(target),
                Err(e) => tracing::warn!("{e}"),
            }
        }
        Ok(staged)
    }

    /// Notes that the journal has the bytes; whether the row was still as it was seen.
    fn mark_dirty(&self, seen: &Node) -> Result<bool> {
        self.store().write(|tx| {
            let mut node = tx.node(seen.ino)?;
            if node.content == Content::Dirty {
                return Ok(true);
            }
            if node.content != seen.content {
                return Ok(false);
            }
            node.content = Content::Dirty;
            tx.set_node(&node)?;
            Ok(true)
        })
    }

    /// After a new file was staged: the upload of its empty form may be confirmed at this very moment, and the row with it.
    fn stay_dirty(&self, ino: Ino) -> Result<()> {
        let sent =
            self.store().read(|rows| Ok(rows.node(ino)?.content != Content::Dirty || rows.attempt(ino)?.is_some()))?;
        if !sent {
            return Ok(());
        }
        self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            node.content = Content::Dirty;
            tx.set_node(&node)
        })
    }

    /// Runs a change on the staged file, staging it first; once more if its upload was confirmed in between.
    fn on_staged(&self, ino: Ino, mut change: impl FnMut(&Staged) -> Result<()>) -> Result<()> {
        for _ in 0..16 {
            let changed = self.stage(ino).and_then(|staged| change(&staged));
            match changed {
                Err(e) if e.kind == Kind::Stale => {}
                other => return other,
            }
        }
        Err(Error::new(Kind::Unavailable, format!("inode {ino} keeps being confirmed under this write")))
    }

    /// Runs a change, and again after space was made, until `space_wait` is over.
    pub(super) fn with_space(
        &self,
        ino: Ino,
        bytes: u64,
        mut change: impl FnMut(&Staged) -> Result<()> + Send + 'static,
    ) -> Answer<()> {
        match self.on_staged(ino, &mut change) {
            Err(e) if e.kind == Kind::NoSpace => {}
            other => return Answer::Now(other),
        }
        let drive = self.clone();
        Answer::later(async move {
            let end = drive.parts().clock.monotonic() + drive.parts().settings.space_wait;
            loop {
                let left = end.saturating_sub(drive.parts().clock.monotonic());
                // What was reserved is given back at once: the change reserves exactly what it needs.
                let need = bytes.max(WAIT_BYTES.min(drive.parts().space.max() / 8));
                drive.parts().space.wait_for(need, left.min(Duration::from_millis(500))).await.ok();
                match drive.on_staged(ino, &mut change) {
                    Err(e) if e.kind == Kind::NoSpace && !left.is_zero() => {}
                    other => return other,
                }
            }
        })
    }

    /// Writes. On return the bytes survive the death of this process.
    ///
    /// `NoSpace`: the bound on the disk is reached and uploads did not free enough within `space_wait`; what was written
    /// before stays and is uploaded.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Answer<u32> {
        if let Err(e) = self.writable() {
            return Answer::Now(Err(e));
        }
        let len = data.len() as u32;
        let first = self.on_staged(ino, |staged| staged.write(offset, data));
        match first {
            Ok(()) => Answer::Now(Ok(len)),
            Err(e) if e.kind == Kind::NoSpace => {
                let data = data.to_vec();
                match self.with_space(ino, u64::from(len), move |staged| staged.write(offset, &data)) {
                    Answer::Now(done) => Answer::Now(done.map(|()| len)),
                    Answer::Later(work) => Answer::later(async move { work.await.map(|()| len) }),
                }
            }
            Err(e) => Answer::Now(Err(e)),
        }
    }

    /// Sets the size. What is added reads as zeros.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Answer<()> {
        let done = self.with_space(ino, 0, move |staged| staged.truncate(size));
        match done {
            Answer::Now(Ok(())) => Answer::Now(self.bring_row_up_to_date(ino)),
            Answer::Now(Err(e)) => Answer::Now(Err(e)),
            Answer::Later(work) => {
                let drive = self.clone();
                Answer::later(async move {
                    work.await?;
                    drive.bring_row_up_to_date(ino)
                })
            }
        }
    }

    /// A descriptor was closed. The bytes are in the journal; only with `close = "remote"` a writer waits for the remote, and is
    /// told (`Unavailable`, `Offline`) why it does not have them yet.
    pub fn flush(&self, ino: Ino, fh: Fh) -> Answer<()> {
        let brought = self.bring_row_up_to_date(ino);
        if brought.is_err() || !self.parts().settings.close_waits || !fh.writes() {
            return Answer::Now(brought);
        }
        let drive = self.clone();
        Answer::later(async move { drive.parts().wants.wait(Wish::Save(ino)).await })
    }

    /// [`Drive::fsync`] on a thread that may block: a disk can take long.
    pub fn fsync_later(&self, ino: Ino) -> Answer<()> {
        let drive = self.clone();
        Answer::later(async move {
            let work = tokio::task::spawn_blocking(move || drive.fsync(ino));
            work.await.unwrap_or_else(|e| Err(Error::new(Kind::Disk, format!("fsync: {e}"))))
        })
    }

    /// Makes what was written durable on this disk.
    pub fn fsync(&self, ino: Ino) -> Result<()> {
        if let Some(staged) = self.parts().journal.get(ino) {
            staged.sync()?;
            self.parts().journal.sync_names()?;
        }
        self.bring_row_up_to_date(ino)?;
        self.store().sync()
    }

    /// Makes changes of names durable on this disk.
    pub fn fsyncdir(&self) -> Result<()> {
        self.store().sync()
    }
}
