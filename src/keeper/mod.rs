//! The keeper: a small process that owns the mount and the /dev/fuse descriptor and starts the worker, which does everything
//! else. A worker that dies is replaced within milliseconds, the kernel sends its open requests again, and programs see a pause
//! and no error. Here live mounting, unmounting and the watch over the worker; what the worker does with the descriptor is
//! in [`fs::session`](crate::fs::session).
//!
//! ```text
//! fourwheel mount DRIVE DIR          the keeper (with --daemon: its child, while the command waits for the word "ready")
//!  └─ fourwheel <hidden> ...         the worker: worker_argv, started again with each death
//! ```
//! * The keeper has one thread, no async runtime, and allocates nothing once the first worker runs, so that little can end it.
//! * It reads the kernel's INIT request itself and hands its bytes to each worker, whose fuser needs a handshake to begin.
//! * Worker and keeper agree by exit codes ([`exit`]), signals (SIGTERM: stop) and a shared page ([`shared`]).
//! * Five deaths in a minute: safe mode. Five more: the keeper gives up and unmounts, so that no program hangs.
//! * Keeper killed: the kernel sends the worker SIGTERM. The last descriptor closes with it, the mount is stale, and the
//!   next `mount` there cleans it ([`mount_point::prepare`]).

pub mod backings;
mod daemon;
pub mod decide;
pub mod exit;
mod inherited;
pub mod mount;
pub mod mount_point;
pub mod mountinfo;
mod say;
pub mod shared;
mod signals;
mod spawn;
mod watch;

pub use inherited::Inherited;

use crate::error::{Context, Error, Kind, Result};
use decide::Policy;
use mount::{MountSettings, Mounted};
use mount_point::Contents;
use shared::Shared;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The environment variable that tells a worker its descriptors: device, INIT, page, ready pipe (-1: none).
const ENV: &str = "FOURWHEEL_KEEPER";
/// How long the kernel may take to send INIT. It queues it before mount(2) returns.
const INIT_PATIENCE: Duration = Duration::from_secs(10);
/// A request buffer of at least this size is what the kernel insists on (FUSE_MIN_READ_BUFFER).
const INIT_BUFFER: usize = 8192;

/// Where the keeper runs.
#[derive(Debug)]
pub enum Place {
    /// In this process, until the drive ends.
    Foreground,
    /// In a child; [`run`] returns when the drive answers.
    Daemon {
        /// Where keeper and worker write their stderr; `None`: nowhere.
        stderr: Option<OwnedFd>,
        /// How long to wait for the word "ready" before the daemon is stopped again.
        patience: Duration,
    },
}

/// What to mount, and whom to start.
#[derive(Debug)]
pub struct KeeperOptions {
    pub mount_point: PathBuf,
    pub contents: Contents,
    pub settings: MountSettings,
    /// The worker's command; the first word is the program's absolute path. A daemon's directory is `/`: no relative paths.
    pub worker_argv: Vec<OsString>,
    pub place: Place,
    pub policy: Policy,
    /// How long a worker may flush after SIGTERM before it is killed.
    pub stop_patience: Duration,
}

impl KeeperOptions {
    /// Foreground, an empty mount point, access for other users if root mounts, five deaths in a minute, half a minute to stop.
    pub fn new(mount_point: impl Into<PathBuf>, source: impl Into<String>, worker_argv: Vec<OsString>) -> Self {
        KeeperOptions {
            mount_point: mount_point.into(),
            contents: Contents::MustBeEmpty,
            settings: MountSettings { source: source.into(), allow_other: mount::is_root(), read_only: false },
            worker_argv,
            place: Place::Foreground,
            policy: Policy::default(),
            stop_patience: Duration::from_secs(30),
        }
    }
}

