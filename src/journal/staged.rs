//! One staged file: reads and writes of programs, fills from the base version, and the snapshot that an upload sends.

use super::header::{Base, Header};
use super::log::{Log, Mark};
use super::{Journal, Leaving, OVERHEAD_BYTES, Shared, lock};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Ino, RangeSet};
use crate::sys::{DiskFile, Open};
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The unit in which the local disk gives space.
const PAGE: u64 = 4096;

/// How [`Journal::finish`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The file is out of the journal.
    Done,
    /// Something was written since; the file stays, and its base may have been moved on.
    Newer,
    /// It was not in the journal.
    Gone,
}

struct State {
    header: Header,
    /// Valid bytes, within the file's size.
    present: RangeSet,
    /// Pages that are accounted for.
    charged: RangeSet,
    size: u64,
    mtime_ns: i64,
    log: Option<Log>,
    /// The generation that an upload has begun to read.
    snapshot: Option<u64>,
    last_write: Duration,
    retired: bool,
}

/// A dirty file.
pub struct Staged {
    ino: Ino,
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    changed: AtomicBool,
    state: Mutex<State>,
}

fn pages(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.div_ceil(PAGE) * PAGE
}

fn missing_pages(charged: &RangeSet, range: &Range<u64>) -> u64 {
    charged.missing(pages(range)).iter().map(|r| r.end - r.start).sum()
}

impl Staged {
    pub(super) fn new(
        shared: Arc<Shared>,
        file: Arc<dyn DiskFile>,
        header: Header,
        present: RangeSet,
        size: u64,
        mtime_ns: i64,
    ) -> Result<Staged> {
        let ino = header.ino().ok_or_else(|| Error::new(Kind::Corrupt, "a journal header without an inode"))?;
        let charged = present.iter().map(|r| pages(&r)).collect();
        let last_write = shared.clock.monotonic();
        let state =
            State { header, present, charged, size, mtime_ns, log: None, snapshot: None, last_write, retired: false };
        Ok(Staged { ino, shared, file, changed: AtomicBool::new(true), state: Mutex::new(state) })
    }

    /// Takes over the charge of a file that was renamed in: what counts is its valid pages.
    pub(super) fn take_over(&self, allocated: u64) {
        let charged = self.state().charged.total();
        if allocated > charged {
            self.shared.space.released(allocated - charged);
        } else {
            self.shared.space.occupied(charged - allocated);
        }
    }

    /// Goes on with a log found after a crash.
    pub(super) fn set_log(&self, log: Log) {
        self.state().log = Some(log);
    }

