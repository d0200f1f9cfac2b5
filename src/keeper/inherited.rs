//! The worker's side: what it got from its keeper, and what it tells it.

use super::backings::Backings;
use super::mount;
use super::shared::{Death, Shared};
use super::{ENV, spawn};
use crate::error::{Context, Error, Kind, Result};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::atomic::Ordering::SeqCst;

/// `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::Ioctl = libc::_IOW::<u32>(229, 2);

/// The mount, as a worker gets it. Keep it for as long as the process lives.
#[derive(Debug)]
pub struct Inherited {
    device: OwnedFd,
    init: Vec<u8>,
    shared: Shared,
    /// Where a daemon's parent waits for the word.
    ready: Option<OwnedFd>,
}

impl Inherited {
    /// Takes over what the keeper passed, or `None` when no keeper started this process.
    ///
    /// * Call it once, early in `main`, before threads start; the descriptors become close-on-exec.
    /// * From here on, SIGTERM comes when the keeper wants the worker to stop, and also when the keeper itself is gone
    ///   ([`orphaned`](Self::orphaned) tells which). Either way: flush, exit 0.
    /// * `Stale`: the keeper died in between. `Config`: the environment holds nonsense.
    pub fn from_env() -> Result<Option<Inherited>> {
        let Ok(text) = std::env::var(ENV) else { return Ok(None) };
        let numbers: Vec<RawFd> = text.split(',').filter_map(|number| number.parse().ok()).collect();
        let [device, init, shared, ready] = numbers[..] else {
            return Err(Error::new(Kind::Config, format!("{ENV}={text} is not what a keeper passes")));
        };
        let device = adopt(device)?;
        let kind = File::from(device.try_clone().context("look at the descriptor of the mount")?)
            .metadata()
            .context("look at the descriptor of the mount")?;
        if !kind.file_type().is_char_device() {
            return Err(Error::new(Kind::Config, format!("{ENV}={text} does not name a /dev/fuse")));
        }
        let shared = Shared::open(adopt(shared)?)?;
        let init = read_all(adopt(init)?)?;
        let ready = if ready < 0 { None } else { Some(adopt(ready)?) };
        let inherited = Inherited { device, init, shared, ready };
        // Set again: the kernel forgets it when the program file has capabilities.
        spawn::die_with_parent();
        if inherited.orphaned() {
            return Err(Error::new(Kind::Stale, "the keeper of this mount is gone"));
        }
        Ok(Some(inherited))
    }

    /// The /dev/fuse descriptor of the mount.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// The kernel's INIT request, as the keeper read it.
    pub fn init(&self) -> &[u8] {
        &self.init
    }

    /// The answer that the first worker gave, as the kernel accepted it; empty before.
    pub fn init_answer(&self) -> Vec<u8> {
        self.shared.init_answer.copy(&mut [0; 256]).to_vec()
    }

    /// Keeps the accepted answer for the workers to come.
    pub fn keep_init_answer(&self, answer: &[u8]) {
        self.shared.init_answer.set(answer);
    }

    /// This worker's number, from 1: each start by this keeper counts one up.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(SeqCst)
    }

    /// The connection's number in /sys/fs/fuse/connections.
    pub fn minor(&self) -> u32 {
        self.shared.minor.load(SeqCst)
    }

    /// The keeper's process, to which SIGTERM may be sent to end the drive.
    pub fn keeper_pid(&self) -> i32 {
        self.shared.keeper_pid.load(SeqCst)
    }

    /// How many workers died, and the last 16 deaths, oldest first.
    pub fn deaths(&self) -> (u64, Vec<Death>) {
        (self.shared.deaths.load(SeqCst), self.shared.last_deaths())
    }

    /// Why this worker must run in safe mode: names and cached data only, nothing sent. `None`: it need not.
    pub fn safe_mode(&self) -> Option<String> {
        (self.shared.safe_mode.load(SeqCst) != 0).then(|| self.shared.reason.text())
    }

    /// The passthrough files of this connection, those of dead workers included.
    pub fn backings(&self) -> &Backings {
        &self.shared.backings
    }

    /// Has the kernel let go of a backing id that a dead worker registered. Opens that use it go on.
    ///
    /// * [Forget](Backings::forget) it first. Needs CAP_SYS_ADMIN, as registering does.
    /// * Source: linux/fuse.h, `FUSE_DEV_IOC_BACKING_CLOSE`.
    pub fn close_backing(&self, id: u32) -> Result<()> {
        // SAFETY: the descriptor is open and the kernel reads the four bytes of `id`.
        match unsafe { libc::ioctl(self.device.as_raw_fd(), BACKING_CLOSE, &raw const id) } {
            -1 => Err(Error::disk(format!("close backing file {id}"), &io::Error::last_os_error())),
            _ => Ok(()),
        }
    }

    /// Whether the keeper is gone: nobody will start a successor, and the mount ends with this process.
    pub fn orphaned(&self) -> bool {
        // SAFETY: getppid(2) cannot fail and touches no memory.
        unsafe { libc::getppid() != self.keeper_pid() }
    }

    /// Says that the mount answers. Idempotent. From now on the exit codes of
    /// [`CANNOT_START`](super::exit::CANNOT_START) no longer end the mount.
    pub fn ready(&self) {
        let generation = self.generation();
        let before = self.shared.ready_generation.swap(generation, SeqCst);
        if let (Some(pipe), 0) = (&self.ready, before) {
            write_ignoring_errors(pipe, b"R");
        }
    }

    /// Says why this worker cannot start; the keeper shows it. The caller exits with a code of `CANNOT_START` after it.
    pub fn failed(&self, error: &Error) {
        self.shared.message.set(error.message().as_bytes());
    }

    /// Asks the keeper to end the drive, as `fourwheel unmount` does: it takes the mount out of the tree, which writes out
    /// pages changed through mmap(2), and then sends SIGTERM here. An orphan sends it to itself.
    pub fn ask_to_stop(&self) -> Result<()> {
        // SAFETY: getpid(2) and kill(2) touch no memory.
        let result = unsafe {
            let pid = if self.orphaned() { libc::getpid() } else { self.keeper_pid() };
            libc::kill(pid, libc::SIGTERM)
        };
        if result == 0 { Ok(()) } else { Err(Error::disk("ask the keeper to stop", &io::Error::last_os_error())) }
    }

    /// Raises the kernel's read-ahead where that is allowed (root); otherwise nothing happens.
    pub(crate) fn raise_read_ahead(&self) {
        if mount::is_root()
            && let Err(error) = mount::raise_read_ahead(self.minor())
        {
            tracing::debug!("{error}");
        }
    }
}

/// Takes an inherited descriptor and makes it close-on-exec.
fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_SETFD touches no memory; it fails where nothing is open under the number.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(Error::new(Kind::Config, format!("{ENV} names descriptor {fd}, which is not open")));
    }
    // SAFETY: it is open, and the keeper passed it to nobody but us; `from_env` is called once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_all(file: OwnedFd) -> Result<Vec<u8>> {
    let file = File::from(file);
    let len = file.metadata().context("read the kernel's INIT request")?.len();
    // Positioned: the descriptor's offset is shared with the keeper and all workers before.
    let mut data = vec![0; len.min(1 << 16) as usize];
    file.read_exact_at(&mut data, 0).context("read the kernel's INIT request")?;
    Ok(data)
}

fn write_ignoring_errors(pipe: &OwnedFd, data: &[u8]) {
    if let Ok(copy) = pipe.try_clone() {
        // Nobody waits any more: nothing is lost.
        let _ = File::from(copy).write_all(data);
    }
}
