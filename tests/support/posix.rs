//! System calls that std does not offer, as functions that give the errno.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str())
}

fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("no NUL in the tests' names")
}

fn checked<T: PartialOrd + Default>(value: T) -> Result<T> {
    if value < T::default() { Err(Error::last_os_error()) } else { Ok(value) }
}

/// The errno of a call that must fail.
#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> i32 {
    result.expect_err("this call must fail").raw_os_error().expect("an errno")
}

/// renameat2(2); `flags` as `libc::RENAME_NOREPLACE`.
pub fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> Result<()> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both strings live through the call.
    checked(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) }).map(drop)
}

/// setxattr(2).
pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: libc::c_int) -> Result<()> {
    let (path, name) = (c_path(path), c_string(OsStr::new(name)));
    // SAFETY: pointers and length describe live memory.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    checked(done).map(drop)
}

/// getxattr(2).
pub fn xattr(path: &Path, name: &str) -> Result<Vec<u8>> {
    let (path, name, mut value) = (c_path(path), c_string(OsStr::new(name)), vec![0u8; 65536]);
    // SAFETY: pointers and length describe live memory.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(checked(len)? as usize);
    Ok(value)
}

/// listxattr(2), sorted.
pub fn xattrs(path: &Path) -> Result<Vec<String>> {
    let (path, mut list) = (c_path(path), vec![0u8; 65536]);
    // SAFETY: pointer and length describe live memory.
    let len = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(checked(len)? as usize);
    let names = list.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// removexattr(2).
pub fn remove_xattr(path: &Path, name: &str) -> Result<()> {
    let (path, name) = (c_path(path), c_string(OsStr::new(name)));
    // SAFETY: both strings live through the call.
    checked(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// lseek(2) with `libc::SEEK_HOLE` or `libc::SEEK_DATA`.
pub fn seek(file: &File, offset: i64, whence: libc::c_int) -> Result<i64> {
    // SAFETY: no memory is touched.
    checked(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: libc::c_int, offset: i64, len: i64) -> Result<()> {
    // SAFETY: no memory is touched.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }).map(drop)
}

/// copy_file_range(2) from the start of one file to the start of another.
pub fn copy_range(from: &File, to: &File, len: usize) -> Result<usize> {
    let (mut source, mut target) = (0i64, 0i64);
    // SAFETY: both offsets live through the call.
    let done =
        unsafe { libc::copy_file_range(from.as_raw_fd(), &raw mut source, to.as_raw_fd(), &raw mut target, len, 0) };
    checked(done).map(|len| len as usize)
}

/// statvfs(3).
pub fn statvfs(path: &Path) -> Result<libc::statvfs> {
    let (path, mut found) = (c_path(path), MaybeUninit::uninit());
    // SAFETY: the kernel fills the whole structure when it gives zero.
    checked(unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) })?;
    Ok(unsafe { found.assume_init() })
}

/// utimensat(2) of the modification time (seconds, nanoseconds); a link is not followed.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) -> Result<()> {
    let path = c_path(path);
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let times = [omit, libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds }];
    // SAFETY: the array of two lives through the call.
    let done = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    checked(done).map(drop)
}
