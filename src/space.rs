//! The bound on what a drive takes of the local disk, checked before each write.
//!
//! One [`Space`] a drive counts everything that the drive has on disk: cache, journal and database. Who is about to write
//! reserves first; who is refused writes nothing. There is no timer that tidies up afterwards, because a fast writer fills
//! a disk between two of its ticks.
//!
//! Two limits hold at once:
//! * **the bound**: counted bytes stay under `max_bytes`, less a margin (see [`Space::max`]);
//! * **the floor**: `min_free_bytes` of the file system stay free, whoever else fills it.
//!
//! When either is short, the registered [`Evict`] is asked to give clean blocks back, by the thread that wants to write,
//! one such thread at a time. Only when that frees nothing more is the answer [`Kind::NoSpace`].
//!
//! Locks: `evicting` is taken first and held while the evictor works; an evictor therefore never reserves. `books` is held
//! for arithmetic and one statvfs(2).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Disk, locked};

/// Bytes granted between two looks at the file system's free space. Between them another program can take us below the
/// floor by what it wrote meanwhile, and we by this much at most. statvfs(2) costs a microsecond, a write of this size
/// about a millisecond.
const PROBE_EVERY: u64 = 4 << 20;

/// How often one reservation goes to the evictor. Each round frees something, so this ends a fight with other writers
/// who take what was freed; the loser gets `NoSpace` and may wait.
const ROUNDS_MAX: u32 = 64;

/// How often a waiting writer looks again although nothing was released: another program may have freed the disk.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Gives clean bytes back.
pub trait Evict: Send + Sync {
    /// Frees at least `bytes` where it can, tells [`Space::released`] of each, and returns how many it freed; 0 when
    /// nothing can go. Called without a lock of the caller's; never reserves.
    fn evict(&self, bytes: u64) -> u64;
}

type Meter = Box<dyn Fn() -> u64 + Send + Sync>;

/// What one drive takes of the local disk, and may.
pub struct Space {
    disk: Arc<dyn Disk>,
    probe_path: PathBuf,
    max: u64,
    min_free: u64,
    books: Mutex<Books>,
    meters: RwLock<Vec<Meter>>,
    evictor: Mutex<Option<Weak<dyn Evict>>>,
    evicting: Mutex<()>,
    freed: Notify,
}

/// The counts. All in bytes.
#[derive(Default)]
struct Books {
    /// On disk, as far as those who wrote it told.
    used: u64,
    /// Promised, not yet committed.
    reserved: u64,
    /// What the file system still had free at the last look, less everything granted since.
    headroom: u64,
    /// Granted since the last look; `None` before the first.
    since_probe: Option<u64>,
}

/// How many bytes a wish lacks.
struct Short {
    bound: u64,
    floor: u64,
}

impl Space {
    /// Makes the books of one drive, with nothing counted yet.
    ///
    /// * `probe_path`: any existing path on the file system that the drive writes to.
    /// * `max_bytes`, `min_free_bytes`: the settings `cache.max_bytes` and `cache.min_free_bytes`.
    pub fn new(disk: Arc<dyn Disk>, probe_path: PathBuf, max_bytes: u64, min_free_bytes: u64) -> Arc<Space> {
        Arc::new(Space {
            disk,
            probe_path,
            max: max_bytes,
            min_free: min_free_bytes,
            books: Mutex::default(),
            meters: RwLock::default(),
            evictor: Mutex::new(None),
            evicting: Mutex::new(()),
            freed: Notify::new(),
        })
    }

    /// Says who can give clean bytes back. One a drive: the cache.
    pub fn set_evictor(&self, evictor: Weak<dyn Evict>) {
        *locked(&self.evictor) = Some(evictor);
    }

    /// Adds files that others govern (the database with its `-wal` and `-shm`).
    ///
    /// `meter` returns the bytes that they take now. It is asked at every reservation, so it must be cheap (an atomic, one
    /// stat), and it must not call into this `Space`.
    pub fn add_meter(&self, meter: Box<dyn Fn() -> u64 + Send + Sync>) {
        self.meters.write().unwrap_or_else(PoisonError::into_inner).push(meter);
    }

    /// Counts bytes that are on the disk already, without asking: what a restart finds, what a file system took more.
    ///
    /// It may lift the count above the bound; the next reservation then evicts first.
    pub fn occupied(&self, bytes: u64) {
        locked(&self.books).used += bytes;
    }

    /// Takes bytes off the count, because they are no longer on the disk, and wakes who waits for space.
    pub fn released(&self, bytes: u64) {
        let mut books = locked(&self.books);
        debug_assert!(books.used >= bytes, "{bytes} bytes released of {} counted", books.used);
        books.used = books.used.saturating_sub(bytes);
        drop(books);
        self.freed.notify_waiters();
    }

