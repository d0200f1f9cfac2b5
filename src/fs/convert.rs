//! The kernel's types and ours.

use crate::drive::{Attr, Caller, SetTime};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use crate::store::Remembered;
use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The top bit of a request's number says that the kernel sends it again (FUSE_UNIQUE_RESEND in fuse(4)'s `fuse.h`).
const RESENT: u64 = 1 << 63;

/// The preferred size of a read or write, bytes.
const BLOCK: u32 = 4096;

/// Our inode number; `Stale` for zero.
pub(super) fn ino(number: INodeNo) -> Result<Ino> {
    Ino::new(number.0).ok_or_else(|| Error::new(Kind::Stale, "inode 0"))
}

/// Our name.
pub(super) fn name(name: &OsStr) -> Result<Name> {
    Name::new(name.as_bytes())
}

/// Who asks.
pub(super) fn caller(request: &Request) -> Caller {
    let unique = request.unique().0;
    let request_number = Remembered { request: unique & !RESENT, repeated: unique & RESENT != 0 };
    Caller { uid: request.uid(), gid: request.gid(), request: request_number }
}

/// The kernel's word for a kind.
pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// Nanoseconds since 1970, of a time that fuser made of the kernel's.
pub(super) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        // Before 1970 the kernel counts nanoseconds upwards from the second below, and fuser 0.18 downwards from it.
        Err(before) => {
            let (seconds, nanos) = (before.duration().as_secs(), before.duration().subsec_nanos());
            let seconds = i64::try_from(seconds).ok().and_then(|s| s.checked_mul(-1_000_000_000));
            seconds.map_or(i64::MIN, |seconds| seconds + i64::from(nanos))
        }
    }
}

/// A time that a program sets.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(nanoseconds(time)),
    }
}

/// The kernel's attributes.
pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.get()),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: system_time(attr.times.atime_ns),
        mtime: system_time(attr.times.mtime_ns),
        ctime: system_time(attr.times.ctime_ns),
        crtime: system_time(attr.times.ctime_ns),
        kind: file_type(attr.kind),
        perm: attr.mode as u16,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK,
        flags: 0,
    }
}
