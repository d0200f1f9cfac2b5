//! The page that the keeper shares with its workers: who runs, what died and why. A memfd, so it ends with the mount.
//!
//! Layout (native byte order; a worker of a newer version reads the page of an older keeper, so fields are only ever added at
//! the end and the version moves only when that is not enough):
//! `magic u32, version u32, keeper_pid i32, worker_pid i32, minor u32, safe_mode u32, generation u64, ready_generation u64,
//! deaths u64, 16 x (wall_ns i64, cause i64), init_answer (len u32, 256 bytes), reason (len u32, 508 bytes), message (the same),
//! 1024 x (backing id u32, 4 unused, ino u64)`.

use super::backings::Backings;
use super::decide::Ended;
use crate::error::{Context, Error, Kind, Result};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

const MAGIC: u32 = u32::from_be_bytes(*b"4whl");
/// Of the page's layout.
const VERSION: u32 = 1;
/// Five pages, of which the first fields fill less than one.
const LEN: usize = 5 * 4096;
/// How many deaths the page lists; older ones are overwritten.
const LISTED: usize = 16;

/// A death of a worker, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Nanoseconds since 1970, UTC.
    pub wall_ns: i64,
    pub ended: Ended,
}

#[repr(C)]
struct DeathSlot {
    wall_ns: AtomicI64,
    /// A signal's number, or 1000 and the exit code.
    cause: AtomicI64,
}

/// Bytes of which the first `len` count. Written by one process while no other one writes; a reader that comes in between
/// sees a mixture, which for a text in `status` is bearable.
#[repr(C)]
pub struct Bytes<const N: usize> {
    len: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Bytes<N> {
    /// Stores as much of `data` as there is room for.
    pub fn set(&self, data: &[u8]) {
        let len = data.len().min(N);
        self.len.store(0, SeqCst);
        for (slot, byte) in self.bytes.iter().zip(data) {
            slot.store(*byte, SeqCst);
        }
        self.len.store(len as u32, SeqCst);
    }

    /// A copy in `buffer`; allocates nothing.
    pub fn copy<'a>(&self, buffer: &'a mut [u8; N]) -> &'a [u8] {
        let len = (self.len.load(SeqCst) as usize).min(N);
        for (to, from) in buffer.iter_mut().zip(&self.bytes) {
            *to = from.load(SeqCst);
        }
        &buffer[..len]
    }

    /// A copy as a text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.copy(&mut [0; N])).into_owned()
    }
}

/// What the page holds. Zeros are valid in every field.
#[repr(C)]
pub struct Page {
    magic: AtomicU32,
    version: AtomicU32,
    pub keeper_pid: AtomicI32,
    pub worker_pid: AtomicI32,
    /// The connection's number.
    pub minor: AtomicU32,
    /// Not zero: workers send nothing.
    pub safe_mode: AtomicU32,
    /// How many workers were started; the current one's number.
    pub generation: AtomicU64,
    /// The number of the last worker that said that it is ready; 0: none ever.
    pub ready_generation: AtomicU64,
    pub deaths: AtomicU64,
    listed: [DeathSlot; LISTED],
    /// The answer to INIT that the kernel accepted.
    pub init_answer: Bytes<256>,
    /// Why safe mode is on.
    pub reason: Bytes<508>,
    /// Why the current worker could not start.
    pub message: Bytes<508>,
    pub backings: Backings,
}

const _: () = assert!(size_of::<Page>() <= LEN);

impl Page {
    /// Adds a death to the list.
    pub fn record(&self, death: Death) {
        let number = self.deaths.load(SeqCst);
        let slot = &self.listed[number as usize % LISTED];
        slot.wall_ns.store(death.wall_ns, SeqCst);
        slot.cause.store(
            match death.ended {
                Ended::Signal(signal) => i64::from(signal),
                Ended::Code(code) => 1000 + i64::from(code),
            },
            SeqCst,
        );
        self.deaths.store(number + 1, SeqCst);
    }

    /// The last deaths, oldest first; at most 16.
    pub fn last_deaths(&self) -> Vec<Death> {
        let count = self.deaths.load(SeqCst);
        (count.saturating_sub(LISTED as u64)..count)
            .map(|number| {
                let slot = &self.listed[number as usize % LISTED];
                let cause = slot.cause.load(SeqCst);
                let ended = if cause < 1000 { Ended::Signal(cause as i32) } else { Ended::Code((cause - 1000) as i32) };
                Death { wall_ns: slot.wall_ns.load(SeqCst), ended }
            })
            .collect()
    }
}

