//! What the cache takes of the disk, as arithmetic, and a total on disk that is never too low.
//!
//! A file's charge is a pure function of its size and of the pieces that are present, each rounded up to whole file-system
//! blocks; it does not ask `st_blocks`, which some file systems (ZFS) bring up to date seconds later. So charging and
//! releasing always cancel out, whatever happens in between. It is at least what `st_blocks` counts, but for extent tree
//! blocks, which the margin of [`Space::max`] covers.
//!
//! The next process must keep the bound from its first write on, before it has looked at every file. So the total is kept
//! in a small file, rounded up by a step, and raised there, synced, *before* the cache grows past it. A scan brings it
//! down to the truth later.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Context, Result};
use crate::space::{Reservation, Space};
use crate::sys::{Disk, Open, locked};

const MAGIC: [u8; 8] = *b"4wTOTAL1";
/// Growth that one sync of the total file allows for, at most: about a second of writing on a fast disk.
const STEP_MAX: u64 = 64 << 20;
const STEP_MIN: u64 = 1 << 20;

pub(super) struct Ledger {
    disk: Arc<dyn Disk>,
    space: Arc<Space>,
    path: PathBuf,
    /// Bytes that the smallest piece of a file takes: the file system's block.
    unit: u64,
    totals: Mutex<Totals>,
}

struct Totals {
    /// What the cache is charged now.
    charged: u64,
    /// What the file says; at least `charged`.
    saved: u64,
}

/// Bytes charged, with the promise that covers them.
pub(super) struct Charge<'a> {
    ledger: &'a Ledger,
    reservation: Reservation,
}

impl Ledger {
    /// Reads the saved total of the cache in `dir`; `count` finds it where there is none, or one that does not parse.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        space: Arc<Space>,
        count: impl FnOnce() -> Result<u64>,
    ) -> Result<Arc<Ledger>> {
        let path = dir.join("total");
        let saved = match load(&*disk, &path) {
            Some(saved) => saved,
            None => count()?,
        };
        save(&*disk, &path, saved)?;
        // A file of 20 bytes takes one block of the file system, and so tells its size; 0 where it lies in the inode.
        let unit = disk.stat(&path).context("look at the total of the cache")?.allocated;
        let unit = unit.clamp(4 << 10, 64 << 10).next_power_of_two();
        space.occupied(saved);
        Ok(Arc::new(Ledger { disk, space, path, unit, totals: Mutex::new(Totals { charged: saved, saved }) }))
    }

    /// What `bytes` of one piece, or of one small file, take.
    pub fn rounded(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.unit)
    }

    /// What the cache is charged.
    pub fn charged(&self) -> u64 {
        locked(&self.totals).charged
    }

    /// Promises room for `bytes`; evicts where it must, so the caller holds no lock.
    pub fn reserve(&self, bytes: u64) -> Result<Charge<'_>> {
        Ok(Charge { ledger: self, reservation: self.space.reserve(bytes)? })
    }

    /// Takes `bytes` off, because they are no longer on the disk.
    pub fn release(&self, bytes: u64) {
        self.forget(bytes);
        if bytes > 0 {
            self.space.released(bytes);
        }
    }

    /// Counts `bytes` that the disk holds already, found by a scan or taken by a directory.
    pub fn occupied(&self, bytes: u64) {
        if bytes > 0 {
            self.space.occupied(bytes);
            self.grow_anyway(bytes);
        }
    }

    /// Passes `bytes` to another room, which owes them to the [`Space`] from now on.
    pub fn hand_over(&self, bytes: u64) {
        self.forget(bytes);
    }

    /// Takes a file over from another room that was charged `held` for it, and charges `bytes` instead.
    pub fn take_over(&self, held: u64, bytes: u64) {
        self.grow_anyway(bytes);
        if held > bytes {
            self.space.released(held - bytes);
        } else {
            self.space.occupied(bytes - held);
        }
    }

    /// Brings the saved total down to what is charged now: after a scan, and when the cache closes.
    pub fn settle(&self) -> Result<()> {
        let mut totals = locked(&self.totals);
        let saved = totals.charged;
        save(&*self.disk, &self.path, saved)?;
        totals.saved = saved;
        Ok(())
    }

    fn forget(&self, bytes: u64) {
        let mut totals = locked(&self.totals);
        debug_assert!(totals.charged >= bytes, "{bytes} bytes off {} charged", totals.charged);
        totals.charged = totals.charged.saturating_sub(bytes);
    }

    /// Charges `bytes` that are on the disk already. Where the total cannot be saved, the next process counts too little
    /// until its scan is done; refusing would not take the bytes away.
    fn grow_anyway(&self, bytes: u64) {
        if let Err(error) = self.grow(bytes) {
            tracing::warn!("{error}");
            locked(&self.totals).charged += bytes;
        }
    }

    /// Charges `bytes`; first raises the saved total where it would be too low. The one lock that is held over a sync:
    /// nothing may grow meanwhile, and it happens once a step.
    fn grow(&self, bytes: u64) -> Result<()> {
        let mut totals = locked(&self.totals);
        let charged = totals.charged + bytes;
        if charged > totals.saved {
            let max = self.space.max();
            let step = (max / 16).clamp(STEP_MIN, STEP_MAX);
            let saved = (charged + step).min(max).max(charged);
            save(&*self.disk, &self.path, saved)?;
            totals.saved = saved;
        }
        totals.charged = charged;
        Ok(())
    }
}

impl Charge<'_> {
    pub fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }

    /// Charges `bytes` of the promise and gives the rest back.
    pub fn commit(self, bytes: u64) -> Result<()> {
        debug_assert!(bytes <= self.bytes(), "{bytes} bytes charged of {} promised", self.bytes());
        self.ledger.grow(bytes)?;
        self.reservation.commit(bytes);
        Ok(())
    }
}

fn load(disk: &dyn Disk, path: &Path) -> Option<u64> {
    let mut bytes = [0; 20];
    let read = disk.open(path, Open::Existing).and_then(|file| file.read_at(&mut bytes, 0)).ok()?;
    let (body, sum) = bytes.split_at(16);
    let whole = read == bytes.len() && body[..8] == MAGIC && sum == crc32c::crc32c(body).to_le_bytes();
    whole.then(|| body[8..].iter().rev().fold(0, |total, byte| total << 8 | u64::from(*byte)))
}

/// Replaces the file so that a crash at any instant leaves the old total or the new one, whole and durable.
fn save(disk: &dyn Disk, path: &Path, total: u64) -> Result<()> {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&total.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let temp = path.with_extension("new");
    let write = || {
        let file = disk.open(&temp, Open::Create)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        disk.rename(&temp, path)?;
        path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
    };
    write().context("save the total of the cache")
}
