//! One page of memory that the keeper and its workers share.

use super::failed;
use crate::error::Result;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// What stands in the page.
#[repr(C)]
struct Words {
    /// 1 once a worker has answered the kernel.
    ready: AtomicU32,
    /// The process id of the running worker.
    worker: AtomicI32,
    /// The process id of the keeper.
    keeper: AtomicI32,
}

const BYTES: usize = 4096;

/// The mapped page.
pub(super) struct SharedPage {
    fd: OwnedFd,
    words: *const Words,
}

// SAFETY: the page holds atomics only, and stays mapped as long as this value lives.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    pub(super) fn create() -> Result<SharedPage> {
        // SAFETY: the name ends in NUL.
        let raw = unsafe { libc::memfd_create(c"fourwheel-page".as_ptr(), 0) };
        // SAFETY: ftruncate(2) of a descriptor that was just opened.
        if raw < 0 || unsafe { libc::ftruncate(raw, BYTES as i64) } != 0 {
            return Err(failed("make the shared page"));
        }
        // SAFETY: memfd_create(2) just returned it.
        let page = SharedPage::map(unsafe { OwnedFd::from_raw_fd(raw) })?;
        // SAFETY: getpid(2) cannot fail.
        page.words().keeper.store(unsafe { libc::getpid() }, Ordering::SeqCst);
        Ok(page)
    }

    pub(super) fn map(fd: OwnedFd) -> Result<SharedPage> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of a file of this size.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(failed("map the shared page"));
        }
        Ok(SharedPage { fd, words: at.cast_const().cast() })
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping is page-aligned, larger than `Words`, and lives as long as `self`.
        unsafe { &*self.words }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn was_ready(&self) -> bool {
        self.words().ready.load(Ordering::SeqCst) != 0
    }

    pub(super) fn set_ready(&self) {
        self.words().ready.store(1, Ordering::SeqCst);
    }

    pub(super) fn set_worker(&self, worker: libc::pid_t) {
        self.words().worker.store(worker, Ordering::SeqCst);
    }

    pub(super) fn keeper(&self) -> libc::pid_t {
        self.words().keeper.load(Ordering::SeqCst)
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and not used after.
        unsafe { libc::munmap(self.words.cast_mut().cast(), BYTES) };
    }
}
