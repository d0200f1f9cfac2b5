//! Runs a fuser session on a descriptor that another process may have used before: a takeover without a new mount.
//!
//! fuser begins with a handshake, which the kernel held once, with the keeper listening. So the INIT request is replayed over
//! a socket, fuser's answer is taken from it (the first worker's goes to the kernel), and then the real descriptor
//! is put under the number that fuser uses. Requests that the last worker had read and not answered are asked for again.
//!
//! What a worker must know about requests that come again (tests/keeper shows each of these):
//! * Everything that has an answer is sent again: lookup, getattr, open, read, write, create, mkdir, rename, unlink, setattr,
//!   flush, fsync, release. The last worker may have done it, half or wholly: [`resent`] tells that it may be so.
//! * FORGET has no answer and is not sent again: after a takeover lookup counts are only upper bounds.
//! * Only what was *read* comes again so marked; what waited in the kernel's queue comes as if nothing had happened.
//! * RELEASE, READ and WRITE may name handles that an earlier worker gave out.
//! * Answer from memory that was written to before (a buffer filled by pread), never from a mapped file or untouched zeros:
//!   the kernel cannot fault pages of a killed process in, and the request being answered would end with EIO.
//! * A panic must abort the process. One that only ends a session thread leaves a mount with a thread less, and nobody is told.
//! * A core dump delays the successor until it is written.
//! * Passthrough opens go on. Their ids are kept in [`Backings`](crate::keeper::backings::Backings), noted before the reply.

use crate::error::{Context, Error, Kind, Result};
use crate::keeper::Inherited;
use fuser::{Config, Filesystem, Notifier, SessionACL};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The bit of `unique` that marks a request as sent again. Source: linux/fuse.h, FUSE_UNIQUE_RESEND, since ABI 7.40.
const RESENT: u64 = 1 << 63;
/// Source: linux/fuse.h, enum fuse_notify_code.
const FUSE_NOTIFY_RESEND: i32 = 7;
/// The fields of the INIT answer, with the 16 bytes of fuse_out_header before them (struct fuse_init_out).
const ANSWER_FLAGS: usize = 16 + 12;
const ANSWER_FLAGS2: usize = 16 + 32;

/// Splits a request's number: whether an earlier worker may have carried it out, and the number without the mark.
///
/// `fuser::Request::unique()` carries the mark (in fuser 0.18 as `.0`), and fuser sends it back in the answer, as it must.
pub const fn resent(unique: u64) -> (bool, u64) {
    (unique & RESENT != 0, unique & !RESENT)
}

/// Whether this worker is the connection's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The kernel took our answer to INIT.
    First,
    /// An earlier worker had answered; its open requests were asked for again.
    Takeover,
}

/// A running session.
pub struct Session {
    /// Sends invalidations to the kernel; never from within a request.
    pub notifier: Notifier,
    pub start: Start,
    /// The capability flags (`FUSE_*` of fuser's `InitFlags`) that hold for this connection: those of the first worker's answer.
    /// After an upgrade they may differ from what this worker asked for, and they are the ones that count.
    pub flags: u64,
    ended: Receiver<io::Result<()>>,
}

impl Session {
    /// Waits for the end: the mount is gone, or the session failed. `None`: not within `patience`. `Stale`: asked before.
    ///
    /// It ends by itself only when the connection does. A worker that was told to stop flushes and exits without it.
    pub fn wait(&self, patience: Duration) -> Option<Result<()>> {
        match self.ended.recv_timeout(patience) {
            Ok(result) => Some(result.context("serve the kernel's requests")),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(Error::new(Kind::Stale, "the session has ended before"))),
        }
    }
}