/// The page, mapped into this process.
#[derive(Debug)]
pub struct Shared {
    file: OwnedFd,
    page: NonNull<Page>,
}

// SAFETY: all fields of the page are atomics, and the mapping lives as long as the value.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes an empty page.
    pub fn create() -> Result<Self> {
        let file = memfd(c"fourwheel-state").context("make the page shared with the worker")?;
        File::from(file.try_clone().context("make the page shared with the worker")?)
            .set_len(LEN as u64)
            .context("make the page shared with the worker")?;
        let shared = Shared::map(file)?;
        shared.magic.store(MAGIC, SeqCst);
        shared.version.store(VERSION, SeqCst);
        Ok(shared)
    }

    /// Maps the page that a keeper made. `Config`: it is not one, or of a version that this program does not know.
    pub fn open(file: OwnedFd) -> Result<Self> {
        let strange = |why: &str| Error::new(Kind::Config, format!("the page shared with the keeper {why}"));
        let len = File::from(file.try_clone().context("open the page shared with the keeper")?)
            .metadata()
            .context("open the page shared with the keeper")?
            .len();
        if len < LEN as u64 {
            return Err(strange("is too short"));
        }
        let shared = Shared::map(file)?;
        match (shared.magic.load(SeqCst), shared.version.load(SeqCst)) {
            (MAGIC, VERSION) => Ok(shared),
            (MAGIC, other) => Err(strange(&format!("has version {other}, known is {VERSION}: mount the drive anew"))),
            _ => Err(strange("is something else")),
        }
    }

    fn map(file: OwnedFd) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open file that is at least so long; nobody shrinks it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(at.cast()) {
            Some(page) if at != libc::MAP_FAILED => Ok(Shared { file, page }),
            _ => Err(Error::disk("map the page shared between keeper and worker", &io::Error::last_os_error())),
        }
    }
}

impl Deref for Shared {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the mapping is as large as a Page and aligned to memory pages, zeros are valid, and all fields are atomics.
        unsafe { self.page.as_ref() }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no reference outlives the value.
        unsafe { libc::munmap(self.page.as_ptr().cast(), LEN) };
    }
}

/// An anonymous file in memory, close-on-exec.
pub fn memfd(name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends in NUL; the descriptor, if there is one, is new and ours.
    unsafe {
        match libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_page() {
        let keeper = Shared::create().unwrap();
        let worker = Shared::open(keeper.as_fd().try_clone_to_owned().unwrap()).unwrap();
        keeper.generation.store(7, SeqCst);
        worker.message.set("no such account".as_bytes());
        assert_eq!(worker.generation.load(SeqCst), 7);
        assert_eq!(keeper.message.text(), "no such account");
        worker.message.set(&[b'x'; 1000]);
        assert_eq!(keeper.message.text().len(), 508);
    }

    #[test]
    fn only_the_last_deaths_are_listed_in_order() {
        let page = Shared::create().unwrap();
        for n in 0..20 {
            page.record(Death { wall_ns: n, ended: if n % 2 == 0 { Ended::Signal(9) } else { Ended::Code(1) } });
        }
        let listed = page.last_deaths();
        assert_eq!(listed.iter().map(|death| death.wall_ns).collect::<Vec<_>>(), (4..20).collect::<Vec<_>>());
        assert_eq!((listed[0].ended, listed[1].ended), (Ended::Signal(9), Ended::Code(1)));
    }

    #[test]
    fn a_strange_page_is_refused() {
        let file = memfd(c"x").unwrap();
        assert!(Shared::open(file.try_clone().unwrap()).unwrap_err().message().contains("too short"));
        File::from(file.try_clone().unwrap()).set_len(LEN as u64).unwrap();
        assert!(Shared::open(file.try_clone().unwrap()).unwrap_err().message().contains("something else"));
        let page = Shared::create().unwrap();
        page.version.store(99, SeqCst);
        let copy = page.as_fd().try_clone_to_owned().unwrap();
        assert!(Shared::open(copy).unwrap_err().message().contains("version 99"));
    }
}
