//! Whether a directory can be mounted over: asks, cleans what a dead drive left, or says what to do.

use super::mount;
use super::mountinfo;
use crate::error::{Error, Kind, Result};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a mount may take to answer before it counts as hung.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Dead mounts may lie on each other; more than this is not cleaned.
const STALE_MAX: usize = 16;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountPoint {
    Missing,
    NotDirectory,
    /// A directory that holds something.
    NotEmpty,
    Empty,
    /// A fourwheel mount that answers.
    Mounted,
    /// A fourwheel mount whose process is gone: "transport endpoint is not connected".
    Stale,
    /// A fourwheel mount that is there and does not answer in time.
    Hung,
    /// It could not be found out; the errno.
    Unknown(i32),
}

/// A directory that is ready to be mounted over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Absolute, without symlinks.
    pub path: PathBuf,
    /// How many dead mounts were removed.
    pub cleaned: usize,
}

/// Looks at a path without waiting for more than three seconds, even when a hung drive is mounted there.
pub fn look(path: &Path) -> Result<MountPoint> {
    let ours = mountinfo::at(path)?.is_some_and(|entry| entry.fs_type == mountinfo::FS_TYPE);
    match (ours, probe(path)) {
        (true, Probe::Directory) => Ok(MountPoint::Mounted),
        (true, Probe::Errno(libc::ENOTCONN | libc::ECONNABORTED)) => Ok(MountPoint::Stale),
        (true, Probe::Silent) => Ok(MountPoint::Hung),
        (true, Probe::Errno(errno)) => Ok(MountPoint::Unknown(errno)),
        (_, Probe::Errno(libc::ENOENT)) => Ok(MountPoint::Missing),
        (_, Probe::Errno(libc::ENOTDIR) | Probe::Other) => Ok(MountPoint::NotDirectory),
        (_, Probe::Errno(errno)) => Ok(MountPoint::Unknown(errno)),
        (_, Probe::Silent) => Ok(MountPoint::Unknown(libc::ETIMEDOUT)),
        (false, Probe::Directory) => match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(MountPoint::Empty),
            Ok(false) => Ok(MountPoint::NotEmpty),
            Err(e) => Ok(MountPoint::Unknown(e.raw_os_error().unwrap_or(libc::EIO))),
        },
    }
}

/// What may lie in a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    MustBeEmpty,
    /// What is there is hidden while the drive is mounted.
    MayBeHidden,
}

/// Makes `path` ready for a mount, or says in the user's words why not (`Config`; `Exists` where a live drive is mounted).
///
/// * Dead fourwheel mounts there are removed.
pub fn prepare(path: &Path, contents: Contents) -> Result<Ready> {
    let path = resolve(path)?;
    let mut cleaned = 0;
    let shown = path.display();
    loop {
        let refuse = |kind, why: String| Err(Error::new(kind, why));
        match look(&path)? {
            MountPoint::Stale if cleaned < STALE_MAX => {
                mount::unmount_lazy(&path, None)?;
                cleaned += 1;
            }
            MountPoint::Empty => return Ok(Ready { path, cleaned }),
            MountPoint::NotEmpty if contents == Contents::MayBeHidden => return Ok(Ready { path, cleaned }),
            MountPoint::NotEmpty => {
                return refuse(
                    Kind::MountPoint,
                    format!("{shown} is not empty: choose an empty directory, or allow it with --non-empty"),
                );
            }
            MountPoint::Missing => {
                return refuse(Kind::MountPoint, format!("{shown} does not exist: make it with \"mkdir -p {shown}\""));
            }
            MountPoint::NotDirectory => {
                return refuse(Kind::MountPoint, format!("{shown} is not a directory: choose one"));
            }
            MountPoint::Mounted => {
                return refuse(
                    Kind::MountPoint,
                    format!("a drive is mounted at {shown} already: end it with \"fourwheel unmount {shown}\""),
                );
            }
            MountPoint::Hung => {
                return refuse(
                    Kind::MountPoint,
                    format!("the drive at {shown} does not answer: \"fourwheel unmount --force {shown}\" frees it"),
                );
            }
            MountPoint::Stale => {
                return refuse(Kind::MountPoint, format!("{shown} holds more than {STALE_MAX} dead mounts"));
            }
            MountPoint::Unknown(errno) => {
                return refuse(
                    Kind::MountPoint,
                    format!("cannot look at {shown}: {}", io::Error::from_raw_os_error(errno)),
                );
            }
        }
    }
}

