//! Missing bytes, from the remote to the disk and to who waits for them. Used by reads (`drive`) and by fills and pins (`sync`).
//!
//! One flight per piece: a second reader waits for the first. A flight is one ranged read of the remote; each piece of it is
//! handed on as soon as it is whole, so a reader never waits for a whole run. Pieces that arrived last are also kept in a
//! bounded memory, so that a full cache disk slows nobody down.

mod flight;
mod pattern;

pub use pattern::{Ahead, Pattern, Seen};

use crate::cache::{CacheFile, Stored};
use crate::error::{Error, Kind, Result};
use crate::journal::Staged;
use crate::model::{Ino, Version};
use crate::remote::{Place, Remote};
use bytes::Bytes;
use flight::{Flight, Progress};
use lru::LruCache;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// The unit of a fetch, as of the cache's checksums.
pub const PIECE: u64 = 64 * 1024;

/// Longest single ranged read. At 25 MB/s a connection needs 320 ms for it, so one round trip of 50 ms costs an eighth.
pub const RUN_BYTES_MAX: u64 = 8 << 20;

/// What a fill asks for at once: eight runs, and what is fetched in vain at most once there is no more room.
const FILL_BYTES: u64 = 8 * RUN_BYTES_MAX;

/// Pieces kept in memory: 64 MiB.
const RECENT_PIECES: usize = 1024;

/// Flights at once; each is a connection.
const FLIGHTS_MAX: usize = 24;

/// Flights at once that nobody waits for yet. Fewer than the account's requests at once, so that a read of something else finds a
/// free connection; at 25 MB/s each they fill a link of 250 MB/s.
const AHEAD_MAX: usize = 14;

/// Where fetched bytes are kept.
#[derive(Clone)]
pub enum Sink {
    Cache(Arc<CacheFile>),
    Journal(Arc<Staged>),
}

/// One version of one file on the remote.
#[derive(Clone)]
pub struct Target {
    pub ino: Ino,
    pub version: Version,
    /// Bytes of that version.
    pub size: u64,
    pub place: Place,
    pub sink: Sink,
}

type Key = (Ino, u64, u64);

/// When a flight's bytes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Somebody waits.
    Now,
    Later,
}

/// The fetcher of one drive.
pub struct Fetcher {
    remote: Arc<dyn Remote>,
    recent: Mutex<LruCache<Key, Bytes>>,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
    gate: Semaphore,
    ahead: Semaphore,
    /// Whether the cache kept the last piece that it was given.
    keeps: AtomicBool,
    /// Reads come from the kernel's threads too, which have no runtime around them.
    runtime: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tag(version: &Version) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

impl Target {
    fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        match &self.sink {
            Sink::Cache(file) => file.missing(range),
            Sink::Journal(staged) => staged
                .missing(range)
                .into_iter()
                .map(|r| r.start / PIECE * PIECE..(r.end.div_ceil(PIECE) * PIECE).min(self.size))
                .filter(|r| r.start < r.end)
                .collect(),
        }
    }

    /// What of `range` is not in the sink, to the byte.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        match &self.sink {
            Sink::Cache(file) => file.missing(range),
            Sink::Journal(staged) => staged.missing(range),
        }
    }

    /// Whether something of `range` is not in the sink.
    pub fn is_missing(&self, range: &Range<u64>) -> bool {
        !self.gaps(range.clone()).is_empty()
    }

    /// Whether the sink took the piece. A full disk keeps nothing; the bytes are still handed to who waits.
    fn keep(&self, offset: u64, piece: &Bytes) -> Result<bool> {
        match &self.sink {
            Sink::Cache(file) => file.store(offset, piece).map(|stored| stored != Stored::NoSpace),
            Sink::Journal(staged) => match staged.fill(offset, piece) {
                Err(error) if error.kind == Kind::NoSpace => Ok(false),
                filled => filled.map(|()| true),
            },
        }
    }
}

