//! Bytes that no remote has. One sparse data file per dirty inode, with a header that says whose it is.
//!
//! * Nothing here is ever evicted; only a confirmed upload, or the user's own delete, takes a file out.
//! * A file that is only partly local (its clean rest is still on the remote) has a log beside it, one record for each range
//!   that is valid here, appended before the write is acknowledged. A file that is wholly here needs no log.
//! * The data file tells its own size and, after a crash, its own mtime.
//! * The journal never sees the network and never the store: who calls it keeps both in step. The order of a write-back is
//!   in `doc/storage.md`.

mod header;
mod log;
mod recovery;
mod staged;

pub use header::{Base, Header, Identity};
pub use recovery::Found;
pub use staged::{Confirmed, Snapshot, Staged};

use crate::error::{Context, Error, Kind, Result};
use crate::model::{Ino, RangeSet};
use crate::space::Space;
use crate::sys::{Clock, Disk, DiskFile, Open};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks that keep two first writes of one inode apart; inodes share them by their number.
const STAGING_LOCKS: usize = 64;

/// Disk bytes taken by a header and a log, charged for each staged file (one block of 4 KiB each).
const OVERHEAD_BYTES: u64 = 8192;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a clean file brings along when it is staged.
pub struct Clean {
    /// The data file, already at the path that was asked for.
    pub file: Arc<dyn DiskFile>,
    /// Bytes that are valid in it.
    pub present: RangeSet,
    /// What it is charged at the [`Space`] already.
    pub allocated: u64,
}

impl Clean {
    /// An empty data file at `path`, nothing of which is valid yet. What is there is a leftover that was never acknowledged.
    pub fn nothing(path: &Path, disk: &dyn Disk) -> std::io::Result<Clean> {
        let file = disk.open(path, Open::Create)?;
        file.set_len(0)?;
        Ok(Clean { file, present: RangeSet::new(), allocated: 0 })
    }
}

/// A data file that leaves the journal.
pub struct Leaving<'a> {
    pub path: &'a Path,
    pub file: &'a Arc<dyn DiskFile>,
    /// Its size in bytes.
    pub size: u64,
    /// Whether all its bytes are here.
    pub whole: bool,
    /// What it is charged at the [`Space`]; who takes the file takes the charge.
    pub charged: u64,
}

/// What all parts share.
struct Shared {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    space: Arc<Space>,
    dir: PathBuf,
}

/// The journal of one drive.
pub struct Journal {
    shared: Arc<Shared>,
    files: Mutex<HashMap<Ino, Arc<Staged>>>,
    staging: Vec<Mutex<()>>,
}

