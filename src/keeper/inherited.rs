//! The worker's side of what the keeper hands over.

use super::shared::SharedPage;
use super::{failed, inherit};
use crate::error::{Error, Kind, Result};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const FUSE_FD: &str = "FOURWHEEL_FUSE_FD";
pub(super) const INIT_FD: &str = "FOURWHEEL_INIT_FD";
pub(super) const PAGE_FD: &str = "FOURWHEEL_PAGE_FD";
pub(super) const READY_FD: &str = "FOURWHEEL_READY_FD";
pub(super) const FIRST: &str = "FOURWHEEL_FIRST";
pub(super) const SAFE: &str = "FOURWHEEL_SAFE";

/// What a worker got from its keeper.
pub struct Inherited {
    /// The kernel's descriptor.
    pub fuse: OwnedFd,
    /// The bytes of the kernel's INIT request.
    pub init: Vec<u8>,
    /// Whether no worker answered the kernel before.
    pub first: bool,
    /// Whether workers died too often: nothing is to be sent or fetched.
    pub safe_mode: bool,
    page: SharedPage,
    ready: Option<OwnedFd>,
}

impl Inherited {
    /// Reads the environment; `Config` where this process was not started by a keeper.
    pub fn from_env() -> Result<Inherited> {
        let missing = || Error::new(Kind::Config, "a worker is started by \"fourwheel mount\" only");
        let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<i32>().ok());
        let descriptor = |key: &str| number(key).and_then(inherit);
        let fuse = descriptor(FUSE_FD).ok_or_else(missing)?;
        let init = read_all(&descriptor(INIT_FD).ok_or_else(missing)?)?;
        let page = SharedPage::map(descriptor(PAGE_FD).ok_or_else(missing)?)?;
        let ready = descriptor(READY_FD);
        Ok(Inherited { fuse, init, first: number(FIRST) == Some(1), safe_mode: number(SAFE) == Some(1), page, ready })
    }

    /// Says that the mount answers now.
    pub fn set_ready(&mut self) {
        self.page.set_ready();
        self.tell("ok\n");
    }

    /// Says why it never will.
    pub fn refuse(&mut self, why: &str) {
        self.tell(&format!("{}\n", why.replace('\n', " ")));
    }

    fn tell(&mut self, line: &str) {
        if let Some(fd) = self.ready.take() {
            // Nobody may be waiting any more.
            let _ = std::fs::File::from(fd).write_all(line.as_bytes());
        }
    }

    /// Whether the keeper still lives; without it nobody would unmount.
    pub fn has_keeper(&self) -> bool {
        // SAFETY: getppid(2) cannot fail.
        unsafe { libc::getppid() == self.page.keeper() }
    }

    /// The keeper's process id: who is to be asked to unmount.
    pub fn keeper(&self) -> i32 {
        self.page.keeper()
    }
}

/// Reads a memory file from its start; its position is shared with other workers and stays.
fn read_all(file: &OwnedFd) -> Result<Vec<u8>> {
    let mut bytes = vec![0u8; 1 << 17];
    // SAFETY: the buffer has the length that is given.
    let n = unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n <= 0 {
        return Err(failed("read the kernel's first request"));
    }
    bytes.truncate(n as usize);
    Ok(bytes)
}
