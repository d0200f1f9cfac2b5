//! System calls relative to an open directory, so that nothing outside the root is ever reached: each takes one name, never a
//! path, and never follows a symbolic link. The only file of this folder with `unsafe` in it.

use crate::model::FileKind;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An open directory; need not be readable (O_PATH).
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

/// What the file system says of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub kind: FileKind,
    pub ino: u64,
    pub size: u64,
    pub mtime_ns: i64,
    /// When the inode was made; 0 where the file system does not say.
    pub born_ns: i64,
    pub mode: u32,
}

/// How a name is given to what another name had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Replace,
    /// EEXIST where something is there.
    NoReplace,
    /// Both change places.
    Exchange,
}

fn c(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn open(at: RawFd, name: &CStr, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends in NUL; the descriptor that comes back is nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, mode))?)) }
}

fn statx(at: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<Facts> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    let flags = flags | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: `name` ends in NUL and all zeros is a valid statx for the kernel to fill.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        check(libc::statx(at, name.as_ptr(), flags, mask, &mut found))?;
        found
    };
    let ns =
        |time: libc::statx_timestamp| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into());
    let mode = u32::from(found.stx_mode);
    Ok(Facts {
        kind: FileKind::from_mode(mode).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?,
        ino: found.stx_ino,
        size: found.stx_size,
        mtime_ns: ns(found.stx_mtime),
        born_ns: if found.stx_mask & libc::STATX_BTIME != 0 { ns(found.stx_btime) } else { 0 },
        mode: mode & 0o7777,
    })
}