/// Mounts, starts the worker and keeps the drive alive. Returns the exit code ([`exit`]) for the shell.
///
/// * Foreground: returns when the drive has ended. Daemon: when it answers (0) or could not start.
/// * Call it in a process without other threads, before any runtime starts (`Invalid` otherwise).
/// * `Config`, `Exists`, `Denied`: nothing was mounted; the message says what to do.
pub fn run(options: KeeperOptions) -> Result<i32> {
    daemon::single_threaded()?;
    let KeeperOptions { mount_point, contents, settings, worker_argv, place, policy, stop_patience } = options;
    let ready = mount_point::prepare(&mount_point, contents)?;
    if ready.cleaned > 0 {
        eprintln!("fourwheel: removed what a dead drive had left at {}", ready.path.display());
    }
    let mounted = mount::mount(&ready.path, &settings)?;
    let path = mounted.mount_point.clone();
    let minor = mounted.minor;
    let begun = begin(mounted, worker_argv, place, policy, stop_patience);
    if begun.is_err() {
        // The first error is the one to tell; this one would only hide it.
        let _ = mount::unmount_lazy(&path, Some(minor));
    }
    begun
}

fn begin(
    mounted: Mounted,
    worker_argv: Vec<OsString>,
    place: Place,
    policy: Policy,
    stop_patience: Duration,
) -> Result<i32> {
    let init = read_init(&mounted)?;
    let shared = Shared::create()?;
    shared.minor.store(mounted.minor, SeqCst);
    let pipe = match &place {
        Place::Foreground => None,
        Place::Daemon { .. } => Some(daemon::pipe()?),
    };
    let mut daemon_pipe = None;
    if let (Place::Daemon { stderr, patience }, Some(pipe)) = (place, pipe) {
        let heard = stderr.is_some();
        match daemon::split(stderr)? {
            daemon::Side::Parent(pid) => {
                // The daemon's copy of the device is the one that counts.
                drop(mounted);
                return Ok(daemon::wait(pipe, pid, patience, heard));
            }
            daemon::Side::Daemon => daemon_pipe = Some(pipe.writer),
        }
    }
    let is_daemon = daemon_pipe.is_some();
    let (path, minor) = (mounted.mount_point.clone(), mounted.minor);
    let ended = keep(mounted, &init, shared, &worker_argv, daemon_pipe, policy, stop_patience);
    match ended {
        // The daemon is a copy of the caller, which must not go on twice.
        Ok(code) if is_daemon => std::process::exit(code),
        Err(error) if is_daemon => {
            eprintln!("fourwheel: {error}");
            // As `run` does in the foreground.
            let _ = mount::unmount_lazy(&path, Some(minor));
            std::process::exit(exit::GAVE_UP)
        }
        other => other,
    }
}

fn keep(
    mounted: Mounted,
    init: &OwnedFd,
    shared: Shared,
    worker_argv: &[OsString],
    ready: Option<OwnedFd>,
    policy: Policy,
    stop_patience: Duration,
) -> Result<i32> {
    // SAFETY: getpid(2) cannot fail and touches no memory.
    shared.keeper_pid.store(unsafe { libc::getpid() }, SeqCst);
    let signals = signals::Signals::block();
    let passed = spawn::Passed {
        device: mounted.device.as_raw_fd(),
        init: init.as_raw_fd(),
        shared: shared.as_fd().as_raw_fd(),
        ready: ready.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    };
    let worker = spawn::Prepared::new(worker_argv, passed, signals.before())?;
    let page = Shared::open(shared.as_fd().try_clone_to_owned().context("keep the page shared with the worker")?)?;
    let code = watch::Watch { mounted, shared, worker, signals, policy, stop_patience }.run();
    if let Some(ready) = &ready {
        daemon::tell_failure(ready, &page, code);
    }
    Ok(code)
}

/// Reads the kernel's first request and puts it into a file in memory.
fn read_init(mounted: &Mounted) -> Result<OwnedFd> {
    let mut wait = libc::pollfd { fd: mounted.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut buffer = vec![0u8; INIT_BUFFER];
    let doing = "read the kernel's INIT request";
    // SAFETY: `wait` is one pollfd, and `buffer` has the length that is given.
    let got = unsafe {
        if libc::poll(&raw mut wait, 1, INIT_PATIENCE.as_millis() as i32) <= 0 {
            return Err(Error::new(Kind::TimedOut, format!("{doing}: none came")));
        }
        libc::read(mounted.device.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    let Ok(got) = usize::try_from(got) else { return Err(Error::disk(doing, &io::Error::last_os_error())) };
    let file = shared::memfd(c"fourwheel-init").context(doing)?;
    let mut copy = File::from(file.try_clone().context(doing)?);
    copy.write_all(&buffer[..got]).context(doing)?;
    Ok(file)
}
