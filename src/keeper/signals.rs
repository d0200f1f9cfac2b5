//! The signals that the keeper waits for, and the children that it reaps. Blocks; allocates nothing.

use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use super::decide::Ended;

/// What woke the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A child ended; [`reap`] tells which.
    Child,
    /// SIGTERM, SIGINT or SIGHUP.
    Stop,
    /// The time is over.
    Timeout,
}

/// The blocked signals, and the mask as it was before.
pub struct Signals {
    waited: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP. The last two stay ignored where they are (nohup, a shell's background job).
    pub fn block() -> Self {
        let mut waited = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigemptyset(3) initialises `waited`, sigprocmask(2) `before`; SIG_DFL is a valid handler.
        unsafe {
            libc::sigemptyset(waited.as_mut_ptr());
            libc::sigaddset(waited.as_mut_ptr(), libc::SIGCHLD);
            libc::sigaddset(waited.as_mut_ptr(), libc::SIGTERM);
            for signal in [libc::SIGINT, libc::SIGHUP] {
                if !ignored(signal) {
                    libc::sigaddset(waited.as_mut_ptr(), signal);
                }
            }
            // An ignored SIGCHLD, inherited from whoever started us, would make children vanish unreaped.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_BLOCK, waited.as_ptr(), before.as_mut_ptr());
            Signals { waited: waited.assume_init(), before: before.assume_init() }
        }
    }

    /// The mask for children.
    pub fn before(&self) -> libc::sigset_t {
        self.before
    }

    /// Puts the mask back.
    pub fn restore(&self) {
        // SAFETY: `before` was filled by sigprocmask(2).
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }

    /// Waits for the next event; without a limit when `timeout` is `None`.
    pub fn wait(&self, timeout: Option<Duration>) -> Event {
        // An hour at a time, so that no duration is too long for timespec.
        let limit = timeout.unwrap_or(Duration::from_secs(3600)).min(Duration::from_secs(3600));
        let limit = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // SAFETY: both structs are initialised and live beyond the call.
        match unsafe { libc::sigtimedwait(&raw const self.waited, ptr::null_mut(), &raw const limit) } {
            libc::SIGCHLD => Event::Child,
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP => Event::Stop,
            // Over, or woken by SIGCONT after Ctrl-Z: callers look at the clock.
            _ => Event::Timeout,
        }
    }
}

fn ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` has room for the answer; zeros are valid in it.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// The next child that has ended, if any.
pub fn reap() -> Option<(libc::pid_t, Ended)> {
    let mut status = 0;
    // SAFETY: `status` has room for the answer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, ended))
}

/// Sends a signal to a child that was not reaped yet.
pub fn send(pid: libc::pid_t, signal: i32) {
    // SAFETY: kill(2) touches no memory; an unreaped child's pid belongs to nobody else.
    unsafe { libc::kill(pid, signal) };
}