    /// Held, the store may be written; never the other way round.
    fn state(&self) -> MutexGuard<'_, State> {
        debug_assert!(!crate::sys::Writing::goes_on(), "inode {}: a staged file is locked before the store", self.ino);
        lock(&self.state)
    }

    /// The inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The file's size in bytes, and its mtime in nanoseconds since 1970.
    pub fn size_and_mtime(&self) -> (u64, i64) {
        let state = self.state();
        (state.size, state.mtime_ns)
    }

    /// Runs `work` with size and mtime as they are, and keeps them so until it returns; `None` once the file has left the
    /// journal. `work` may write to the store and must not call this file.
    pub fn with_facts<T>(&self, work: impl FnOnce(u64, i64) -> Result<T>) -> Result<Option<T>> {
        let state = self.state();
        if state.retired {
            return Ok(None);
        }
        self.file.set_mtime(state.mtime_ns).context(format!("set the time of inode {}", self.ino))?;
        work(state.size, state.mtime_ns).map(Some)
    }

    /// The header as it is now.
    pub fn header(&self) -> Header {
        self.state().header.clone()
    }

    /// When something was last written, by the monotonic clock.
    pub fn last_write(&self) -> Duration {
        self.state().last_write
    }

    /// Bytes that it takes on the local disk.
    pub fn disk_bytes(&self) -> u64 {
        self.state().charged.total() + OVERHEAD_BYTES
    }

    /// Valid bytes, for SEEK_DATA and the like.
    pub fn is_whole(&self) -> bool {
        let state = self.state();
        state.present.contains(0..state.size)
    }

    /// Whether no byte of it is here: it was to be written and was not, or a power cut took what was written.
    pub fn holds_nothing(&self) -> bool {
        let state = self.state();
        state.size > 0 && state.present.is_empty()
    }

    /// The parts of `range`, within the size, that must be fetched from the base version.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let state = self.state();
        state.present.missing(range.start.min(state.size)..range.end.min(state.size))
    }

    /// Reads up to `len` bytes at `offset`; short at the end of the file. `None`: some of it must be fetched first.
    pub fn read(&self, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let end = {
            let state = self.state();
            if state.retired {
                return Err(Journal::stale(self.ino));
            }
            let end = state.size.min(offset.saturating_add(len as u64));
            if offset >= end {
                return Ok(Some(Vec::new()));
            }
            if !state.present.contains(offset..end) {
                return Ok(None);
            }
            end
        };
        let mut buf = vec![0; (end - offset) as usize];
        let read = self.file.read_at(&mut buf, offset).context(format!("read inode {}", self.ino))?;
        buf.truncate(read);
        Ok(Some(buf))
    }

    /// The same whether all of it is here or not: what is missing is undefined.
    pub fn read_present(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let end = {
            let state = self.state();
            if state.retired {
                return Err(Journal::stale(self.ino));
            }
            state.size.min(offset.saturating_add(len as u64)).max(offset)
        };
        let mut buf = vec![0; (end - offset) as usize];
        self.file.read_at(&mut buf, offset).context(format!("read inode {}", self.ino))?;
        Ok(buf)
    }

    /// Begins a change: refuses a retired file, and starts a new generation if an upload reads this one.
    fn begin(&self, state: &mut State) -> Result<()> {
        if state.retired {
            return Err(Journal::stale(self.ino));
        }
        if state.snapshot == Some(state.header.generation) {
            let mut header = state.header.clone();
            header.generation += 1;
            header
                .replace(self.shared.disk.as_ref(), &self.shared.path(self.ino, "head"))
                .context(format!("journal header of inode {}", self.ino))?;
            state.header = header;
        }
        Ok(())
    }

    fn note(&self, state: &mut State, mark: Mark, range: Range<u64>) -> Result<()> {
        if !state.header.logged {
            return Ok(());
        }
        if state.log.is_none() {
            let file = self
                .shared
                .disk
                .open(&self.shared.path(self.ino, "log"), Open::Create)
                .and_then(|file| file.set_len(0).map(|()| file))
                .context(format!("journal log of inode {}", self.ino))?;
            state.log = Some(Log::new(file, 0));
        }
        match &mut state.log {
            Some(log) => log.append(mark, range).context(format!("journal log of inode {}", self.ino)),
            None => Ok(()),
        }
    }

    fn wrote(&self, state: &mut State) {
        state.mtime_ns = self.shared.clock.wall_ns();
        state.last_write = self.shared.clock.monotonic();
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Writes `data` at `offset`; a write behind the end leaves zeros between.
    ///
    /// `NoSpace`: nothing was written, wait for space and repeat. `Stale`: look for the staged file again. On return the bytes
    /// survive the death of the process.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        let range = offset..offset + data.len() as u64;
        let grown = missing_pages(&state.charged, &range);
        let room = if grown > 0 { Some(self.shared.space.reserve(grown)?) } else { None };
        self.begin(&mut state)?;
        self.file.write_at(data, offset).context(format!("write inode {}", self.ino))?;
        if let Some(room) = room {
            room.commit(grown);
            state.charged.insert(pages(&range));
        }
        let valid = range.start.min(state.size)..range.end;
        self.note(&mut state, Mark::Written, valid.clone())?;
        state.present.insert(valid);
        state.size = state.size.max(range.end);
        self.wrote(&mut state);
        Ok(())
    }

    /// Sets the size; what is added reads as zeros.
    pub fn truncate(&self, size: u64) -> Result<()> {
        let mut state = self.state();
        self.begin(&mut state)?;
        let doing = || format!("truncate inode {}", self.ino);
        if size < state.size {
            // The log first: a range that counts as valid must never lie behind the end.
            let old = state.size;
            self.note(&mut state, Mark::Cut, size..size)?;
            self.file.set_len(size).context(doing())?;
            state.present.truncate(size);
            let gone: u64 = {
                let tail = size.div_ceil(PAGE) * PAGE..old.div_ceil(PAGE) * PAGE;
                let before = state.charged.total();
                state.charged.remove(tail);
                before - state.charged.total()
            };
            self.shared.space.released(gone);
        } else {
            self.file.set_len(size).context(doing())?;
            let added = state.size..size;
            self.note(&mut state, Mark::Written, added.clone())?;
            state.present.insert(added);
        }
        state.size = size;
        self.wrote(&mut state);
        Ok(())
    }

    /// Makes a range read as zeros and gives its space back; the size stays.
    pub fn punch(&self, range: Range<u64>) -> Result<()> {
        let mut state = self.state();
        let range = range.start.min(state.size)..range.end.min(state.size);
        if range.is_empty() {
            return Ok(());
        }
        self.begin(&mut state)?;
        self.file.punch(range.start, range.end - range.start).context(format!("punch inode {}", self.ino))?;
        let inner = range.start.div_ceil(PAGE) * PAGE..range.end / PAGE * PAGE;
        if inner.start < inner.end {
            let before = state.charged.total();
            state.charged.remove(inner);
            self.shared.space.released(before - state.charged.total());
        }
        self.note(&mut state, Mark::Written, range.clone())?;
        state.present.insert(range);
        self.wrote(&mut state);
        Ok(())
    }

    /// Stores bytes of the base version where nothing newer is. Neither mtime nor generation changes.
    pub fn fill(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        if state.retired {
            return Ok(());
        }
        let end = (offset + data.len() as u64).min(state.size);
        for gap in state.present.missing(offset.min(end)..end) {
            let grown = missing_pages(&state.charged, &gap);
            let room = if grown > 0 { Some(self.shared.space.reserve(grown)?) } else { None };
            let part = &data[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.file.write_at(part, gap.start).context(format!("fill inode {}", self.ino))?;
            if let Some(room) = room {
                room.commit(grown);
                state.charged.insert(pages(&gap));
            }
            self.note(&mut state, Mark::Filled, gap.clone())?;
            state.present.insert(gap);
        }
        // The disk took the fill for a change; the file's time tells recovery when a program last wrote.
        self.file.set_mtime(state.mtime_ns).context(format!("fill inode {}", self.ino))
    }

    /// Sets the mtime that a program asked for.
    pub fn set_mtime(&self, mtime_ns: i64) -> Result<()> {
        let mut state = self.state();
        if state.retired {
            return Err(Journal::stale(self.ino));
        }
        self.file.set_mtime(mtime_ns).context(format!("set the time of inode {}", self.ino))?;
        state.mtime_ns = mtime_ns;
        self.changed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the mtime that the mount shows to the file, for recovery.
    pub fn settle_mtime(&self) -> Result<()> {
        let state = self.state();
        if state.retired {
            return Ok(());
        }
        self.file.set_mtime(state.mtime_ns).context(format!("set the time of inode {}", self.ino))
    }

    /// Makes bytes, log and header durable; the caller also syncs the journal's names and the store.
    pub fn sync(&self) -> Result<()> {
        self.settle_mtime()?;
        let doing = || format!("sync inode {}", self.ino);
        self.file.sync().context(doing())?;
        let state = self.state();
        if state.retired {
            return Ok(());
        }
        if let Some(log) = &state.log {
            log.sync().context(doing())?;
        }
        match self.shared.disk.open(&self.shared.path(self.ino, "head"), Open::Existing) {
            Ok(file) => file.sync().context(doing()),
            Err(e) => Err(Error::disk(doing(), &e)),
        }
    }

    /// Names another path in the header (after a rename).
    pub fn set_path(&self, path: &[u8]) -> Result<()> {
        let mut state = self.state();
        if state.retired {
            return Ok(());
        }
        let mut header = state.header.clone();
        header.set_path(path);
        header
            .replace(self.shared.disk.as_ref(), &self.shared.path(self.ino, "head"))
            .context(format!("journal header of inode {}", self.ino))?;
        state.header = header;
        Ok(())
    }

    /// The next data (`data`) or hole (not `data`) from `offset` on; `None` behind the end. The end of file counts as a hole.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        use std::os::fd::AsRawFd;
        let (size, whole) = {
            let state = self.state();
            (state.size, state.present.contains(0..state.size))
        };
        if offset >= size {
            return None;
        }
        let plain = Some(if data { offset } else { size });
        let Some(fd) = self.file.fd().filter(|_| whole) else { return plain };
        let whence = if data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
        // SAFETY: the descriptor is open; its file position is used by nobody (all reads and writes name their offset).
        let found = unsafe { libc::lseek(fd.as_raw_fd(), offset as i64, whence) };
        if found >= 0 {
            Some(found as u64)
        } else if data {
            None
        } else {
            plain
        }
    }

    /// Takes the content as it is now for an upload. What is missing of it is the base's (`missing`).
    pub fn snapshot(self: &Arc<Self>) -> Result<Snapshot> {
        let mut state = self.state();
        if state.retired {
            return Err(Journal::stale(self.ino));
        }
        let generation = state.header.generation;
        state.snapshot = Some(generation);
        Ok(Snapshot { staged: self.clone(), generation, size: state.size, mtime_ns: state.mtime_ns })
    }

    /// The generation of the bytes as they are now.
    pub fn generation(&self) -> u64 {
        self.state().header.generation
    }

    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn retire(
        &self,
        generation: Option<u64>,
        agree: impl FnOnce(u64, i64) -> Result<()>,
        take: impl FnOnce(Leaving<'_>) -> bool,
        forget: impl FnOnce(),
    ) -> Result<Confirmed> {
        let mut state = self.state();
        if state.retired {
            return Ok(Confirmed::Gone);
        }
        if generation.is_some_and(|g| g != state.header.generation) {
            return Ok(Confirmed::Newer);
        }
        agree(state.size, state.mtime_ns)?;
        let data = self.shared.path(self.ino, "data");
        let charged = state.charged.total();
        if !take(Leaving {
            path: &data,
            file: &self.file,
            size: state.size,
            whole: state.present.contains(0..state.size),
            charged,
        }) {
            // Already gone is as good: nothing of it counts any more.
            let _ = self.shared.disk.remove(&data);
            self.shared.space.released(charged);
        }
        for suffix in ["head", "log"] {
            let _ = self.shared.disk.remove(&self.shared.path(self.ino, suffix));
        }
        self.shared.space.released(OVERHEAD_BYTES);
        state.retired = true;
        forget();
        Ok(Confirmed::Done)
    }

    /// Names another base: the remote now holds `base`, while newer bytes wait here.
    pub fn rebase(&self, base: Option<Base>) -> Result<()> {
        let mut state = self.state();
        if state.retired {
            return Ok(());
        }
        let mut header = state.header.clone();
        header.base = base;
        header
            .replace(self.shared.disk.as_ref(), &self.shared.path(self.ino, "head"))
            .context(format!("journal header of inode {}", self.ino))?;
        state.header = header;
        Ok(())
    }
}

/// The bytes of one generation. Reads fail with `Changed` once a newer one has begun.
#[derive(Clone)]
pub struct Snapshot {
    staged: Arc<Staged>,
    pub generation: u64,
    pub size: u64,
    pub mtime_ns: i64,
}

impl Snapshot {
    /// Reads exactly `range`.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let changed = || Error::new(Kind::Changed, format!("inode {} was written during its upload", self.staged.ino));
        let mut buf = vec![0; (range.end - range.start) as usize];
        let read = self.staged.file.read_at(&mut buf, range.start).context("read the journal")?;
        // A writer starts a new generation before it touches a byte, so bytes read under the old number are the old bytes.
        if self.staged.generation() != self.generation {
            return Err(changed());
        }
        if read != buf.len() {
            return Err(Error::new(
                Kind::Corrupt,
                format!("the journal file of inode {} is too short", self.staged.ino),
            ));
        }
        Ok(Bytes::from(buf))
    }
}
