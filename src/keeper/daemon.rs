//! Going into the background, and the parent's wait for the word that the drive answers.

use super::exit;
use super::shared::Shared;
use crate::error::{Context, Error, Kind, Result};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The two ends of the pipe that carries the word. `R`: ready. `E`, a byte with the exit code, a text: failed. End of file: the
/// keeper died.
#[derive(Debug)]
pub struct ReadyPipe {
    pub reader: OwnedFd,
    pub writer: OwnedFd,
}

/// Which of the two processes this is.
pub enum Side {
    /// The command that the user started; the pid is the daemon's.
    Parent(libc::pid_t),
    Daemon,
}

/// Makes the pipe.
pub fn pipe() -> Result<ReadyPipe> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are new and ours.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(Error::disk("make a pipe for the daemon", &io::Error::last_os_error()));
        }
        Ok(ReadyPipe { reader: OwnedFd::from_raw_fd(ends[0]), writer: OwnedFd::from_raw_fd(ends[1]) })
    }
}

/// Splits the process. The daemon has a session of its own, `/` as its directory, and nothing to read or to say but to `stderr`.
pub fn split(stderr: Option<OwnedFd>) -> Result<Side> {
    let null = open_null().context("open /dev/null")?;
    // SAFETY: the process has one thread (the caller checked), so the child may go on as usual.
    match unsafe { libc::fork() } {
        -1 => Err(Error::disk("start the daemon", &io::Error::last_os_error())),
        0 => {
            let stderr = stderr.as_ref().unwrap_or(&null);
            // SAFETY: the descriptors are open; "/" ends in NUL.
            unsafe {
                libc::setsid();
                libc::chdir(c"/".as_ptr());
                libc::dup2(null.as_raw_fd(), 0);
                libc::dup2(null.as_raw_fd(), 1);
                libc::dup2(stderr.as_raw_fd(), 2);
            }
            Ok(Side::Daemon)
        }
        pid => Ok(Side::Parent(pid)),
    }
}

#[allow(clippy::disallowed_methods, reason = "a device, not the disk")]
fn open_null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

/// The parent's wait. Returns the exit code for the shell, after the daemon's words were shown.
///
/// * `heard`: the daemon has a stderr, and says there itself why it ended.
/// * Not ready within `patience`: the daemon is told to stop, [`exit::NOT_READY`].
pub fn wait(pipe: ReadyPipe, daemon: libc::pid_t, patience: Duration, heard: bool) -> i32 {
    let ReadyPipe { reader, writer } = pipe;
    // Only the daemon's copy may hold the pipe open.
    drop(writer);
    let mut wait = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `wait` is one pollfd.
    if unsafe { libc::poll(&raw mut wait, 1, millis) } <= 0 {
        eprintln!("fourwheel: the drive did not answer within {patience:?}; stopped");
        // SAFETY: kill(2) touches no memory; the daemon is our child, and nobody reaped it.
        unsafe { libc::kill(daemon, libc::SIGTERM) };
        return exit::NOT_READY;
    }
    let mut word = [0; 600];
    match File::from(reader).read(&mut word) {
        Ok(1..) if word[0] == b'R' => exit::CLEAN,
        Ok(len @ 2..) if word[0] == b'E' => {
            if !heard {
                eprintln!("fourwheel: {}", String::from_utf8_lossy(&word[2..len]));
            }
            i32::from(word[1])
        }
        _ => {
            eprintln!("fourwheel: the keeper of the drive died before it was ready");
            exit::GAVE_UP
        }
    }
}

/// The daemon's word that it ended before it was ready; nothing when some worker was.
pub fn tell_failure(writer: &OwnedFd, shared: &Shared, code: i32) {
    if shared.ready_generation.load(SeqCst) != 0 {
        return;
    }
    let mut word = [0u8; 512];
    let mut text = [0; 508];
    let message = shared.message.copy(&mut text);
    let message: &[u8] = if message.is_empty() { b"the drive ended before it was ready" } else { message };
    word[0] = b'E';
    // Whoever waits for a drive must not take "stopped before it began" for success.
    word[1] = u8::try_from(if code == exit::CLEAN { exit::KILLED } else { code }).unwrap_or(u8::MAX);
    let room = &mut word[2..2 + message.len()];
    room.copy_from_slice(message);
    // SAFETY: the buffer is as long as it says; one write of less than PIPE_BUF is whole. Nobody waiting is no error.
    unsafe { libc::write(writer.as_raw_fd(), word.as_ptr().cast(), 2 + message.len()) };
}

/// Refuses to fork where other threads would be lost with their locks held.
pub fn single_threaded() -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").context("count this process's threads")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("the keeper must start before other threads do; there are {threads}")))
}