/// The absolute path without symlinks, also for a dead mount, at which realpath(3) may fail.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| Error::disk(format!("resolve {}", path.display()), &e))?;
    if let Ok(found) = absolute.canonicalize() {
        return Ok(found);
    }
    let found = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
        _ => Ok(absolute.clone()),
    };
    found.map_err(|e| {
        Error::new(Kind::MountPoint, format!("{} cannot be used as a mount point: {e}", absolute.display()))
    })
}

#[derive(Debug)]
enum Probe {
    Directory,
    Other,
    Errno(i32),
    Silent,
}

/// Asks the file system itself (not its cache) for the attributes of `path`, in a child: a call into a hung mount ends only
/// with its process.
fn probe(path: &Path) -> Probe {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Probe::Errno(libc::EINVAL) };
    let mut pipe = [0; 2];
    // SAFETY: `pipe` has room for the two descriptors.
    if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Probe::Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: the child calls only statx(2), write(2) and _exit(2), all of which may be called after fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        probe_child(&path, pipe[1]);
    }
    // SAFETY: the descriptors are ours and nobody else's.
    unsafe { libc::close(pipe[1]) };
    let answer = if pid < 0 { Some(libc::EAGAIN) } else { read_answer(pipe[0]) };
    // SAFETY: as above; `pid`, if there is one, is our own child, which nobody else waits for.
    unsafe {
        libc::close(pipe[0]);
        if pid > 0 {
            libc::kill(pid, libc::SIGKILL);
            // A request that the hung worker has read holds the child until it is answered: it is left to init then.
            libc::waitpid(pid, std::ptr::null_mut(), if answer.is_some() { 0 } else { libc::WNOHANG });
        }
    }
    match answer {
        None => Probe::Silent,
        Some(0) => Probe::Directory,
        Some(-1) => Probe::Other,
        Some(errno) => Probe::Errno(errno),
    }
}

fn probe_child(path: &CString, pipe: i32) -> ! {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends in NUL, `found` has room for the answer and zeros are valid in it; `pipe` is open.
    unsafe {
        let flags = libc::AT_STATX_FORCE_SYNC;
        let result = libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_TYPE, found.as_mut_ptr());
        let kind = u32::from(found.assume_init().stx_mode) & libc::S_IFMT;
        let answer: i32 = match result {
            0 if kind == libc::S_IFDIR => 0,
            0 => -1,
            _ => *libc::__errno_location(),
        };
        libc::write(pipe, (&raw const answer).cast(), 4);
        libc::_exit(0)
    }
}

/// The child's answer, or `None` when it gave none in time.
fn read_answer(pipe: i32) -> Option<i32> {
    let mut wait = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    let mut answer = 0i32;
    // SAFETY: `wait` is one pollfd and `answer` has the four bytes that may be written into it.
    let got = unsafe {
        if libc::poll(&raw mut wait, 1, PROBE_TIMEOUT.as_millis() as i32) <= 0 {
            return None;
        }
        libc::read(pipe, (&raw mut answer).cast(), 4)
    };
    (got == 4).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        assert_eq!(look(&dir).unwrap(), MountPoint::Empty);
        std::fs::File::create(dir.join("f")).unwrap();
        assert_eq!(look(&dir).unwrap(), MountPoint::NotEmpty);
        assert_eq!(look(&dir.join("f")).unwrap(), MountPoint::NotDirectory);
        assert_eq!(look(&dir.join("f/x")).unwrap(), MountPoint::NotDirectory);
        assert_eq!(look(&dir.join("absent")).unwrap(), MountPoint::Missing);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let say = |name: &str| prepare(&dir.path().join(name), Contents::MustBeEmpty).unwrap_err();
        assert!(say("absent").message().contains("mkdir -p"));
        std::fs::File::create(dir.path().join("f")).unwrap();
        assert!(say("f").message().contains("not a directory"));
        assert!(say("").message().contains("--non-empty"));
        assert!(say("absent/deep").message().contains("cannot be used"));
        assert_eq!(prepare(dir.path(), Contents::MayBeHidden).unwrap().cleaned, 0);
    }
}
