//! Starting a worker without allocating: everything exec needs is laid out before.

use super::ENV;
use super::shared::Page;
use crate::error::{Error, Kind, Result};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

/// The descriptors that a worker gets.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    pub device: RawFd,
    pub init: RawFd,
    pub shared: RawFd,
    /// -1: nobody waits.
    pub ready: RawFd,
}

/// A command, ready to be started any number of times.
#[derive(Debug)]
pub struct Prepared {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    passed: [RawFd; 4],
    mask: libc::sigset_t,
    /// What the pointers point into.
    _strings: Vec<CString>,
}

impl Prepared {
    /// Lays out `argv` and this process's environment.
    ///
    /// * `mask`: the signals that the worker shall have blocked.
    /// * `Config`: `argv` is empty or holds a NUL byte.
    pub fn new(argv: &[OsString], passed: Passed, mask: libc::sigset_t) -> Result<Self> {
        if argv.is_empty() {
            return Err(Error::new(Kind::Config, "no command for the worker"));
        }
        let Passed { device, init, shared, ready } = passed;
        let mut own = std::env::vars_os().filter(|(name, _)| name != ENV).map(|(name, value)| {
            let mut text = name;
            text.push("=");
            text.push(value);
            text
        });
        let handles = OsString::from(format!("{ENV}={device},{init},{shared},{ready}"));
        let env: Vec<OsString> = own.by_ref().chain([handles]).collect();
        let nul = |_| Error::new(Kind::Config, "the worker's command or the environment holds a NUL byte");
        let argv_strings =
            argv.iter().map(|text| CString::new(text.as_bytes()).map_err(nul)).collect::<Result<Vec<_>>>()?;
        let env_strings =
            env.into_iter().map(|text| CString::new(text.into_vec()).map_err(nul)).collect::<Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Ok(Prepared {
            argv: pointers(&argv_strings),
            envp: pointers(&env_strings),
            passed: [device, init, shared, ready],
            mask,
            _strings: argv_strings.into_iter().chain(env_strings).collect(),
        })
    }

    /// Starts the command in a process group of its own (Ctrl-C goes to the keeper alone) and returns its pid.
    ///
    /// * `argv[0]` is tried first, so that an upgraded program takes over; then the keeper's own file.
    /// * The child gets SIGTERM when the keeper dies.
    pub fn start(&self, page: &Page) -> io::Result<libc::pid_t> {
        // SAFETY: the keeper has one thread; the child calls only async-signal-safe functions until exec or _exit.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.child(page),
            pid => Ok(pid),
        }
    }

    fn child(&self, page: &Page) -> ! {
        // SAFETY: all pointers are to NUL-terminated strings, or to arrays of such with a null at the end, which `self` owns;
        // fcntl(2), setpgid(2), sigprocmask(2), execve(2) and _exit(2) are async-signal-safe.
        unsafe {
            libc::setpgid(0, 0);
            die_with_parent();
            if libc::getppid() != page.keeper_pid.load(SeqCst) {
                libc::_exit(127);
            }
            page.worker_pid.store(libc::getpid(), SeqCst);
            for fd in self.passed {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
            libc::execve(self.argv[0], self.argv.as_ptr(), self.envp.as_ptr());
            libc::execve(c"/proc/self/exe".as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
            libc::_exit(127)
        }
    }
}

/// Has the kernel send this process SIGTERM when its parent ends.
pub fn die_with_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes a number; async-signal-safe.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
}
