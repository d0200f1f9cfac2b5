//! One handler for each request of the kernel.

use super::answer::errno;
use super::{DriveFs, TTL, convert};
use crate::drive::{Access, Answer, Attr, Fh, NewNode, RenameMode, SetAttr, SetXattr};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Requests that the kernel may have open in the background (read-ahead).
const BACKGROUND_MAX: u16 = 128;

/// How long a close may wait for the remote, where the drive is told to: an upload that moves is not cut.
const CLOSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The size of blocks that `statfs` counts in, bytes.
const STATFS_BLOCK: u64 = 4096;

/// Cookies 1 and 2 are `.` and `..`; those of the store come after.
const DOTS: u64 = 2;

fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

fn access(flags: OpenFlags) -> Access {
    let write = !matches!(flags.acc_mode(), OpenAccMode::O_RDONLY);
    Access { write, truncate: flags.0 & libc::O_TRUNC != 0 }
}

fn opened(opened: crate::drive::Opened) -> (FileHandle, FopenFlags) {
    let flags = if opened.keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    (FileHandle(opened.fh.0), flags)
}

fn entry(reply: ReplyEntry, attr: Attr) {
    reply.entry(&TTL, &convert::attr(&attr), Generation(0));
}

fn refused<T>(error: Error) -> Answer<T> {
    Answer::Now(Err(error))
}

/// Two values, or the first error.
fn both<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    Ok((a?, b?))
}

impl DriveFs {
    fn at(parent: INodeNo, name: &OsStr) -> Result<(Ino, Name)> {
        both(convert::ino(parent), convert::name(name))
    }

    #[allow(clippy::too_many_arguments, reason = "the kernel's own arguments, passed on once")]
    fn make(
        &self,
        op: &'static str,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new: NewNode,
        mode: u32,
        reply: ReplyEntry,
    ) {
        let answer = match Self::at(parent, name) {
            Ok((parent, name)) => self.drive.make(convert::caller(request), parent, &name, new, mode),
            Err(e) => refused(e),
        };
        self.answer(op, request.pid(), self.deadlines.request, reply, answer, entry);
    }
}