/// Serves the kernel's requests with `filesystem` on `threads` threads of one descriptor (2 to 4 are good: fuse.md).
///
/// * Returns when the kernel is being answered. `filesystem.init` was called by then, in every worker.
/// * Its `init` must ask for the same capabilities in every worker: the kernel heard only the first.
/// * No cloned descriptors: the kernel ends, with ECONNABORTED, what was read from a clone that closes.
/// * `Config`: fuser refused the INIT request, or `filesystem.init` failed.
pub fn serve<F: Filesystem>(filesystem: F, inherited: &Inherited, threads: usize) -> Result<Session> {
    let (ours, theirs) = socket_pair()?;
    let fuser_end = theirs.as_raw_fd();
    let mut ours = File::from(ours);
    ours.write_all(inherited.init()).context("replay the kernel's INIT request")?;
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    config.clone_fd = false;
    let session = fuser::Session::from_fd(filesystem, theirs, SessionACL::All, config)
        .map_err(|e| Error::new(Kind::Config, format!("begin a session with the kernel: {e}")))?;
    let mut answer = [0u8; 256];
    let len = ours.read(&mut answer).context("take fuser's answer to INIT")?;
    let answer = &answer[..len];
    let start = greet(inherited, answer)?;
    // SAFETY: fuser owns the descriptor behind `fuser_end` for as long as `session` lives, and no thread of it runs yet. Its
    // number stays open throughout: only what it stands for changes.
    if unsafe { libc::dup3(inherited.device().as_raw_fd(), fuser_end, libc::O_CLOEXEC) } == -1 {
        return Err(Error::disk("give the mount's descriptor to fuser", &io::Error::last_os_error()));
    }
    if start == Start::Takeover {
        ask_again(inherited.device())?;
    }
    let notifier = session.notifier();
    let (done, ended) = channel();
    std::thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            // Nobody listening means that the process is about to end.
            let _ = done.send(session.run());
        })
        .context("start the session's thread")?;
    Ok(Session { notifier, start, flags: flags_of(&inherited.init_answer()), ended })
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are new and ours.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        if libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) != 0 {
            return Err(Error::disk("make a socket for the INIT request", &io::Error::last_os_error()));
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Gives the kernel our answer to INIT. Whether it still waits for one decides whether this is the first worker: no note of
/// ours could be right at every instant at which a worker may die.
fn greet(inherited: &Inherited, answer: &[u8]) -> Result<Start> {
    match write_message(inherited.device(), answer) {
        Ok(()) => {
            inherited.keep_init_answer(answer);
            inherited.raise_read_ahead();
            Ok(Start::First)
        }
        // No such request: it was answered. (Or the mount is gone, which the session finds out at once.)
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
            let first = inherited.init_answer();
            if first.is_empty() {
                // The first worker died between the kernel's nod and its note; ours is the same unless it was replaced in between.
                inherited.keep_init_answer(answer);
            } else if first != answer {
                let (theirs, ours) = (flags_of(&first), flags_of(answer));
                tracing::warn!(
                    "this mount was negotiated with flags {theirs:#x}; this version would ask for {ours:#x}"
                );
            }
            inherited.raise_read_ahead();
            Ok(Start::Takeover)
        }
        Err(e) => Err(Error::disk("answer the kernel's INIT request", &e)),
    }
}

/// Has the kernel send again what was read and not answered.
///
/// * Before Linux 6.9 the kernel does not know the notification (EINVAL): requests that the dead worker had read never end by
///   themselves. Told as `Unsupported`, so that the caller can end the mount instead of leaving programs hanging.
fn ask_again(device: BorrowedFd<'_>) -> Result<()> {
    let mut message = [0u8; 16];
    message[..4].copy_from_slice(&16u32.to_ne_bytes());
    message[4..8].copy_from_slice(&FUSE_NOTIFY_RESEND.to_ne_bytes());
    match write_message(device, &message) {
        Ok(()) => Ok(()),
        // Unmounted from outside meanwhile.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::ENOENT)) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Err(Error::new(Kind::Unsupported, "this kernel cannot send open requests again (needs Linux 6.9)"))
        }
        Err(e) => Err(Error::disk("ask the kernel for the open requests", &e)),
    }
}

fn write_message(device: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    let copy = device.as_fd().try_clone_to_owned()?;
    // One write is one message: never split, never repeated.
    match File::from(copy).write(message)? {
        n if n == message.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Both halves of the flags of an INIT answer; 0 for what is too short.
fn flags_of(answer: &[u8]) -> u64 {
    let word = |at: usize| answer.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    u64::from(word(ANSWER_FLAGS)) | u64::from(word(ANSWER_FLAGS2)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_resent_request_comes_off() {
        assert_eq!(resent(42), (false, 42));
        assert_eq!(resent(42 | 1 << 63), (true, 42));
    }
}
