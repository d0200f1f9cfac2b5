//! Mounting and unmounting: mount(2) as root, the handshake with fusermount3 for everybody else. Knows nothing of workers.

use super::mountinfo;
use crate::error::{Context, Error, Kind, Result};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The longest read that the kernel may ask for, in bytes: its own limit at the default `fs.fuse.max_pages_limit`.
const MAX_READ: u32 = 1 << 20;
/// The kernel's read-ahead for a mount of root's, in KiB. It offers 128 and only root may raise it (fuse.md: 1.4 to 1.7 times
/// the sequential speed).
const READ_AHEAD_KIB: u32 = 1024;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Shown as the source in `mount` and `df`; what could be taken for an option is replaced.
    pub source: String,
    /// Other users may enter. For a user this needs `user_allow_other` in /etc/fuse.conf.
    pub allow_other: bool,
    pub read_only: bool,
}

/// A fresh mount whose first request (INIT) waits to be read.
#[derive(Debug)]
pub struct Mounted {
    /// The /dev/fuse descriptor, close-on-exec. When the last copy closes, the kernel ends the connection.
    pub device: OwnedFd,
    pub mount_point: PathBuf,
    /// The connection's number in /sys/fs/fuse/connections.
    pub minor: u32,
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: geteuid(2) cannot fail and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Mounts at `mount_point`, which must have been [prepared](super::mount_point::prepare).
///
/// * nosuid, nodev and default_permissions always: the kernel checks modes, programs from a remote gain nothing.
/// * `Config`: no /dev/fuse, no fusermount3, or the system's settings refuse it; the message says which.
pub fn mount(mount_point: &Path, settings: &MountSettings) -> Result<Mounted> {
    let device = if is_root() {
        match mount_directly(mount_point, settings) {
            // Root without CAP_SYS_ADMIN, as in a container; fusermount3 may have it.
            Err(error) if error.kind == Kind::Denied => mount_by_helper(mount_point, settings).map_err(|_| error)?,
            other => other?,
        }
    } else {
        mount_by_helper(mount_point, settings)?
    };
    let entry = mountinfo::at(mount_point)?.filter(|entry| entry.fs_type == mountinfo::FS_TYPE).ok_or_else(|| {
        Error::new(Kind::Config, format!("mounted {}, but it is gone already", mount_point.display()))
    })?;
    Ok(Mounted { device, mount_point: mount_point.to_owned(), minor: entry.device.1 })
}

/// The part of the options that the kernel and fusermount3 both take.
fn common_options(settings: &MountSettings) -> String {
    let mut options = format!("default_permissions,max_read={MAX_READ}");
    if settings.allow_other {
        options.push_str(",allow_other");
    }
    options
}

/// Makes a source name that no parser of option strings or of /etc/mtab can misread.
fn harmless(source: &str) -> String {
    let clean = |c: char| if c.is_alphanumeric() || "-_.:/@+".contains(c) { c } else { '_' };
    let name: String = source.chars().take(128).map(clean).collect();
    if name.is_empty() { "fourwheel".to_owned() } else { name }
}

#[allow(clippy::disallowed_methods, reason = "a device, not the disk")]
fn open_device() -> Result<OwnedFd> {
    let opened = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/fuse");
    match opened {
        Ok(file) => Ok(file.into()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENXIO | libc::ENODEV)) => {
            Err(Error::new(Kind::Config, "the kernel offers no /dev/fuse: load it with \"modprobe fuse\""))
        }
        Err(e) => Err(Error::disk("open /dev/fuse", &e)),
    }
}

fn c_string(bytes: &OsStr) -> Result<CString> {
    CString::new(bytes.as_bytes()).map_err(|_| Error::new(Kind::Config, "a path or name holds a NUL byte"))
}

fn mount_directly(mount_point: &Path, settings: &MountSettings) -> Result<OwnedFd> {
    let device = open_device()?;
    // SAFETY: both calls cannot fail and touch no memory.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let common = common_options(settings);
    let data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid},{common}", device.as_raw_fd());
    let data = c_string(OsStr::new(&data))?;
    let source = c_string(OsStr::new(&harmless(&settings.source)))?;
    let target = c_string(mount_point.as_os_str())?;
    let fs_type = c_string(OsStr::new(mountinfo::FS_TYPE))?;
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if settings.read_only {
        flags |= libc::MS_RDONLY;
    }
    // SAFETY: the four strings end in NUL and live beyond the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), fs_type.as_ptr(), flags, data.as_ptr().cast()) };
    if result == 0 {
        return Ok(device);
    }
    Err(Error::disk(format!("mount {}", mount_point.display()), &io::Error::last_os_error()))
}

/// Names of the set-uid helper: that of libfuse 3, then that of libfuse 2, whose handshake is the same.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Mounts through fusermount3, which is set-uid root: it mounts and sends the descriptor back over a socket.
///
/// Source: libfuse `lib/mount.c` (`fuse_mount_fusermount`): the socket's number is in `_FUSE_COMMFD`.
fn mount_by_helper(mount_point: &Path, settings: &MountSettings) -> Result<OwnedFd> {
    let mut options = common_options(settings);
    options.push_str(&format!(",fsname={},subtype=fourwheel", harmless(&settings.source)));
    if settings.read_only {
        options.push_str(",ro");
    }
    let (ours, theirs) = UnixStream::pair().context("make a socket for fusermount3")?;
    let mut child = spawn_helper(&options, mount_point, theirs.as_raw_fd())?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read is not worth a second error.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().context("wait for fusermount3")?;
    match received {
        Ok(Some(device)) if status.success() => Ok(device),
        Ok(_) => Err(helper_refused(mount_point, said.trim())),
        Err(e) => Err(Error::disk("receive the mount's descriptor from fusermount3", &e)),
    }
}

