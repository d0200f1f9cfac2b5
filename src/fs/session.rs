//! The session with the kernel, taken over from an earlier worker where there was one.
//!
//! The handshake is replayed: `fuser` reads the INIT request from one end of a socket pair and writes its answer there; the
//! first worker passes the answer to the kernel, later ones drop it. Then the kernel's descriptor takes the number of the
//! socket that the session holds, and the kernel is asked to send its open requests again (FUSE_NOTIFY_RESEND).

use crate::error::{Error, Kind, Result};
use fuser::{BackgroundSession, Config, Filesystem, Session, SessionACL};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The code of FUSE_NOTIFY_RESEND (`include/uapi/linux/fuse.h`, since 7.40).
const NOTIFY_RESEND: i32 = 7;

/// Threads that read requests. Two keep a reader and a lister from waiting for each other on two cores.
const THREADS: usize = 3;

fn failed(what: &str) -> Error {
    Error::new(Kind::Disk, format!("session: {what}: {}", io::Error::last_os_error()))
}

/// Serves `filesystem` on the kernel's descriptor. `first`: no worker answered the kernel before.
pub fn serve(filesystem: impl Filesystem, fuse: &OwnedFd, init: &[u8], first: bool) -> Result<BackgroundSession> {
    let mut pair: [RawFd; 2] = [0; 2];
    // SAFETY: `pair` has room for two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) } != 0
    {
        return Err(failed("socketpair"));
    }
    // SAFETY: socketpair(2) just returned both, and nobody else has them.
    let (near, far) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
    let number = far.as_raw_fd();
    write(&near, init)?;
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    let session = Session::from_fd(filesystem, far, SessionACL::All, config)
        .map_err(|e| Error::new(Kind::Disk, format!("session: handshake: {e}")))?;
    let mut answer = vec![0u8; 4096];
    // SAFETY: the buffer has the length that is given.
    let n = unsafe { libc::read(near.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len()) };
    if n <= 0 {
        return Err(failed("read the handshake's answer"));
    }
    if first {
        write(fuse, &answer[..n as usize])?;
    }
    // SAFETY: both descriptors are open; the session goes on with the kernel under the old number.
    if unsafe { libc::dup3(fuse.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(failed("dup3"));
    }
    if !first {
        let mut message = [0u8; 16];
        message[0..4].copy_from_slice(&16u32.to_ne_bytes());
        message[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
        write(fuse, &message)?;
    }
    session.spawn().map_err(|e| Error::new(Kind::Disk, format!("session: start: {e}")))
}

fn write(fd: &OwnedFd, bytes: &[u8]) -> Result<()> {
    // SAFETY: the slice is valid for its length.
    let n = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if n == bytes.len() as isize { Ok(()) } else { Err(failed("write")) }
}
