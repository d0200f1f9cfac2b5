//! The keeper: a tiny process that owns the mount and its descriptor, and replaces a worker that dies.
//!
//! It reads the kernel's INIT request itself and keeps its bytes in a memory file, so that each worker can go through the
//! handshake. Once the loop runs it allocates nothing and takes no lock: all strings of the exec are made before.

mod inherited;
pub mod mount;
pub mod mountinfo;
mod shared;

pub use inherited::Inherited;

use crate::error::{Error, Kind, Result};
use mount::MountOptions;
use shared::SharedPage;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Deaths within [`DEATHS_WITHIN`] after which the next worker starts in safe mode.
const DEATHS_MAX: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

/// How long a worker may take to end after it was asked to.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What the keeper needs to know.
pub struct KeeperOptions {
    pub mount: MountOptions,
    /// The program and the arguments of a worker.
    pub worker: Vec<CString>,
    /// Where the first worker says that the mount answers: one line, `ok` or an error. Closed in the keeper.
    pub ready: Option<OwnedFd>,
}

fn failed(what: &str) -> Error {
    Error::new(Kind::Disk, format!("keeper: {what}: {}", io::Error::last_os_error()))
}

/// The strings of one kind of start.
struct Exec {
    _environment: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Exec {
    fn new(words: &[(&str, String)]) -> Result<Exec> {
        use std::os::unix::ffi::OsStrExt;
        let bad = |_| Error::new(Kind::Config, "the environment holds a NUL byte");
        let mut environment = Vec::new();
        for (key, value) in std::env::vars_os() {
            if !words.iter().any(|(word, _)| key == *word) {
                environment.push(CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).map_err(bad)?);
            }
        }
        for (key, value) in words {
            environment.push(CString::new(format!("{key}={value}")).map_err(bad)?);
        }
        let pointers = environment.iter().map(|e| e.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Exec { _environment: environment, pointers })
    }
}

/// Mounts, runs workers until one ends by itself, and unmounts.
///
/// Returns the exit code: that of a worker that could not start, 0 after a clean end.
/// `Config`: the mount point cannot be used.
pub fn run(mut options: KeeperOptions) -> Result<i32> {
    let signals = block_signals()?;
    let fuse = mount::mount(&options.mount)?;
    let outcome = keep(&mut options, &fuse, &signals);
    let unmounted = mount::unmount_lazily(&options.mount.mount_point);
    let code = outcome?;
    unmounted.map(|()| code)
}

