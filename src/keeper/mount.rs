//! Mounting and unmounting: mount(2) as root, the handshake of fusermount3 for users.

use super::mountinfo::{self, SUBTYPE};
use crate::error::{Error, Kind, Result};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a drive is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    pub mount_point: PathBuf,
    /// Shown by `mount` and `df` as the source.
    pub source: String,
    /// Whether other users may look into it; the mode bits still hold.
    pub allow_other: bool,
    pub read_only: bool,
}

/// Read-ahead that the kernel may do by itself, KiB. More than its 128 saves round trips into the worker.
const READ_AHEAD_KIB: u32 = 1024;

fn is_root() -> bool {
    // SAFETY: geteuid(2) cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::new(Kind::Config, "a path or name holds a NUL byte"))
}

fn unusable(mount_point: &Path, why: &str) -> Error {
    Error::new(Kind::Config, format!("mount point {}: {why}", mount_point.display()))
}

/// Checks that a drive can be mounted here; a stale mount of ours is unmounted first.
///
/// `Config`: missing, no directory, not empty, or mounted already, with what to do.
#[allow(clippy::disallowed_methods, reason = "a mount point is not the drive's disk")]
pub fn prepare(mount_point: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(mount_point).map_err(|e| unusable(mount_point, &e.to_string()))?;
    let clean = absolute.components().collect::<PathBuf>();
    if let Some(there) = mountinfo::at(&clean) {
        match std::fs::metadata(&clean) {
            Err(e) if is_stale(&e) => {
                unmount_lazily(&clean)?;
                tracing::warn!("cleaned up a stale mount at {}", clean.display());
            }
            _ if there.kind == SUBTYPE => {
                let why = format!(
                    "\"{}\" is mounted there already; run \"fourwheel unmount {}\" first",
                    there.source,
                    clean.display()
                );
                return Err(unusable(&clean, &why));
            }
            _ => return Err(unusable(&clean, &format!("a {} file system is mounted there", there.kind))),
        }
    }
    let found = std::fs::canonicalize(&clean).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            unusable(&clean, &format!("it does not exist; run \"mkdir -p {}\"", clean.display()))
        }
        _ => unusable(&clean, &e.to_string()),
    })?;
    let entries = std::fs::read_dir(&found).map_err(|e| match e.kind() {
        io::ErrorKind::NotADirectory => unusable(&found, "it is no directory"),
        _ => unusable(&found, &e.to_string()),
    })?;
    if entries.count() > 0 {
        return Err(unusable(&found, "it is not empty; mount on an empty directory, so that nothing is hidden"));
    }
    Ok(found)
}

/// Whether an error says that the file system's process is gone.
pub fn is_stale(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

/// Mounts; returns the descriptor that the kernel talks to, inherited by child processes.
pub fn mount(options: &MountOptions) -> Result<OwnedFd> {
    let fd = if is_root() { mount_as_root(options)? } else { mount_as_user(options)? };
    if is_root() {
        raise_read_ahead(&options.mount_point);
    }
    Ok(fd)
}

fn mount_as_root(options: &MountOptions) -> Result<OwnedFd> {
    let refuse = |what: &str, e: io::Error| unusable(&options.mount_point, &format!("{what}: {e}"));
    // Not close-on-exec: the worker inherits it.
    // SAFETY: the path ends in NUL.
    let raw = unsafe { libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR) };
    if raw < 0 {
        return Err(refuse("open /dev/fuse", io::Error::last_os_error()));
    }
    // SAFETY: open(2) just returned it, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    let other = if options.allow_other { ",allow_other" } else { "" };
    let data = format!("fd={raw},rootmode=40000,user_id=0,group_id=0,default_permissions{other}");
    let source = c_string(OsStr::new(&options.source))?;
    let target = c_string(options.mount_point.as_os_str())?;
    let (kind, data) = (c_string(OsStr::new(SUBTYPE))?, c_string(OsStr::new(&data))?);
    // SAFETY: all four strings end in NUL and live until the call returns.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if done != 0 {
        return Err(refuse("mount", io::Error::last_os_error()));
    }
    Ok(fd)
}

/// The handshake of fusermount3: it mounts, and sends the descriptor over the socket named by `_FUSE_COMMFD`.
fn mount_as_user(options: &MountOptions) -> Result<OwnedFd> {
    let refuse = |why: String| unusable(&options.mount_point, &why);
    let mut pair: [RawFd; 2] = [0; 2];
    // SAFETY: `pair` has room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) } != 0 {
        return Err(refuse(format!("socketpair: {}", io::Error::last_os_error())));
    }
    // SAFETY: socketpair(2) just returned both, and nobody else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
    let source: String = options.source.chars().filter(|c| !c.is_control() && !",\\".contains(*c)).collect();
    let mut words = format!("nosuid,nodev,default_permissions,subtype=fourwheel,fsname={source}");
    words.push_str(if options.read_only { ",ro" } else { ",rw" });
    words.push_str(if options.allow_other { ",allow_other" } else { "" });
    let output = Command::new("fusermount3")
        .args(["-o", &words, "--"])
        .arg(&options.mount_point)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .output()
        .map_err(|e| refuse(format!("run fusermount3: {e}; install the package fuse3")))?;
    drop(theirs);
    if !output.status.success() {
        return Err(refuse(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    receive_descriptor(&ours).map_err(|e| refuse(format!("fusermount3 sent no descriptor: {e}")))
}

fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut room = [0u64; 8];
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&room);
    // SAFETY: the message points to buffers that live until the call returns.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: recvmsg(2) filled the control buffer; CMSG_FIRSTHDR returns null or a pointer into it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let raw = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>());
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// Takes the mount out of the tree at once; it ends when its last user has gone.
pub fn unmount_lazily(mount_point: &Path) -> Result<()> {
    let refuse = |why: String| unusable(mount_point, &format!("unmount: {why}"));
    if is_root() {
        let target = c_string(mount_point.as_os_str())?;
        // SAFETY: the path ends in NUL.
        let done = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let error = io::Error::last_os_error();
        // EINVAL: it is not mounted, which is what was wanted.
        return if done == 0 || error.raw_os_error() == Some(libc::EINVAL) {
            Ok(())
        } else {
            Err(refuse(error.to_string()))
        };
    }
    let output = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(mount_point)
        .output()
        .map_err(|e| refuse(format!("run fusermount3: {e}")))?;
    if output.status.success() || mountinfo::at(mount_point).is_none() {
        return Ok(());
    }
    Err(refuse(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Best effort: a slower kernel read-ahead is no error.
#[allow(clippy::disallowed_methods, reason = "sysfs is no disk")]
fn raise_read_ahead(mount_point: &Path) {
    if let Some(there) = mountinfo::at(mount_point) {
        let _ = std::fs::write(format!("/sys/class/bdi/0:{}/read_ahead_kb", there.minor), READ_AHEAD_KIB.to_string());
    }
}
