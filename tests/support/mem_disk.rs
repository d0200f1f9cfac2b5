//! A disk in memory that can lose what was not synced, tear writes, and die at any operation.
//!
//! Names are journaled in order, as on ext4: a power cut keeps a prefix of the name changes since the last `sync_dir`.
//! Content is not: of the writes since a file's last `sync`, any sectors may survive and any may not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use fourwheel::sys::{Disk, DiskFile, FileStat, Open};

const PAGE: u64 = 4096;
const SECTOR: usize = 512;
/// What a racy disk reads or writes at once.
const CHUNK: usize = 24 << 10;

/// What ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the page cache lives.
    Kill,
    /// Everything that was not synced may be lost, in part or whole.
    Power,
}

#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<u64, Box<[u8]>>,
    size: u64,
}

enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Punch(u64, u64),
}

#[derive(Default)]
struct Inode {
    now: Content,
    durable: Content,
    since_sync: Vec<Change>,
    mtime_ns: i64,
}

enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    since_sync_dir: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    capacity: u64,
    /// Taken by others.
    foreign: u64,
    now_ns: i64,
    operations: u64,
    dies_at: Option<u64>,
    peak: u64,
    seed: u64,
    racy: bool,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct MemDisk(Arc<Mutex<World>>);

struct MemFile {
    disk: MemDisk,
    inode: u64,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Content {
    fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        self.size = self.size.max(offset + data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (page, from) = (at / PAGE, (at % PAGE) as usize);
            let len = (PAGE as usize - from).min(data.len() - done);
            let page = self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize].into());
            page[from..from + len].copy_from_slice(&data[done..done + len]);
            done += len;
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = (self.size.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let (page, from) = (at / PAGE, (at % PAGE) as usize);
            let span = (PAGE as usize - from).min(len - done);
            match self.pages.get(&page) {
                Some(page) => buf[done..done + span].copy_from_slice(&page[from..from + span]),
                None => buf[done..done + span].fill(0),
            }
            done += span;
        }
        len
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let (from, to) = ((page * PAGE).max(offset) - page * PAGE, ((page + 1) * PAGE).min(end) - page * PAGE);
            if to - from == PAGE {
                self.pages.remove(&page);
            } else if let Some(page) = self.pages.get_mut(&page) {
                page[from as usize..to as usize].fill(0);
            }
        }
    }

    fn set_len(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size.next_multiple_of(PAGE) - size);
        }
        self.size = size;
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, data) => self.write(data, *offset),
            Change::SetLen(size) => self.set_len(*size),
            Change::Punch(offset, len) => self.punch(*offset, *len),
        }
    }
}