impl Shared {
    fn path(&self, ino: Ino, suffix: &str) -> PathBuf {
        self.dir.join(format!("{ino}.{suffix}"))
    }
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is absent. Call [`Journal::recover`] before anything else.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, space: Arc<Space>) -> Result<Journal> {
        disk.make_dirs(dir).context("make the journal directory")?;
        let shared = Arc::new(Shared { disk, clock, space, dir: dir.to_owned() });
        let staging = (0..STAGING_LOCKS).map(|_| Mutex::new(())).collect();
        Ok(Journal { shared, files: Mutex::new(HashMap::new()), staging })
    }

    /// The staged file of an inode.
    pub fn get(&self, ino: Ino) -> Option<Arc<Staged>> {
        lock(&self.files).get(&ino).cloned()
    }

    /// How many files are staged, and their bytes on disk.
    pub fn totals(&self) -> (u64, u64) {
        let files: Vec<Arc<Staged>> = lock(&self.files).values().cloned().collect();
        (files.len() as u64, files.iter().map(|f| f.disk_bytes()).sum())
    }

    /// Stages a new, empty file. `NoSpace`: the bound on the disk does not allow it now.
    pub fn create(&self, identity: Identity, mtime_ns: i64) -> Result<Arc<Staged>> {
        self.stage(identity, None, mtime_ns, 0, Clean::nothing)
    }

    /// Stages a file of `size` bytes whose clean version is `base`.
    ///
    /// `bring` puts the data file at the path it is given (by a rename from the cache, say) and tells what is valid in it.
    /// Returns the file that is there already when another caller was first. The caller then writes its row.
    pub fn stage(
        &self,
        identity: Identity,
        base: Option<Base>,
        mtime_ns: i64,
        size: u64,
        bring: impl FnOnce(&Path, &dyn Disk) -> std::io::Result<Clean>,
    ) -> Result<Arc<Staged>> {
        let ino = identity.ino;
        let _alone = lock(&self.staging[ino.get() as usize % STAGING_LOCKS]);
        if let Some(there) = self.get(ino) {
            return Ok(there);
        }
        let room = self.shared.space.reserve(OVERHEAD_BYTES)?;
        let doing = format!("stage inode {ino}");
        let path = self.shared.path(ino, "data");
        let clean = bring(&path, self.shared.disk.as_ref()).context(&doing)?;
        let stat = clean.file.stat().context(&doing)?;
        if stat.size != size {
            clean.file.set_len(size).context(&doing)?;
        }
        clean.file.set_mtime(mtime_ns).context(&doing)?;
        let header = Header::new(identity, base, clean.present.iter().collect());
        header.create(self.shared.disk.as_ref(), &self.shared.path(ino, "head")).context(&doing)?;
        let staged = Staged::new(self.shared.clone(), clean.file, header, clean.present, size, mtime_ns)?;
        staged.take_over(clean.allocated);
        room.commit(OVERHEAD_BYTES);
        let staged = Arc::new(staged);
        lock(&self.files).insert(ino, staged.clone());
        Ok(staged)
    }

    /// Ends the staging of a file whose bytes the remote has, or whose user deleted it. `take` may move the data file away
    /// first (into the cache). Later writes through the returned handle fail with `Stale` and look for the file anew.
    ///
    /// `agree` is given size and mtime, and runs while both are kept so; it writes the row and must not call the file.
    /// With `generation`, only if nothing was written since; [`Confirmed::Newer`] says that something was.
    pub fn finish(
        &self,
        ino: Ino,
        generation: Option<u64>,
        agree: impl FnOnce(u64, i64) -> Result<()>,
        take: impl FnOnce(Leaving<'_>) -> bool,
    ) -> Result<Confirmed> {
        let Some(staged) = self.get(ino) else { return Ok(Confirmed::Gone) };
        staged.retire(generation, agree, take, || {
            lock(&self.files).remove(&ino);
        })
    }

    /// Drops a staged file without keeping its bytes: its user deleted it.
    pub fn discard(&self, ino: Ino) -> Result<()> {
        self.finish(ino, None, |_, _| Ok(()), |_| false).map(drop)
    }

    /// Gives a staged file, found after a crash, to another inode.
    pub fn renumber(&self, staged: &Arc<Staged>, ino: Ino) -> Result<()> {
        let old = staged.ino();
        let doing = format!("journal file of inode {old}");
        let disk = &self.shared.disk;
        let header = staged.header();
        let (size, mtime_ns) = staged.size_and_mtime();
        let identity = Identity { ino, path: header.path_bytes(), remote_id: header.remote_id };
        // Nothing of a lost version can be fetched: what is not here reads as zeros.
        let whole = Header::new(identity, None, Vec::new());
        whole.create(disk.as_ref(), &self.shared.path(ino, "head")).context(&doing)?;
        disk.rename(&self.shared.path(old, "data"), &self.shared.path(ino, "data")).context(&doing)?;
        for suffix in ["head", "log"] {
            let _ = disk.remove(&self.shared.path(old, suffix));
        }
        let file = disk.open(&self.shared.path(ino, "data"), Open::Existing).context(&doing)?;
        let present = std::iter::once(0..size).collect();
        let staged = Staged::new(self.shared.clone(), file, whole, present, size, mtime_ns)?;
        let mut files = lock(&self.files);
        files.remove(&old);
        files.insert(ino, Arc::new(staged));
        Ok(())
    }

    /// Makes the names of the journal's files durable.
    pub fn sync_names(&self) -> Result<()> {
        self.shared.disk.sync_dir(&self.shared.dir).context("sync the journal directory")
    }

    /// Brings sizes and times of all staged files that changed since the last call; for the rows.
    pub fn changed(&self) -> Vec<Arc<Staged>> {
        let files: Vec<Arc<Staged>> = lock(&self.files).values().cloned().collect();
        files.into_iter().filter(|f| f.take_changed()).collect()
    }

    /// Whether little of the space that the journal may use is left, so that uploads should not wait for quiet.
    pub fn is_pressed(&self) -> bool {
        self.shared.space.available() < self.shared.space.max() / 8
    }

    /// All staged files.
    pub fn all(&self) -> Vec<Arc<Staged>> {
        lock(&self.files).values().cloned().collect()
    }

    /// The error for a handle whose file was taken out of the journal meanwhile.
    fn stale(ino: Ino) -> Error {
        Error::new(Kind::Stale, format!("inode {ino} is no longer staged"))
    }
}