fn keep(options: &mut KeeperOptions, fuse: &OwnedFd, signals: &libc::sigset_t) -> Result<i32> {
    let init = keep_init(fuse)?;
    let page = SharedPage::create()?;
    let ready = options.ready.take();
    let words = |first: bool, safe: bool| {
        let ready = if first { ready.as_ref().map_or(-1, |fd| fd.as_raw_fd()) } else { -1 };
        Exec::new(&[
            (inherited::FUSE_FD, fuse.as_raw_fd().to_string()),
            (inherited::INIT_FD, init.as_raw_fd().to_string()),
            (inherited::PAGE_FD, page.fd().to_string()),
            (inherited::READY_FD, ready.to_string()),
            (inherited::FIRST, u8::from(first).to_string()),
            (inherited::SAFE, u8::from(safe).to_string()),
        ])
    };
    let (first, later, safe) = (words(true, false)?, words(false, false)?, words(false, true)?);
    let arguments: Vec<*const libc::c_char> =
        options.worker.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let mut deaths = [None::<Instant>; DEATHS_MAX];
    let mut exec = &first;
    let mut ready = ready;
    loop {
        let worker = spawn(&arguments, &exec.pointers)?;
        page.set_worker(worker);
        // Only the worker says when it is ready; if it dies before, who waits sees the end of the pipe.
        drop(ready.take());
        match wait(worker, signals)? {
            End::Exited(0) => return Ok(0),
            End::Stopped => return Ok(0),
            End::Exited(code) if !page.was_ready() => return Ok(code),
            End::Signalled(signal) if !page.was_ready() && deaths[DEATHS_MAX - 1].is_some() => return Ok(128 + signal),
            End::Exited(_) | End::Signalled(_) => {}
        }
        let now = now();
        deaths.rotate_right(1);
        deaths[0] = Some(now);
        let often = deaths[DEATHS_MAX - 1].is_some_and(|oldest| now.duration_since(oldest) < DEATHS_WITHIN);
        exec = if !page.was_ready() {
            &first
        } else if often {
            &safe
        } else {
            &later
        };
        if often {
            pause(Duration::from_millis(200));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the keeper runs no drive")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the keeper has one thread and nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Reads the kernel's first request and keeps it in a memory file that workers inherit.
fn keep_init(fuse: &OwnedFd) -> Result<OwnedFd> {
    let mut request = vec![0u8; 1 << 17];
    // SAFETY: the buffer has the length that is given.
    let n = unsafe { libc::read(fuse.as_raw_fd(), request.as_mut_ptr().cast(), request.len()) };
    if n <= 0 {
        return Err(failed("read the kernel's first request"));
    }
    // SAFETY: the name ends in NUL.
    let raw = unsafe { libc::memfd_create(c"fourwheel-init".as_ptr(), 0) };
    if raw < 0 {
        return Err(failed("memfd_create"));
    }
    // SAFETY: memfd_create(2) just returned it.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: the first `n` bytes of the buffer were read.
    if unsafe { libc::write(raw, request.as_ptr().cast(), n as usize) } != n {
        return Err(failed("keep the kernel's first request"));
    }
    Ok(file)
}

fn block_signals() -> Result<libc::sigset_t> {
    // SAFETY: the set is initialised by sigemptyset(3) before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(failed("block signals"));
        }
        Ok(set)
    }
}

/// Starts a worker. Between fork and exec only async-signal-safe calls are made.
fn spawn(arguments: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Result<libc::pid_t> {
    // SAFETY: this process has one thread; both arrays end in null and point to strings that live as long.
    unsafe {
        let keeper = libc::getpid();
        match libc::fork() {
            -1 => Err(failed("fork")),
            0 => {
                // A terminal's Ctrl-C goes to the keeper, which ends the worker in order.
                libc::setpgid(0, 0);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                if libc::getppid() != keeper {
                    libc::_exit(1);
                }
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
                libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
                libc::_exit(127)
            }
            worker => Ok(worker),
        }
    }
}

/// How a worker ended.
enum End {
    Exited(i32),
    Signalled(i32),
    /// It was asked to end, and did not in time.
    Stopped,
}

/// Waits for the worker's end; passes the wish to stop on to it.
fn wait(worker: libc::pid_t, signals: &libc::sigset_t) -> Result<End> {
    let mut stop_at: Option<Instant> = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` has room for the answer.
        if unsafe { libc::waitpid(worker, &mut status, libc::WNOHANG) } == worker {
            if libc::WIFEXITED(status) {
                return Ok(End::Exited(libc::WEXITSTATUS(status)));
            }
            if libc::WIFSIGNALED(status) {
                return Ok(match stop_at {
                    Some(_) => End::Stopped,
                    None => End::Signalled(libc::WTERMSIG(status)),
                });
            }
        }
        let left = stop_at.map(|at| at.saturating_duration_since(now()));
        if left.is_some_and(|left| left.is_zero()) {
            // SAFETY: the worker is our child and was not waited for yet.
            unsafe { libc::kill(worker, libc::SIGKILL) };
            stop_at = Some(now() + STOP_WITHIN);
        }
        let limit = libc::timespec { tv_sec: left.map_or(3600, |l| l.as_secs() as i64), tv_nsec: 100_000_000 };
        // SAFETY: the set is initialised; no information on the signal is asked for.
        match unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), &limit) } {
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP => {
                let again = stop_at.replace(now() + STOP_WITHIN).is_some();
                let signal = if again { libc::SIGKILL } else { libc::SIGTERM };
                // SAFETY: the worker is our child and was not waited for yet.
                unsafe { libc::kill(worker, signal) };
            }
            _ => {}
        }
    }
}

/// A descriptor by its number, for what is inherited.
fn inherit(raw: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only asks.
    if raw < 3 || unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the environment says that it was opened for us.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: the descriptor is open; programs that the worker starts must not inherit it.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    Some(fd)
}