    /// Reserves `bytes` before they are written; evicts clean blocks where it must.
    ///
    /// * Reserve what the file system will count: whole file-system blocks, new files with their index.
    /// * Blocks while the evictor works (punching holes: milliseconds). Call it with no lock that the evictor needs.
    /// * `reserve(0)` brings the drive back under its limits.
    /// * [`Kind::NoSpace`]: the bound or the floor does not allow it, and nothing more can be evicted.
    ///   [`Kind::Disk`]: the file system did not say how much is free.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        let granted = || Reservation { space: self.clone(), bytes };
        if self.try_grant(bytes, 0)?.is_none() {
            return Ok(granted());
        }
        let _one_at_a_time = locked(&self.evicting);
        let mut evicted = 0;
        for _ in 0..ROUNDS_MAX {
            let Some(short) = self.try_grant(bytes, evicted)? else { return Ok(granted()) };
            if self.hopeless(bytes) {
                break;
            }
            let evictor = locked(&self.evictor).as_ref().and_then(Weak::upgrade);
            evicted = evictor.map_or(0, |evictor| evictor.evict(short.bound.max(short.floor)));
            if evicted == 0 {
                break;
            }
        }
        match self.try_grant(bytes, evicted)? {
            None => Ok(granted()),
            Some(short) => Err(self.refusal(bytes, &short)),
        }
    }

    /// Reserves `bytes`, waiting up to `deadline` for others to release some.
    ///
    /// * [`Kind::NoSpace`] when the deadline passed. Errors of [`Space::reserve`] otherwise.
    /// * Evicts on the calling task, as `reserve` does. Cancel-safe: a dropped wait holds nothing.
    pub async fn wait_for(self: &Arc<Self>, bytes: u64, deadline: Duration) -> Result<Reservation> {
        let wait = async {
            loop {
                // Registered before the attempt, so that a release between the two is not slept through.
                let mut freed = std::pin::pin!(self.freed.notified());
                freed.as_mut().enable();
                match self.reserve(bytes) {
                    Err(error) if error.kind == Kind::NoSpace && !self.hopeless(bytes) => {}
                    other => return other,
                }
                // Either outcome leads to the next attempt.
                let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(outcome) => outcome,
            Err(_) => self.reserve(bytes).map_err(|e| e.context(format_args!("waited {deadline:?} for space"))),
        }
    }

    /// Bytes counted now: committed, promised, and metered.
    pub fn used(&self) -> u64 {
        let metered = self.metered();
        let books = locked(&self.books);
        books.used + books.reserved + metered
    }

    /// The bound that counted bytes stay under: `max_bytes` less the margin.
    ///
    /// The margin (1/256 of `max_bytes`, 64 KiB to 64 MiB) is for what nobody counts one by one: directories outside the
    /// cache, extent tree blocks (one of 4 KiB for 340 extents on ext4), small state files.
    pub fn max(&self) -> u64 {
        self.max.saturating_sub((self.max / 256).clamp(64 << 10, 64 << 20))
    }

    /// Bytes that the bound leaves without evicting anything. The floor may allow less.
    pub fn available(&self) -> u64 {
        self.max().saturating_sub(self.used())
    }

    fn metered(&self) -> u64 {
        self.meters.read().unwrap_or_else(PoisonError::into_inner).iter().map(|meter| meter()).sum()
    }

    /// Whether no eviction and no release can ever make room for `bytes`.
    fn hopeless(&self, bytes: u64) -> bool {
        bytes > self.max()
    }

    /// Promises `bytes`, or says what is short. `evicted` bytes were just freed for it.
    ///
    /// Some file systems report freed space only seconds later (btrfs: with the next transaction); what was evicted
    /// counts as free at once, or one short reservation would empty the whole cache.
    fn try_grant(&self, bytes: u64, evicted: u64) -> Result<Option<Short>> {
        let metered = self.metered();
        let mut books = locked(&self.books);
        let credited = books.headroom.saturating_add(evicted);
        if evicted > 0 || books.since_probe.is_none_or(|granted| granted + bytes > PROBE_EVERY) {
            self.probe(&mut books)?;
        }
        let wanted = bytes.saturating_add(self.min_free);
        if books.headroom < wanted {
            self.probe(&mut books)?;
        }
        if evicted > 0 {
            books.headroom = books.headroom.max(credited);
        }
        let counted = books.used.saturating_add(books.reserved).saturating_add(metered).saturating_add(bytes);
        let bound = counted.saturating_sub(self.max());
        let floor = wanted.saturating_sub(books.headroom);
        if bound > 0 || floor > 0 {
            return Ok(Some(Short { bound, floor }));
        }
        books.reserved += bytes;
        books.headroom -= bytes;
        books.since_probe = books.since_probe.map(|granted| granted + bytes);
        Ok(None)
    }

    /// Asks the file system what is free. What is promised but perhaps not written yet does not count as free.
    fn probe(&self, books: &mut Books) -> Result<()> {
        let free = self.disk.free_bytes(&self.probe_path).context("ask the file system of the cache for free space")?;
        books.headroom = free.saturating_sub(books.reserved);
        books.since_probe = Some(0);
        Ok(())
    }

    fn refusal(&self, bytes: u64, short: &Short) -> Error {
        let why = match (short.bound, short.floor) {
            (0, floor) => format!("the disk would keep {floor} bytes less free than cache.min_free_bytes"),
            (bound, _) => format!("{bound} bytes over cache.max_bytes ({} counted of {})", self.used(), self.max),
        };
        Error::new(Kind::NoSpace, format!("reserve {bytes} bytes of local disk: {why}"))
    }
}

/// A promise of bytes. Dropped, it gives them back.
#[must_use]
pub struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Reservation {
    /// The bytes promised.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts `actual_bytes` as on the disk from now on; the rest of the promise, if any, is given back.
    ///
    /// More than promised is counted too: the bytes are there. Who commits calls [`Space::released`] one day.
    pub fn commit(mut self, actual_bytes: u64) {
        self.close(actual_bytes);
    }

    fn close(&mut self, actual_bytes: u64) {
        let mut books = locked(&self.space.books);
        books.used += actual_bytes;
        books.reserved -= std::mem::take(&mut self.bytes);
        drop(books);
        self.space.freed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.close(0);
        }
    }
}