/// What the file system says of an open file.
pub(super) fn facts_of(file: &File) -> io::Result<Facts> {
    statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// Sets the time of the last change of an open file.
pub(super) fn set_file_mtime(file: &File, mtime_ns: i64) -> io::Result<()> {
    // SAFETY: the descriptor is open and `times` has the two elements that futimens(3) reads.
    check(unsafe { libc::futimens(file.as_raw_fd(), times(mtime_ns).as_ptr()) }).map(drop)
}

/// Takes the lock that says "in use" on an open file; false where another holds it.
pub(super) fn try_lock(file: &File) -> bool {
    // SAFETY: the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

fn times(mtime_ns: i64) -> [libc::timespec; 2] {
    let seconds = mtime_ns.div_euclid(1_000_000_000);
    [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: seconds, tv_nsec: mtime_ns.rem_euclid(1_000_000_000) },
    ]
}

impl Dir {
    /// Opens the root; a link to a directory will do.
    pub fn root(path: &Path) -> io::Result<Dir> {
        open(libc::AT_FDCWD, &c(path.as_os_str().as_bytes())?, libc::O_PATH | libc::O_DIRECTORY, 0).map(Dir)
    }

    /// Opens the directory `name`. ENOTDIR for a link to one.
    pub fn child(&self, name: &[u8]) -> io::Result<Dir> {
        self.open(name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).map(Dir)
    }

    /// A second handle of the same directory.
    pub fn try_clone(&self) -> io::Result<Dir> {
        self.0.try_clone().map(Dir)
    }

    /// A path by which the kernel finds this very directory, wherever it has moved to.
    pub fn magic_path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// What the directory itself is.
    pub fn own_facts(&self) -> io::Result<Facts> {
        statx(self.0.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
    }

    /// What `name` is; `None` where nothing is.
    pub fn facts(&self, name: &[u8]) -> io::Result<Option<Facts>> {
        match statx(self.0.as_raw_fd(), &c(name)?, 0) {
            Ok(facts) => Ok(Some(facts)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a file to read. ELOOP for a link; does not wait for the other end of a pipe.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        self.open(name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY, 0).map(File::from)
    }

    /// Makes a file that was not there; `mode` is subject to the umask.
    pub fn create(&self, name: &[u8], mode: u32) -> io::Result<File> {
        self.open(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, mode).map(File::from)
    }

    /// The names in the directory, unsorted.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let readable = self.open(b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut names = Vec::new();
        // SAFETY: fdopendir(3) takes the descriptor over, closedir(3) closes it; `d_name` ends in NUL and is copied before
        // the next call; errno is cleared to tell the end from an error.
        unsafe {
            let stream = libc::fdopendir(readable.as_raw_fd());
            if stream.is_null() {
                return Err(io::Error::last_os_error());
            }
            std::mem::forget(readable);
            let error = loop {
                *libc::__errno_location() = 0;
                let entry = libc::readdir64(stream);
                if entry.is_null() {
                    break io::Error::last_os_error();
                }
                let name = CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes();
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
            };
            libc::closedir(stream);
            if error.raw_os_error() != Some(0) {
                return Err(error);
            }
        }
        Ok(names)
    }

    /// Gives what `name` has the name `new` in `to`.
    pub fn rename(&self, name: &[u8], to: &Dir, new: &[u8], how: How) -> io::Result<()> {
        let (name, new) = (c(name)?, c(new)?);
        let flags = match how {
            How::Replace => 0,
            How::NoReplace => libc::RENAME_NOREPLACE,
            How::Exchange => libc::RENAME_EXCHANGE,
        };
        let (from_fd, to_fd) = (self.0.as_raw_fd(), to.0.as_raw_fd());
        // SAFETY: both names end in NUL, both descriptors are open.
        check(unsafe { libc::renameat2(from_fd, name.as_ptr(), to_fd, new.as_ptr(), flags) }).map(drop)
    }

    /// Removes a name that is no directory's.
    pub fn unlink(&self, name: &[u8]) -> io::Result<()> {
        // SAFETY: the name ends in NUL.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), c(name)?.as_ptr(), 0) }).map(drop)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        // SAFETY: the name ends in NUL.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), c(name)?.as_ptr(), libc::AT_REMOVEDIR) }).map(drop)
    }

    /// Makes a directory; its mode is subject to the umask.
    pub fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        // SAFETY: the name ends in NUL.
        check(unsafe { libc::mkdirat(self.0.as_raw_fd(), c(name)?.as_ptr(), 0o777) }).map(drop)
    }

    /// Makes a symbolic link.
    pub fn make_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        // SAFETY: both texts end in NUL.
        check(unsafe { libc::symlinkat(c(target)?.as_ptr(), self.0.as_raw_fd(), c(name)?.as_ptr()) }).map(drop)
    }

    /// Where a symbolic link points to. EINVAL for anything else.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let mut target = vec![0; libc::PATH_MAX as usize];
        let room = target.as_mut_ptr().cast();
        // SAFETY: the name ends in NUL; the kernel writes at most `target.len()` bytes.
        let size = unsafe { libc::readlinkat(self.0.as_raw_fd(), c(name)?.as_ptr(), room, target.len()) };
        target.truncate(check_size(size)?);
        Ok(target)
    }

    /// Sets the permission bits of a file or directory.
    pub fn set_mode(&self, name: &[u8], mode: u32) -> io::Result<()> {
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: the name ends in NUL.
        check(unsafe { libc::fchmodat(self.0.as_raw_fd(), c(name)?.as_ptr(), mode & 0o7777, flags) }).map(drop)
    }

    /// Sets the time of the last change, of a link itself too.
    pub fn set_mtime(&self, name: &[u8], mtime_ns: i64) -> io::Result<()> {
        let (name, flags) = (c(name)?, libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the name ends in NUL and utimensat(2) reads two elements.
        let result = unsafe { libc::utimensat(self.0.as_raw_fd(), name.as_ptr(), times(mtime_ns).as_ptr(), flags) };
        check(result).map(drop)
    }

    /// Names of the extended attributes of `name`.
    pub fn xattr_names(&self, name: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let path = self.magic_child(name)?;
        // SAFETY: the path ends in NUL; the kernel writes at most `size` bytes, none for a null buffer.
        let list = fill(|room, size| unsafe { libc::llistxattr(path.as_ptr(), room.cast(), size) })?;
        Ok(list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// The value of one extended attribute.
    pub fn xattr(&self, name: &[u8], key: &[u8]) -> io::Result<Vec<u8>> {
        let (path, key) = (self.magic_child(name)?, c(key)?);
        // SAFETY: path and key end in NUL; the kernel writes at most `size` bytes, none for a null buffer.
        fill(|room, size| unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), room.cast(), size) })
    }

    /// Sets one extended attribute.
    pub fn set_xattr(&self, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
        let (path, key) = (self.magic_child(name)?, c(key)?);
        // SAFETY: path and key end in NUL; the value is read for its length.
        check(unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), 0) }).map(drop)
    }

    /// Removes one extended attribute.
    pub fn remove_xattr(&self, name: &[u8], key: &[u8]) -> io::Result<()> {
        let (path, key) = (self.magic_child(name)?, c(key)?);
        // SAFETY: path and key end in NUL.
        check(unsafe { libc::lremovexattr(path.as_ptr(), key.as_ptr()) }).map(drop)
    }

    /// Makes the names of the directory durable.
    pub fn sync(&self) -> io::Result<()> {
        File::from(self.open(b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?).sync_all()
    }

    /// Bytes used and bytes free for us on the file system.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open and `found` has room for the answer, which is whole after success.
        let found = unsafe {
            check(libc::fstatvfs(self.0.as_raw_fd(), found.as_mut_ptr()))?;
            found.assume_init()
        };
        Ok(((found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize))
    }

    fn open(&self, name: &[u8], flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
        open(self.0.as_raw_fd(), &c(name)?, flags, mode)
    }

    /// l*xattr(2) take no directory, so the name goes behind the directory's own magic link.
    fn magic_child(&self, name: &[u8]) -> io::Result<CString> {
        let mut path = self.magic_path().into_bytes();
        path.push(b'/');
        path.extend_from_slice(name);
        c(&path)
    }
}

/// Asks for the size, then for the bytes, until they fit.
fn fill(get: impl Fn(*mut libc::c_void, usize) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    loop {
        let size = check_size(get(std::ptr::null_mut(), 0))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0u8; size];
        match check_size(get(bytes.as_mut_ptr().cast(), size)) {
            Ok(size) => {
                bytes.truncate(size);
                return Ok(bytes);
            }
            // It grew in between.
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) => {}
            Err(e) => return Err(e),
        }
    }
}
