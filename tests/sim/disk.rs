//! A disk in memory that knows what a power cut would leave of it.
//!
//! * Content is durable after `sync` of the file, names after `sync_dir`. A cut keeps a beginning of the changes of names that were not
//!   synced, in their order, as a file system with a journal does; of each page that was not synced the old or the new bytes; of a file
//!   that grew any length in between.
//! * The database is real SQLite on real files. They are copied whenever the store syncs its log, and a cut goes back to that copy.
//! * Each step, before and after its effect, can be the last of the worker ([`Life`]).

use crate::clock::SimClock;
use crate::life::{Database, Life, read_database};
use crate::rig::Rng;
use fourwheel::sys::{Clock, Disk, DiskFile, FileStat, Open};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;

#[derive(Clone, Default)]
struct Content {
    size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
    mtime_ns: i64,
}

#[derive(Default)]
struct Inode {
    now: Content,
    durable: Content,
}

enum Naming {
    Made(PathBuf, u64),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Since the last sync of names.
    namings: Vec<Naming>,
    durable_database: Database,
}

/// What outlives a worker.
#[derive(Clone, Default)]
pub struct Platter(Arc<Mutex<State>>);

/// The disk as one worker sees it.
pub struct SimDisk {
    platter: Platter,
    life: Arc<Life>,
    clock: Arc<SimClock>,
}

struct SimFile {
    inode: u64,
    platter: Platter,
    life: Arc<Life>,
    clock: Arc<SimClock>,
}

/// The write-ahead log of the real database: only its sync is of interest.
struct DatabaseLog {
    database: PathBuf,
    platter: Platter,
    life: Arc<Life>,
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, naming: &Naming) {
    match naming {
        Naming::Made(path, inode) => drop(names.insert(path.clone(), *inode)),
        Naming::Removed(path) => drop(names.remove(path)),
        Naming::Renamed(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Content {
    fn write(&mut self, data: &[u8], offset: u64) {
        for (at, byte) in (offset..).zip(data) {
            self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize])[(at % PAGE) as usize] = *byte;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    fn zero(&mut self, from: u64, to: u64) {
        for (page, bytes) in self.pages.range_mut(from / PAGE..=to / PAGE) {
            let start = from.max(page * PAGE) - page * PAGE;
            let end = to.min((page + 1) * PAGE).saturating_sub(page * PAGE);
            if start < end {
                bytes[start as usize..end as usize].fill(0);
            }
        }
        self.pages.retain(|page, _| *page * PAGE < from || (*page + 1) * PAGE > to);
    }

    fn set_len(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size.next_multiple_of(PAGE));
        }
        self.size = size;
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (at, byte) in (offset..).zip(&mut buf[..len]) {
            *byte = self.pages.get(&(at / PAGE)).map_or(0, |page| page[(at % PAGE) as usize]);
        }
        len
    }

    fn stat(&self) -> FileStat {
        FileStat { size: self.size, allocated: self.pages.len() as u64 * PAGE, mtime_ns: self.mtime_ns }
    }

    /// What is left of `now` where only `self` was synced.
    fn survivor(&self, now: &Content, rng: &mut Rng) -> Content {
        let (low, high) = (self.size.min(now.size), self.size.max(now.size));
        // A size is written after the pages that it counts.
        let size = match (rng.next(3), (low.div_ceil(PAGE) * PAGE..high).step_by(PAGE as usize).collect::<Vec<_>>()) {
            (2, between) if !between.is_empty() => between[rng.next(between.len() as u64) as usize],
            (0, _) => self.size,
            _ => now.size,
        };
        let mut left = Content { size: high, pages: self.pages.clone(), mtime_ns: self.mtime_ns };
        for page in 0..high.div_ceil(PAGE) {
            if rng.next(2) == 0 || page * PAGE >= self.size {
                match now.pages.get(&page) {
                    Some(bytes) => drop(left.pages.insert(page, bytes.clone())),
                    None => drop(left.pages.remove(&page)),
                }
            }
        }
        left.set_len(size);
        if rng.next(2) == 0 {
            left.mtime_ns = now.mtime_ns;
        }
        left
    }
}

impl Platter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses what was not synced; gives the database as it was last synced.
    pub fn cut_power(&self, rng: &mut Rng) -> Database {
        let mut state = self.lock();
        let State { inodes, names, durable_names, namings, durable_database } = &mut *state;
        let kept = rng.next(namings.len() as u64 + 1) as usize;
        namings.drain(..).take(kept).for_each(|naming| apply(durable_names, &naming));
        *names = durable_names.clone();
        for inode in inodes.values_mut() {
            inode.now = inode.durable.survivor(&inode.now, rng);
            inode.durable = inode.now.clone();
        }
        durable_database.clone()
    }

    /// Changes one byte of the files whose path holds `part`; whether there was one.
    pub fn flip(&self, part: &str, rng: &mut Rng) -> bool {
        let mut state = self.lock();
        let held: Vec<u64> =
            state.names.iter().filter(|(p, _)| p.to_string_lossy().contains(part)).map(|(_, inode)| *inode).collect();
        if held.is_empty() {
            return false;
        }
        let inode = held[rng.next(held.len() as u64) as usize];
        let Some(inode) = state.inodes.get_mut(&inode) else { return false };
        let Some(page) = inode.now.pages.values_mut().next() else { return false };
        page[rng.next(PAGE.min(inode.now.size.max(1))) as usize] ^= 0x40;
        true
    }

    /// The files, their sizes; for digests and messages.
    pub fn list(&self) -> Vec<(String, u64)> {
        let state = self.lock();
        state.names.iter().map(|(p, inode)| (p.display().to_string(), state.inodes[inode].now.size)).collect()
    }
}