impl Fetcher {
    /// A fetcher over `remote`, whose flights run on the current runtime.
    pub fn new(remote: Arc<dyn Remote>) -> Arc<Fetcher> {
        let pieces = std::num::NonZeroUsize::new(RECENT_PIECES).unwrap_or(std::num::NonZeroUsize::MIN);
        Arc::new(Fetcher {
            remote,
            recent: Mutex::new(LruCache::new(pieces)),
            flights: Mutex::new(HashMap::new()),
            gate: Semaphore::new(FLIGHTS_MAX),
            ahead: Semaphore::new(AHEAD_MAX),
            keeps: AtomicBool::new(true),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Reads up to `len` bytes at `offset` of a version, from memory, the cache or the remote; short at its end.
    /// The caller sets the deadline; a flight that was begun goes on without it.
    pub async fn read(self: &Arc<Self>, target: &Target, offset: u64, len: usize) -> Result<Bytes> {
        let end = target.size.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Bytes::new());
        }
        let mut out = Vec::with_capacity((end - offset) as usize);
        let tag = tag(&target.version);
        let mut flights = self.begin(target, offset..end, Need::Now);
        let mut tries = 0;
        let mut at = offset;
        while at < end {
            let piece = at / PIECE;
            let upto = ((piece + 1) * PIECE).min(end);
            if let Some(bytes) = lock(&self.recent).get(&(target.ino, tag, piece)) {
                let from = (at - piece * PIECE) as usize;
                out.extend_from_slice(&bytes[from..from + (upto - at) as usize]);
                at = upto;
                continue;
            }
            if let Sink::Cache(file) = &target.sink {
                let mut buf = vec![0; (upto - at) as usize];
                if file.read_into(at, &mut buf)? {
                    out.extend_from_slice(&buf);
                    at = upto;
                    continue;
                }
            }
            match flights.remove(&piece) {
                Some(flight) => flight.wait(piece).await?,
                // Evicted, or dropped as bad, between its arrival and now.
                None if tries < 3 => {
                    tries += 1;
                    flights = self.begin(target, at..end, Need::Now);
                }
                None => {
                    return Err(Error::new(
                        Kind::Unavailable,
                        format!("inode {}: bytes vanish from the cache", target.ino),
                    ));
                }
            }
        }
        Ok(Bytes::from(out))
    }

    /// Brings `range` into the target's sink, as far as there is room. `Changed`: the remote has another version.
    pub async fn bring(self: &Arc<Self>, target: &Target, range: Range<u64>) -> Result<()> {
        self.bring_when(target, range, Need::Now).await
    }

    async fn bring_when(self: &Arc<Self>, target: &Target, range: Range<u64>, need: Need) -> Result<()> {
        for (piece, flight) in self.begin(target, range, need) {
            flight.wait(piece).await?;
        }
        Ok(())
    }

    /// Reads `range` of a file part of which its disk has no room for: `here` gives what is here of it, and the rest comes from the
    /// remote. Short where `here` is.
    pub async fn patched(
        self: &Arc<Self>,
        target: &Target,
        range: Range<u64>,
        here: impl Fn() -> Result<Vec<u8>>,
    ) -> Result<Bytes> {
        let mut tries = 0;
        loop {
            // Before what is here is read: what comes to the disk in between is read from the remote.
            let gaps = target.gaps(range.clone());
            let mut buf = here()?;
            if let Some(gap) = gaps.iter().find(|gap| gap.start < gap.end && gap.end > target.size) {
                let why = format!("inode {}: bytes {} to {} are in no version", target.ino, gap.start, gap.end);
                return Err(Error::new(Kind::Corrupt, why));
            }
            match self.patch(target, gaps, range.start, &mut buf).await {
                Ok(()) => return Ok(buf.into()),
                // It came to the disk meanwhile and is in no memory.
                Err(e) if e.kind == Kind::Unavailable && tries < 3 => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    async fn patch(self: &Arc<Self>, target: &Target, gaps: Vec<Range<u64>>, start: u64, buf: &mut [u8]) -> Result<()> {
        let end = start + buf.len() as u64;
        for gap in gaps {
            let mut at = gap.start.max(start);
            while at < gap.end.min(end).min(target.size) {
                let bytes = self.read(target, at, (gap.end.min(end) - at) as usize).await?;
                let place = (at - start) as usize;
                buf[place..place + bytes.len()].copy_from_slice(&bytes);
                at += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Fetches all that is missing of a target. Ends early, without an error, where there is no room for it.
    pub async fn bring_while_room(self: &Arc<Self>, target: &Target, need: Need) -> Result<()> {
        let mut at = 0;
        while at < target.size {
            let part = at..(at + FILL_BYTES).min(target.size);
            self.bring_when(target, part.clone(), need).await?;
            if target.is_missing(&part) {
                return Ok(());
            }
            at = part.end;
        }
        Ok(())
    }

    /// The same in the background. A failure is tried again by who needs the bytes.
    pub fn fill(self: &Arc<Self>, target: Target) {
        let fetcher = self.clone();
        self.runtime.spawn(async move {
            if let Err(e) = fetcher.bring_while_room(&target, Need::Later).await {
                tracing::warn!("fill: {e}");
            }
        });
    }

    /// Bytes that are worth fetching ahead of one reader: what the cache refuses is in memory only, and not for long.
    pub fn ahead_max(&self) -> u64 {
        if self.keeps.load(Ordering::Relaxed) { u64::MAX } else { RECENT_PIECES as u64 * PIECE / 4 }
    }

    /// Starts to fetch what is missing of `range`, in turn, and waits for nothing.
    pub fn ahead(self: &Arc<Self>, target: &Target, range: Range<u64>) {
        self.begin(target, range, Need::Later);
    }

    /// The flights that carry the missing pieces of `range`, started where there were none.
    fn begin(self: &Arc<Self>, target: &Target, range: Range<u64>, need: Need) -> HashMap<u64, Arc<Flight>> {
        let tag = tag(&target.version);
        let mut found = HashMap::new();
        let mut start = Vec::new();
        {
            let mut flights = lock(&self.flights);
            for gap in target.missing(range) {
                let mut run: Option<Range<u64>> = None;
                for piece in gap.start / PIECE..gap.end.div_ceil(PIECE) {
                    if let Some(flight) = flights.get(&(target.ino, tag, piece)) {
                        found.insert(piece, flight.clone());
                        start.extend(run.take());
                        continue;
                    }
                    match &mut run {
                        Some(run) if (run.end - run.start) * PIECE < RUN_BYTES_MAX => run.end = piece + 1,
                        _ => start.extend(run.replace(piece..piece + 1)),
                    }
                }
                start.extend(run);
            }
            for run in &start {
                let flight = Arc::new(Flight::new(run.clone()));
                for piece in run.clone() {
                    flights.insert((target.ino, tag, piece), flight.clone());
                    found.insert(piece, flight.clone());
                }
            }
        }
        for run in start {
            if let Some(flight) = found.get(&run.start) {
                self.runtime.spawn(self.clone().fly(target.clone(), tag, flight.clone(), need));
            }
        }
        found
    }

    async fn fly(self: Arc<Self>, target: Target, tag: u64, flight: Arc<Flight>, need: Need) {
        let end = self.carry(&target, tag, &flight, need).await;
        {
            let mut flights = lock(&self.flights);
            for piece in flight.pieces() {
                flights.remove(&(target.ino, tag, piece));
            }
        }
        flight.tell(match end {
            Ok(()) => Progress::Done,
            Err(e) => Progress::Failed(e.context(format!("read inode {} at {}", target.ino, target.place.path))),
        });
    }

    /// Keeps whole pieces of a flight, which begin at `at`, and hands them to who waits.
    fn arrived(&self, target: &Target, tag: u64, flight: &Flight, at: u64, run: &Bytes) -> Result<()> {
        match (&target.sink, target.keep(at, run)) {
            (Sink::Journal(_), Err(e)) => return Err(e),
            (Sink::Cache(_), Err(e)) => tracing::warn!("cache: {e}"),
            (_, Ok(kept)) => self.keeps.store(kept, Ordering::Relaxed),
        }
        let pieces = at / PIECE..(at + run.len() as u64).div_ceil(PIECE);
        let mut recent = lock(&self.recent);
        for index in pieces.clone() {
            let from = ((index - pieces.start) * PIECE) as usize;
            recent.put((target.ino, tag, index), run.slice(from..run.len().min(from + PIECE as usize)));
        }
        drop(recent);
        flight.tell(Progress::Arrived(pieces.end));
        Ok(())
    }

    async fn carry(&self, target: &Target, tag: u64, flight: &Flight, need: Need) -> Result<()> {
        use futures_util::StreamExt;
        let closed = |_| Error::new(Kind::Unavailable, "shutting down");
        let _turn = match need {
            Need::Now => None,
            Need::Later => Some(self.ahead.acquire().await.map_err(closed)?),
        };
        let _permit = self.gate.acquire().await.map_err(closed)?;
        let pieces = flight.pieces();
        let range = pieces.start * PIECE..(pieces.end * PIECE).min(target.size);
        let mut stream = self.remote.read(&target.place, &target.version, range.clone()).await?;
        let mut at = range.start;
        // The begin of a piece whose rest has not come yet. What comes whole is handed on as it came, several pieces at once.
        let mut begun = Vec::new();
        while let Some(chunk) = stream.next().await {
            let mut chunk: Bytes = chunk?;
            while !chunk.is_empty() {
                let left = range.end - at;
                if left == 0 {
                    return Err(Error::new(Kind::Corrupt, "the remote sent more than was asked for"));
                }
                let have = (begun.len() + chunk.len()) as u64;
                let whole = match begun.is_empty() {
                    true if have >= left => left,
                    true => have / PIECE * PIECE,
                    false => PIECE.min(left),
                };
                if whole == 0 || have < whole {
                    // All that it can come to, at once: grown step by step it would be copied over and over.
                    begun.reserve_exact(PIECE.min(left) as usize - begun.len());
                    begun.extend_from_slice(&chunk);
                    break;
                }
                let part = chunk.split_to(whole as usize - begun.len());
                let run = if begun.is_empty() {
                    part
                } else {
                    begun.extend_from_slice(&part);
                    Bytes::from(std::mem::take(&mut begun))
                };
                self.arrived(target, tag, flight, at, &run)?;
                at += run.len() as u64;
            }
        }
        if at != range.end {
            return Err(Error::new(
                Kind::Corrupt,
                format!("the remote ended after {} of {} bytes", at - range.start, range.end - range.start),
            ));
        }
        Ok(())
    }
}
