//! A whole drive in a test's process, over an account in memory, and what a test asks of it.

use crate::flaky::{Fault, Flaky};
use fourwheel::app::{Bound, Ground, Running, Start};
use fourwheel::drive::{Access, Caller};
use fourwheel::error::{Error, Kind, Retry};
use fourwheel::model::{FileKind, Ino};
use fourwheel::remote::memory::{Memory, everything, nothing};
use fourwheel::remote::{Call, Capabilities, Remote};
use fourwheel::store::Remembered;
use fourwheel::sync::SyncSettings;
use fourwheel::sys::{RealClock, RealDisk};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

pub struct Quiet;
impl fourwheel::store::Listener for Quiet {
    fn notice(&self, _: &[fourwheel::store::Event]) {}
}

/// The account behind a line that loses calls and answers, or brings them late, until it is mended.
pub fn lossy(memory: &Arc<Memory>, seed: u64, broken: Arc<AtomicBool>) -> Arc<dyn Remote> {
    let rng = Mutex::new(Rng(seed | 1));
    Flaky::new(memory.clone(), move |call, _| {
        let error = |kind| Error::new(kind, "the line is bad");
        let roll = rng.lock().unwrap().next(100);
        match roll {
            _ if !broken.load(Ordering::Relaxed) || call == Call::Changes => Fault::None,
            0..8 => Fault::Before(error(Kind::Offline)),
            8..24 => Fault::After(error(Kind::Unavailable)),
            24..26 => Fault::Before(error(Kind::Throttled)),
            40..60 => Fault::Late(Duration::from_millis(roll / 2)),
            26..32 if call == Call::Read => Fault::Break(0, error(Kind::Unavailable)),
            _ => Fault::None,
        }
    })
}

pub fn start(dir: &Path, remote: &Arc<dyn Remote>, first: bool) -> Running {
    let remote = remote.clone();
    let ground = Ground {
        disk: Arc::new(RealDisk),
        clock: Arc::new(RealClock),
        remote,
        store: {
            std::fs::create_dir_all(dir.join("state")).unwrap();
            Arc::new(fourwheel::store::Store::open(&dir.join("state/drive.db")).unwrap())
        },
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
    };
    let bound = Bound { max_bytes: 1 << 30, min_free_bytes: 0 };
    let start =
        Start { first, power_lost: false, uid: 0, gid: 0, deadline: Duration::from_secs(5), close_waits: false };
    let settings = SyncSettings {
        write_back: Duration::from_millis(5),
        poll: Duration::from_millis(20),
        refresh: Duration::from_millis(20),
        uploads: 4,
        read_only: false,
        local_only: vec![],
        host: "box".into(),
        safe_mode: false,
    };
    Running::start(ground, bound, start, settings, |touched| {
        Arc::new(fourwheel::fs::Both(Arc::new(Quiet), Arc::new(touched)))
    })
    .unwrap()
}

pub fn caller(n: &mut u64) -> Caller {
    *n += 2;
    Caller { uid: 0, gid: 0, request: Remembered { request: *n, repeated: false } }
}

/// All files of the mount, by path, read through the drive.
pub async fn tree(running: &Running) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut next = vec![(Ino::ROOT, String::new())];
    while let Some((ino, path)) = next.pop() {
        let mut entries = running.drive.readdir(ino, 0).get().await;
        for _ in 0..20 {
            // A directory that was never listed, over a bad line.
            if !matches!(&entries, Err(e) if e.kind.retry() == Retry::Later) {
                break;
            }
            entries = running.drive.readdir(ino, 0).get().await;
        }
        for e in entries.unwrap() {
            let path = format!("{path}/{}", e.name);
            match e.kind {
                FileKind::Directory => next.push((e.ino, path)),
                _ => {
                    // What the other takes away between the listing and the open is seen when the tree is read again.
                    let access = Access { write: false, truncate: false };
                    let Ok(opened) = running.drive.open(e.ino, access).get().await else { continue };
                    let bytes = running.drive.read(e.ino, opened.fh, 0, 1 << 20).get().await;
                    running.drive.release(e.ino, opened.fh);
                    let Ok(bytes) = bytes else { continue };
                    found.insert(path[1..].to_owned(), bytes.to_vec());
                }
            }
        }
    }
    found
}

/// All files of the account.
pub fn files(memory: &Memory) -> BTreeMap<String, Vec<u8>> {
    memory.files().into_iter().map(|(path, bytes)| (path, bytes.to_vec())).collect()
}

pub async fn quiet(running: &Running) {
    for _ in 0..2000 {
        running.sync.hurry();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let report = running.sync.report().unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        if report.pending_files == 0 {
            return;
        }
    }
    panic!("never quiet: {:?} {:?}", running.sync.report(), running.store.read(|rows| rows.pending(0, 10)));
}

pub fn new_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap()
}

/// What is between the drive and the account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Good,
    Lossy,
}

/// Shows what the drive does in a failing world: `TRACE=1 SEED=… SEEDS=1`.
pub fn trace() {
    if std::env::var_os("TRACE").is_some() {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
        // Set by the first test of this process.
        let _ = log.try_init();
    }
}

/// Runs `world` for each seed with a remote of these capabilities: `SEEDS` of them (`usual` if it is not set), from `SEED` on.
pub fn worlds(usual: u64, capabilities: &dyn Fn() -> Capabilities, world: &dyn Fn(u64, Capabilities)) {
    trace();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from = number("SEED").unwrap_or(1);
    (from..from + number("SEEDS").unwrap_or(usual)).for_each(|seed| world(seed, capabilities()));
}

/// A remote that can do much and has no ids.
pub fn capable() -> Capabilities {
    Capabilities { stable_ids: false, session_from_bytes: u64::MAX, ..everything() }
}

/// One with ids, and uploads in parts.
pub fn with_ids_and_sessions() -> Capabilities {
    Capabilities { session_from_bytes: 1000, ..everything() }
}

/// One that can do little.
pub fn poor() -> Capabilities {
    Capabilities { case_sensitive: true, ..nothing() }
}
