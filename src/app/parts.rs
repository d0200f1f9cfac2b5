//! Puts the parts of one drive together, in the order that recovery needs.

use super::pins::Pins;
use crate::cache::Cache;
use crate::drive::{self, Drive, DriveSettings, Recovered};
use crate::error::{Context, Result};
use crate::events::Wants;
use crate::fetch::Fetcher;
use crate::journal::Journal;
use crate::remote::{ChangeFeed, Remote};
use crate::space::Space;
use crate::store::Store;
use crate::sync::{Sync, SyncParts, SyncSettings, Touched};
use crate::sys::{Clock, Disk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a drive is made from, besides its settings.
pub struct Ground {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub remote: Arc<dyn Remote>,
    /// Opened by the caller: what is known of the remote is in it.
    pub store: Arc<Store>,
    /// Holds `drive.db` and `journal/`.
    pub state_dir: PathBuf,
    /// Holds `cache/`.
    pub cache_dir: PathBuf,
}

/// The bound on the local disk, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub max_bytes: u64,
    pub min_free_bytes: u64,
}

/// How the worker came to be.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The mount is new: the kernel holds nothing of an earlier worker.
    pub first: bool,
    /// The machine was restarted since the state was last used.
    pub power_lost: bool,
    pub uid: u32,
    pub gid: u32,
    /// How long a request may take.
    pub deadline: Duration,
    /// Whether the close of what was written waits for the remote.
    pub close_waits: bool,
}

/// A drive that runs.
pub struct Running {
    pub drive: Drive,
    pub sync: Sync,
    pub store: Arc<Store>,
    pub cache: Arc<Cache>,
    pub journal: Arc<Journal>,
    pub fetcher: Arc<Fetcher>,
    pub space: Arc<Space>,
    pub wants: Arc<Wants>,
    pub pins: Arc<Pins>,
    pub recovered: Recovered,
}

/// The name of the database in the state directory.
pub const DATABASE: &str = "drive.db";

/// Bytes that the database may take before the next reservation looks at it again: its log grows by a few pages with each
/// transaction, and each file that is made or fetched reserves.
const DATABASE_GROWTH: u64 = 1 << 20;

impl Running {
    /// Opens the state, recovers what a crash left, and starts the synchronisation on the current runtime.
    ///
    /// `listen` is called once, before anything runs, to name who is told of changes.
    pub fn start(
        ground: Ground,
        bound: Bound,
        start: Start,
        settings: SyncSettings,
        listen: impl FnOnce(Touched) -> Arc<dyn crate::store::Listener>,
    ) -> Result<Running> {
        let Ground { disk, clock, remote, store, state_dir, cache_dir } = ground;
        disk.make_dirs(&state_dir).context(format!("make {}", state_dir.display()))?;
        disk.make_dirs(&cache_dir).context(format!("make {}", cache_dir.display()))?;
        let space = Space::new(disk.clone(), cache_dir.clone(), bound.max_bytes, bound.min_free_bytes);
        let metered = store.clone();
        space.add_meter(Box::new(move || metered.disk_bytes() + DATABASE_GROWTH));
        let cache = Cache::open(disk.clone(), cache_dir.join("cache"), space.clone())?;
        let journal_dir = state_dir.join("journal");
        let journal = Arc::new(Journal::open(disk.clone(), clock.clone(), &journal_dir, space.clone())?);
        let recovered = drive::recover(&store, &journal, disk.as_ref(), start.power_lost, clock.wall_ns())?;
        let fetcher = Fetcher::new(remote.clone());
        let (wants, inbox) = Wants::channel();
        let wants = Arc::new(wants);
        let parts = drive::Parts {
            store: store.clone(),
            cache: cache.clone(),
            journal: journal.clone(),
            fetcher: fetcher.clone(),
            space: space.clone(),
            clock: clock.clone(),
            wants: wants.clone(),
            settings: DriveSettings {
                uid: start.uid,
                gid: start.gid,
                read_only: settings.read_only,
                refresh: settings.refresh,
                feed: remote.capabilities().changes == ChangeFeed::Cursor,
                xattr_bytes_max: Some(remote.capabilities().meta.xattr_bytes_max).filter(|max| *max > 0),
                close_waits: start.close_waits,
                space_wait: start.deadline.mul_f32(0.9),
            },
        };
        let drive = Drive::new(parts, start.first)?;
        let pins = Pins::start(store.clone(), cache.clone(), fetcher.clone(), wants.clone())?;
        let sync_parts = SyncParts {
            store: store.clone(),
            journal: journal.clone(),
            cache: cache.clone(),
            fetcher: fetcher.clone(),
            remote,
            clock,
            wants: wants.clone(),
        };
        let sync = Sync::start(sync_parts, settings, inbox, listen);
        Ok(Running { drive, sync, store, cache, journal, fetcher, space, wants, pins, recovered })
    }
}

/// Whether the machine was restarted since `state_dir` was last used: the kernel's boot id is kept beside the state.
/// Notes this boot for the next time.
pub fn power_lost(disk: &dyn Disk, state_dir: &Path) -> Result<bool> {
    let now = boot_id();
    let path = state_dir.join("boot");
    let doing = "read the boot id of the last use";
    let last = match disk.open(&path, crate::sys::Open::Existing) {
        Ok(file) => {
            let mut bytes = vec![0; 64];
            let read = file.read_at(&mut bytes, 0).context(doing)?;
            bytes.truncate(read);
            Some(bytes)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(crate::error::Error::disk(doing, &e)),
    };
    let same = last.as_deref() == Some(now.as_bytes());
    if !same {
        let file = disk.open(&path, crate::sys::Open::Create).context("note the boot id")?;
        file.set_len(0).context("note the boot id")?;
        file.write_at(now.as_bytes(), 0).context("note the boot id")?;
        file.sync().context("note the boot id")?;
    }
    Ok(last.is_some() && !same)
}

#[allow(clippy::disallowed_methods, reason = "procfs is no disk")]
fn boot_id() -> String {
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}