fn helper_refused(mount_point: &Path, said: &str) -> Error {
    let hint = if said.contains("user_allow_other") {
        "; add the line user_allow_other to /etc/fuse.conf, or mount without access for other users"
    } else {
        ""
    };
    Error::new(Kind::Config, format!("mount {}: {said}{hint}", mount_point.display()))
}

fn spawn_helper(options: &str, mount_point: &Path, socket: RawFd) -> Result<std::process::Child> {
    for name in HELPERS {
        let mut command = Command::new(name);
        command.args(["-o", options, "--"]).arg(mount_point).env("_FUSE_COMMFD", socket.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only fcntl(2), which is async-signal-safe, runs; the socket is open in the parent.
        unsafe {
            command.pre_exec(move || match libc::fcntl(socket, libc::F_SETFD, 0) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::disk(format!("start {name}"), &e)),
        }
    }
    Err(Error::new(Kind::Config, "fusermount3 is not installed: install the package fuse3, or mount as root"))
}

/// Takes one descriptor from the socket; `None` when the other side closed without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = 0u8;
    // Aligned as cmsghdr wants it, and larger than one control message with one descriptor (24 bytes).
    let mut control = [0u64; 8];
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: msghdr is plain data for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    loop {
        // SAFETY: `message` points at buffers that outlive the call, with their true lengths.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match got {
            0 => return Ok(None),
            1.. => break,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    // SAFETY: `message` was filled by recvmsg(2) and its control buffer is alive; the data of an SCM_RIGHTS message is
    // an array of descriptors that now belong to this process.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_SOCKET || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let fd: RawFd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok((fd >= 0).then(|| OwnedFd::from_raw_fd(fd)))
    }
}

/// Takes the mount away from the tree at once; it lives on for those who have files open in it.
///
/// * `minor`: only the mount of this connection is taken; `None`: any fourwheel mount at `path`.
/// * Already gone, or another mount is there now: `Ok(false)`.
/// * May wait for the worker: pages that programs changed through mmap(2) are written out first.
pub fn unmount_lazy(path: &Path, minor: Option<u32>) -> Result<bool> {
    let here = mountinfo::at(path)?;
    let Some(entry) = here.filter(|entry| entry.fs_type == mountinfo::FS_TYPE) else { return Ok(false) };
    if minor.is_some_and(|minor| entry.device != (0, minor)) {
        return Ok(false);
    }
    let target = c_string(path.as_os_str())?;
    // SAFETY: `target` ends in NUL.
    if unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(Error::disk(format!("unmount {}", path.display()), &error));
    }
    unmount_by_helper(path)
}

/// Has the kernel write out what programs changed through mmap(2) and did not sync. Waits for the worker.
///
/// A lazy unmount does not do this while a file is open, and afterwards there is no worker to write to.
pub fn write_out(path: &Path) -> Result<()> {
    let dir = File::open(path).context(format!("open {}", path.display()))?;
    // SAFETY: the descriptor is open for the whole call.
    match unsafe { libc::syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::disk(format!("write out {}", path.display()), &io::Error::last_os_error())),
    }
}

fn unmount_by_helper(path: &Path) -> Result<bool> {
    for name in HELPERS {
        let mut command = Command::new(name);
        command.args(["-u", "-z", "--"]).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(true),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::new(Kind::Denied, format!("unmount {}: {said}", path.display())));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::disk(format!("start {name}"), &e)),
        }
    }
    Err(Error::new(Kind::Config, "fusermount3 is not installed: install the package fuse3, or unmount as root"))
}

/// Ends a connection by force: every program that waits in it gets ECONNABORTED, later calls ENOTCONN.
///
/// * Root, or the user who mounted. Where /sys/fs/fuse/connections is not mounted only root can, by a forced lazy unmount.
/// * The worker sees its connection end, as after an unmount.
pub fn abort(path: &Path, minor: u32) -> Result<()> {
    match write_to(Path::new(&format!("/sys/fs/fuse/connections/{minor}/abort")), b"1") {
        Err(error) if error.kind == Kind::NotFound => force(path, minor).map_err(|_| error),
        other => other,
    }
}

/// umount2(2) with MNT_FORCE aborts the connection before anything else (fs/fuse/inode.c, `fuse_umount_begin`).
fn force(path: &Path, minor: u32) -> Result<()> {
    if mountinfo::at(path)?.is_none_or(|entry| entry.device != (0, minor)) {
        return Err(Error::new(Kind::NotFound, format!("nothing of this connection is mounted at {}", path.display())));
    }
    let target = c_string(path.as_os_str())?;
    let flags = libc::MNT_FORCE | libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: `target` ends in NUL.
    match unsafe { libc::umount2(target.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(Error::disk(format!("unmount {}", path.display()), &io::Error::last_os_error())),
    }
}

/// Raises the kernel's read-ahead. Call it after INIT was answered: the answer lowers it to what the kernel had offered.
///
/// * Fails for everybody but root; callers go on without it.
pub fn raise_read_ahead(minor: u32) -> Result<()> {
    let path = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    write_to(Path::new(&path), READ_AHEAD_KIB.to_string().as_bytes())
}

#[allow(clippy::disallowed_methods, reason = "a switch of the kernel's, not the disk")]
fn write_to(path: &Path, data: &[u8]) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(data))
        .context(format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_smuggle_options_or_break_lines() {
        assert_eq!(harmless("work"), "work");
        assert_eq!(harmless("a,suid b\\040\n#x"), "a_suid_b_040__x");
        assert_eq!(harmless("müller@dav:/x"), "müller@dav:/x");
        assert_eq!(harmless(""), "fourwheel");
        assert_eq!(harmless(&"x".repeat(1000)).len(), 128);
    }
}
