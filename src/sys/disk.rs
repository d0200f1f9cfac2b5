//! The local disk under cache and journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// How a file is opened. All are readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// ENOENT where it is absent.
    Existing,
    /// Made where it is absent; kept where it is there.
    Create,
    /// EEXIST where it is there.
    New,
}

/// What the disk says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    pub size: u64,
    /// Bytes that it takes on the disk (`st_blocks` times 512).
    pub allocated: u64,
    pub mtime_ns: i64,
}

/// One open file. All calls are safe from several threads at once.
pub trait DiskFile: Send + Sync {
    /// Reads until `buf` is full or the file ends; returns the bytes read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes content and size durable (fdatasync(2)).
    fn sync(&self) -> io::Result<()>;
    /// Gives the space of `offset..offset + len` back; it reads as zeros (FALLOC_FL_PUNCH_HOLE, the size stays).
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    fn stat(&self) -> io::Result<FileStat>;
    /// Sets the time of the last change.
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()>;
    /// The descriptor, where there is a real one (for FUSE passthrough).
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A file system. Paths are absolute.
pub trait Disk: Send + Sync {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames, replacing what is at `to`. Durable after `sync_dir` of both directories.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, unsorted; empty where it is absent.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn make_dirs(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    /// Bytes that are free for us on the file system of `path` (`f_bavail`).
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The machine's disk.
pub struct RealDisk;

struct RealFile(File);

fn stat_of(metadata: &std::fs::Metadata) -> FileStat {
    FileStat {
        size: metadata.len(),
        allocated: metadata.blocks() * 512,
        mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open for the whole call.
        check(unsafe { libc::fallocate(self.0.as_raw_fd(), mode, offset as i64, len as i64) })
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(stat_of(&self.0.metadata()?))
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        let times = [
            libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            libc::timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) },
        ];
        // SAFETY: the descriptor is open and `times` has the two elements that futimens(3) reads.
        check(unsafe { libc::futimens(self.0.as_raw_fd(), times.as_ptr()) })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        Some(self.0.as_fd())
    }
}

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the one place that touches the disk")]
impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match how {
            Open::Existing => {}
            Open::Create => {
                options.create(true).truncate(false);
            }
            Open::New => {
                options.create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(stat_of(&std::fs::metadata(path)?))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends in NUL and `found` has room for the answer.
        check(unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) })?;
        // SAFETY: statvfs(3) succeeded, so the whole struct is written.
        let found = unsafe { found.assume_init() };
        Ok(found.f_bavail * found.f_frsize)
    }
}