impl SimDisk {
    pub fn new(platter: Platter, life: Arc<Life>, clock: Arc<SimClock>) -> SimDisk {
        SimDisk { platter, life, clock }
    }

    fn file(&self, inode: u64) -> Arc<dyn DiskFile> {
        let (platter, life, clock) = (self.platter.clone(), self.life.clone(), self.clock.clone());
        Arc::new(SimFile { inode, platter, life, clock })
    }

    /// Runs one step, which the worker may not outlive.
    fn step<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.life.step()?;
        let done = act(&mut self.platter.lock());
        self.life.step()?;
        done
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(database) = path.to_str().and_then(|path| path.strip_suffix("drive.db-wal")) {
            let database = Path::new(database).join("drive.db");
            return Ok(Arc::new(DatabaseLog { database, platter: self.platter.clone(), life: self.life.clone() }));
        }
        if let (Some(inode), Open::Existing | Open::Create) = (self.platter.lock().names.get(path).copied(), how) {
            self.life.step()?;
            return Ok(self.file(inode));
        }
        let made = self.step(|state| match (state.names.contains_key(path), how) {
            (true, _) => Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string())),
            (false, Open::Existing) => Err(absent(path)),
            (false, _) => {
                let inode = state.inodes.len() as u64;
                let mut fresh = Inode::default();
                fresh.now.mtime_ns = self.clock.wall_ns();
                state.inodes.insert(inode, fresh);
                state.names.insert(path.to_owned(), inode);
                state.namings.push(Naming::Made(path.to_owned(), inode));
                Ok(inode)
            }
        })?;
        Ok(self.file(made))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|state| {
            let inode = state.names.remove(from).ok_or_else(|| absent(from))?;
            state.names.insert(to.to_owned(), inode);
            state.namings.push(Naming::Renamed(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.names.remove(path).ok_or_else(|| absent(path))?;
            state.namings.push(Naming::Removed(path.to_owned()));
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.step(|state| {
            let mut found: Vec<String> = Vec::new();
            for path in state.names.keys() {
                if let Ok(rest) = path.strip_prefix(dir)
                    && let Some(first) = rest.components().next()
                {
                    found.push(first.as_os_str().to_string_lossy().into_owned());
                }
            }
            found.dedup();
            Ok(found)
        })
    }

    fn make_dirs(&self, _dir: &Path) -> io::Result<()> {
        self.life.step()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.step(|state| {
            let State { durable_names, namings, .. } = state;
            namings.drain(..).for_each(|naming| apply(durable_names, &naming));
            Ok(())
        })
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.step(|state| {
            let inode = state.names.get(path).ok_or_else(|| absent(path))?;
            Ok(state.inodes[inode].now.stat())
        })
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.life.step().map(|()| 1 << 40)
    }
}

impl SimFile {
    fn step<T>(&self, act: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        self.life.step()?;
        let done = self.platter.lock().inodes.get_mut(&self.inode).map(act);
        self.life.step()?;
        done.ok_or_else(|| io::Error::other("no such inode"))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.step(|inode| inode.now.read(buf, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let now = self.clock.wall_ns();
        self.step(|inode| {
            inode.now.write(data, offset);
            inode.now.mtime_ns = now;
        })
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let now = self.clock.wall_ns();
        self.step(|inode| {
            inode.now.set_len(size);
            inode.now.mtime_ns = now;
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.step(|inode| inode.durable = inode.now.clone())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.step(|inode| {
            let end = (offset + len).min(inode.now.size);
            if offset < end {
                inode.now.zero(offset, end);
            }
        })
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.step(|inode| inode.now.stat())
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        self.step(|inode| inode.now.mtime_ns = mtime_ns)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl DiskFile for DatabaseLog {
    fn sync(&self) -> io::Result<()> {
        self.life.step()?;
        self.platter.lock().durable_database = read_database(&self.database);
        self.life.step()
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stat(&self) -> io::Result<FileStat> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_mtime(&self, _: i64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