impl Filesystem for DriveFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Never the kernel's write-back cache: it keeps sizes and times of its own and hides remote changes.
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_MAX_PAGES,
        ];
        for flag in wanted {
            // A kernel that does not offer one works without it.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let answer = match Self::at(parent, name) {
            Ok((parent, name)) => self.drive.lookup(parent, &name),
            Err(e) => refused(e),
        };
        self.answer("lookup", request.pid(), self.deadlines.request, reply, answer, entry);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, _nlookup: u64) {
        if let Some(ino) = Ino::new(ino.0) {
            self.drive.forget(ino);
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.getattr(ino));
        self.answer("getattr", request.pid(), self.deadlines.request, reply, answer, |reply, attr| {
            reply.attr(&TTL, &convert::attr(&attr));
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change =
            SetAttr { mode, uid, gid, size, mtime: mtime.map(convert::set_time), atime: atime.map(convert::set_time) };
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.setattr(ino, change));
        self.answer("setattr", request.pid(), self.deadlines.request, reply, answer, |reply, attr| {
            reply.attr(&TTL, &convert::attr(&attr));
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.readlink(ino));
        self.answer("readlink", request.pid(), self.deadlines.request, reply, answer, |reply, target| {
            reply.data(&target)
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = match FileKind::from_mode(mode) {
            Some(FileKind::File) => NewNode::File,
            Some(kind @ (FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice)) => {
                NewNode::Special { kind, rdev }
            }
            _ => return reply.error(Errno::EINVAL),
        };
        self.make("mknod", request, parent, name, new, mode & !umask, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make("mkdir", request, parent, name, NewNode::Directory, mode & !umask, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes().to_vec();
        self.make("symlink", request, parent, link_name, NewNode::Symlink(target), 0o777, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = match Self::at(parent, name) {
            Ok((parent, name)) => self.drive.unlink(convert::caller(request), parent, &name),
            Err(e) => refused(e),
        };
        self.answer("unlink", request.pid(), self.deadlines.request, reply, answer, |reply, ()| reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = match Self::at(parent, name) {
            Ok((parent, name)) => self.drive.rmdir(convert::caller(request), parent, &name),
            Err(e) => refused(e),
        };
        self.answer("rmdir", request.pid(), self.deadlines.request, reply, answer, |reply, ()| reply.ok());
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(Errno::EINVAL);
        };
        let answer = match both(Self::at(parent, name), Self::at(newparent, newname)) {
            Ok(((parent, name), (newparent, newname))) => {
                self.drive.rename(convert::caller(request), parent, &name, newparent, &newname, mode)
            }
            Err(e) => refused(e),
        };
        self.answer("rename", request.pid(), self.deadlines.request, reply, answer, |reply, ()| reply.ok());
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _newparent: INodeNo, _newname: &OsStr, reply: ReplyEntry) {
        Self::give("link", reply, self.drive.link(), entry);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.open(ino, access(flags)));
        self.answer("open", request.pid(), self.deadlines.request, reply, answer, |reply, file| {
            let (fh, flags) = opened(file);
            reply.opened(fh, flags);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let exclusive = flags & libc::O_EXCL != 0;
        let answer = match Self::at(parent, name) {
            Ok((parent, name)) => {
                let caller = convert::caller(request);
                self.drive.create(caller, parent, &name, mode & !umask, access(OpenFlags(flags)), exclusive)
            }
            Err(e) => refused(e),
        };
        self.answer("create", request.pid(), self.deadlines.request, reply, answer, |reply, (attr, file)| {
            let (fh, flags) = opened(file);
            reply.created(&TTL, &convert::attr(&attr), Generation(0), fh, flags);
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.read(ino, fh(handle), offset, size));
        let deadline = match (&answer, Ino::new(ino.0)) {
            (Answer::Later(_), Some(ino)) => self.drive.time_left(ino, fh(handle), self.deadlines.read),
            _ => self.deadlines.read,
        };
        self.answer("read", request.pid(), deadline, reply, answer, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.write(ino, offset, data));
        self.answer("write", request.pid(), self.deadlines.request, reply, answer, |reply, n| reply.written(n));
    }

    fn flush(&self, request: &Request, ino: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.flush(ino, fh(handle)));
        self.answer("flush", request.pid(), CLOSE_MAX, reply, answer, |reply, ()| reply.ok());
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(ino) = Ino::new(ino.0) {
            self.drive.release(ino, fh(handle));
        }
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.fsync_later(ino));
        self.answer("fsync", request.pid(), Duration::from_secs(300), reply, answer, |reply, ()| reply.ok());
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let result = convert::ino(ino).and_then(|ino| self.drive.opendir(ino));
        Self::give("opendir", reply, result, |reply, ()| reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn readdir(&self, request: &Request, number: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let ino = match convert::ino(number) {
            Ok(ino) => ino,
            Err(e) => return reply.error(errno(&e)),
        };
        let parent = self.drive.parent(ino);
        let answer = self.drive.readdir(ino, offset.saturating_sub(DOTS));
        self.answer("readdir", request.pid(), self.deadlines.request, reply, answer, move |mut reply, entries| {
            for (at, name, ino) in [(1, ".", ino), (2, "..", parent)] {
                if offset < at && reply.add(INodeNo(ino.get()), at, FileType::Directory, name) {
                    return reply.ok();
                }
            }
            for e in entries {
                let full =
                    reply.add(INodeNo(e.ino.get()), e.cookie + DOTS, convert::file_type(e.kind), e.name.as_os_str());
                if full {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(&self, request: &Request, number: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let ino = match convert::ino(number) {
            Ok(ino) => ino,
            Err(e) => return reply.error(errno(&e)),
        };
        let dots = match (self.drive.dot(ino), self.drive.dot(self.drive.parent(ino))) {
            (Ok(own), Ok(parent)) => [(1, ".", own), (2, "..", parent)],
            (Err(e), _) | (_, Err(e)) => return reply.error(errno(&e)),
        };
        let answer = self.drive.readdirplus(ino, offset.saturating_sub(DOTS));
        self.answer("readdirplus", request.pid(), self.deadlines.request, reply, answer, move |mut reply, entries| {
            for (at, name, attr) in dots {
                let attr = convert::attr(&attr);
                if offset < at && reply.add(attr.ino, at, name, &TTL, &attr, Generation(0)) {
                    return reply.ok();
                }
            }
            for e in entries {
                let attr = convert::attr(&e.attr);
                // An entry whose attributes are only guessed is kept for no time: `stat` asks again.
                let ttl = if e.known { TTL } else { Duration::ZERO };
                if reply.add(attr.ino, e.cookie + DOTS, e.name.as_os_str(), &ttl, &attr, Generation(0)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        Self::give("fsyncdir", reply, self.drive.fsyncdir(), |reply, ()| reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        Self::give("statfs", reply, self.drive.statfs(), |reply, s| {
            let (total, free) = (s.total / STATFS_BLOCK, s.free / STATFS_BLOCK);
            let block = STATFS_BLOCK as u32;
            reply.statfs(total, free, free, s.files + (1 << 30), 1 << 30, block, 255, block);
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let how = match flags {
            libc::XATTR_CREATE => SetXattr::Create,
            libc::XATTR_REPLACE => SetXattr::Replace,
            _ => SetXattr::Either,
        };
        let answer = match (convert::ino(ino), name.to_str()) {
            (Ok(ino), Some(name)) => self.drive.setxattr(ino, name, value, how),
            (Err(e), _) => refused(e),
            (_, None) => refused(Error::new(Kind::Unsupported, "attribute names must be UTF-8")),
        };
        self.answer("setxattr", request.pid(), self.deadlines.request, reply, answer, |reply, ()| reply.ok());
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let missing = || Error::new(Kind::NoAttribute, "no such attribute");
        let value = convert::ino(ino).and_then(|ino| self.drive.getxattr(ino, name.to_str().ok_or_else(missing)?));
        sized("getxattr", reply, size, value);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = convert::ino(ino).and_then(|ino| self.drive.listxattr(ino));
        let list =
            names.map(|names| names.into_iter().flat_map(|name| [name.into_bytes(), vec![0]].concat()).collect());
        sized("listxattr", reply, size, list);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let missing = || Error::new(Kind::NoAttribute, "no such attribute");
        let result = convert::ino(ino).and_then(|ino| self.drive.removexattr(ino, name.to_str().ok_or_else(missing)?));
        Self::give("removexattr", reply, result, |reply, ()| reply.ok());
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The mount has `default_permissions`: the kernel checks the mode bits itself.
        reply.ok();
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let answer = convert::ino(ino).map_or_else(refused, |ino| self.drive.fallocate(ino, offset, length, mode));
        self.answer("fallocate", request.pid(), self.deadlines.request, reply, answer, |reply, ()| reply.ok());
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match convert::ino(ino).and_then(|ino| self.drive.seek(ino, offset, data)) {
            Ok(Some(found)) => reply.offset(found as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(e) => reply.error(errno(&e)),
        }
    }
}

/// Answers with a value, or with its length where the caller asks for that only.
fn sized(op: &'static str, reply: ReplyXattr, size: u32, value: Result<Vec<u8>>) {
    DriveFs::give(op, reply, value, |reply, value| match size {
        0 => reply.size(value.len() as u32),
        room if (room as usize) < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(&value),
    });
}