impl World {
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) % below
    }

    fn allocated(&self) -> u64 {
        self.inodes.values().map(|inode| inode.now.allocated()).sum::<u64>() + self.dirs.len() as u64 * PAGE
    }

    /// Counts an operation that changes something; false at the one the process dies in.
    fn step(&mut self) -> io::Result<bool> {
        self.operations += 1;
        self.now_ns += 1;
        match self.dies_at {
            Some(at) if self.operations > at => Err(errno(libc::EIO)),
            Some(at) if self.operations == at => Ok(false),
            _ => Ok(true),
        }
    }

    fn name_change(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.since_sync_dir.push(change);
    }

    fn change(&mut self, inode: u64, change: Change) -> io::Result<()> {
        let before = self.inodes[&inode].now.allocated();
        let free = self.capacity.saturating_sub(self.foreign + self.allocated());
        if let Change::Write(_, data) = &change
            && (data.len() as u64).next_multiple_of(PAGE) > free + before
        {
            return Err(errno(libc::ENOSPC));
        }
        let now_ns = self.now_ns;
        let found = self.inodes.get_mut(&inode).unwrap();
        found.now.apply(&change);
        found.since_sync.push(change);
        found.mtime_ns = now_ns;
        self.peak = self.peak.max(self.allocated());
        Ok(())
    }

    fn forget_unlinked(&mut self, inode: u64) {
        if !self.names.values().any(|linked| *linked == inode)
            && !self.durable_names.values().any(|linked| *linked == inode)
        {
            // Open descriptors keep only the number; reading a file that has no name left gives nothing.
            let pending =
                self.since_sync_dir.iter().any(|change| matches!(change, NameChange::Link(_, i) if *i == inode));
            if !pending {
                self.inodes.remove(&inode);
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl MemDisk {
    /// An empty disk of `capacity` bytes.
    pub fn new(capacity: u64, seed: u64) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(World { capacity, seed, next: 1, ..World::default() })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes content calls take their time and take effect a part at a time, as on a disk; for tests with threads.
    pub fn racy(self) -> MemDisk {
        self.world().racy = true;
        self
    }

    /// Gives other threads a turn, or several.
    fn dawdle(&self) -> bool {
        let turns = {
            let mut world = self.world();
            if !world.racy {
                return false;
            }
            world.random(20)
        };
        (0..turns).for_each(|_| std::thread::yield_now());
        true
    }

    /// Operations that changed something, so far.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Lets operation number `at` take effect in part, and everything after it fail.
    pub fn die_at(&self, at: u64) {
        self.world().dies_at = Some(at);
    }

    /// What a restart finds.
    pub fn crash(&self, crash: Crash) {
        let mut guard = self.world();
        let world = &mut *guard;
        world.dies_at = None;
        if crash == Crash::Power {
            let keep = world.random(world.since_sync_dir.len() as u64 + 1) as usize;
            for change in world.since_sync_dir.drain(..).take(keep) {
                apply_name(&mut world.durable_names, &change);
            }
            world.names = world.durable_names.clone();
            let mut inodes = std::mem::take(&mut world.inodes);
            for inode in inodes.values_mut() {
                let mut content = inode.durable.clone();
                for change in inode.since_sync.drain(..) {
                    match change {
                        Change::Write(offset, data) => {
                            for (i, sector) in data.chunks(SECTOR).enumerate() {
                                if world.random(4) > 0 {
                                    content.write(sector, offset + (i * SECTOR) as u64);
                                }
                            }
                        }
                        other if world.random(4) > 0 => content.apply(&other),
                        _ => {}
                    }
                }
                inode.now = content.clone();
                inode.durable = content;
            }
            world.inodes = inodes;
        }
        let linked: BTreeSet<u64> = world.names.values().copied().collect();
        world.inodes.retain(|inode, _| linked.contains(inode));
        world.durable_names = world.names.clone();
        world.since_sync_dir.clear();
        world.peak = world.allocated();
    }

    /// The most that was ever on it since the last crash.
    pub fn peak(&self) -> u64 {
        self.world().peak
    }

    /// Lets others take `bytes`.
    pub fn set_foreign(&self, bytes: u64) {
        self.world().foreign = bytes;
    }

    /// The files under `dir`, in order.
    pub fn files(&self, dir: &Path) -> Vec<PathBuf> {
        self.world().names.keys().filter(|path| path.starts_with(dir)).cloned().collect()
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if world.dies_at.is_some_and(|at| world.operations >= at) {
            return Err(errno(libc::EIO));
        }
        let inode = match (world.names.get(path).copied(), how) {
            (Some(_), Open::New) => return Err(errno(libc::EEXIST)),
            (Some(inode), _) => inode,
            (None, Open::Existing) => return Err(errno(libc::ENOENT)),
            (None, _) => {
                if !path.parent().is_some_and(|dir| world.dirs.contains(dir)) {
                    return Err(errno(libc::ENOENT));
                }
                if !world.step()? {
                    return Err(errno(libc::EIO));
                }
                let inode = world.next;
                world.next += 1;
                world.inodes.insert(inode, Inode::default());
                world.name_change(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(MemFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(from) {
            return Err(errno(libc::ENOENT));
        }
        if !world.step()? {
            return Err(errno(libc::EIO));
        }
        let replaced = world.names.get(to).copied();
        world.name_change(NameChange::Rename(from.to_owned(), to.to_owned()));
        replaced.into_iter().for_each(|inode| world.forget_unlinked(inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let Some(inode) = world.names.get(path).copied() else { return Err(errno(libc::ENOENT)) };
        if !world.step()? {
            return Err(errno(libc::EIO));
        }
        world.name_change(NameChange::Unlink(path.to_owned()));
        // Its blocks are free at once; a power cut that brings the name back brings back what was durable of it.
        if let Some(inode) = world.inodes.get_mut(&inode) {
            inode.now = Content::default();
        }
        world.forget_unlinked(inode);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let names = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        if world.dirs.contains(dir) {
            return Ok(());
        }
        if !world.step()? {
            return Err(errno(libc::EIO));
        }
        world.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut guard = self.world();
        let world = &mut *guard;
        if world.step()? {
            world.durable_names = world.names.clone();
            world.since_sync_dir.clear();
            return Ok(());
        }
        Err(errno(libc::EIO))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let world = self.world();
        if world.dirs.contains(path) {
            return Ok(FileStat { size: PAGE, allocated: PAGE, mtime_ns: 0 });
        }
        let inode = world.names.get(path).ok_or_else(|| errno(libc::ENOENT))?;
        Ok(stat_of(&world.inodes[inode]))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let world = self.world();
        Ok(world.capacity.saturating_sub(world.foreign + world.allocated()))
    }
}

fn stat_of(inode: &Inode) -> FileStat {
    FileStat { size: inode.now.size, allocated: inode.now.allocated(), mtime_ns: inode.mtime_ns }
}

impl MemFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut world = self.disk.world();
        if !world.inodes.contains_key(&self.inode) {
            return Ok(());
        }
        if world.step()? {
            return world.change(self.inode, change);
        }
        if let Change::Write(offset, data) = change {
            let kept = world.random(data.len() as u64 + 1) as usize;
            let _ = world.change(self.inode, Change::Write(offset, data[..kept].to_vec()));
        }
        Err(errno(libc::EIO))
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let part = if self.disk.dawdle() { CHUNK } else { buf.len().max(1) };
        let mut read = 0;
        for part in buf.chunks_mut(part) {
            self.disk.dawdle();
            let world = self.disk.world();
            if world.dies_at.is_some_and(|at| world.operations >= at) {
                return Err(errno(libc::EIO));
            }
            read += world.inodes.get(&self.inode).map_or(0, |inode| inode.now.read(part, offset + read as u64));
        }
        Ok(read)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let part = if self.disk.dawdle() { CHUNK } else { data.len().max(1) };
        for (n, part_of) in data.chunks(part).enumerate() {
            self.disk.dawdle();
            self.change(Change::Write(offset + (n * part) as u64, part_of.to_vec()))?;
        }
        Ok(())
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.change(Change::SetLen(size))
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        if !world.step()? {
            return Err(errno(libc::EIO));
        }
        if let Some(inode) = world.inodes.get_mut(&self.inode) {
            inode.durable = inode.now.clone();
            inode.since_sync.clear();
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.dawdle();
        self.change(Change::Punch(offset, len))?;
        self.disk.dawdle();
        Ok(())
    }

    fn stat(&self) -> io::Result<FileStat> {
        let world = self.disk.world();
        world.inodes.get(&self.inode).map(stat_of).ok_or_else(|| errno(libc::ENOENT))
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        if let Some(inode) = self.disk.world().inodes.get_mut(&self.inode) {
            inode.mtime_ns = mtime_ns;
        }
        Ok(())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
