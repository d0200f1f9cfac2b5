//! A whole drive on a simulated machine: it starts, dies, loses power, and starts again on what is left.

use crate::clock::SimClock;
use crate::disk::{Platter, SimDisk};
use crate::life::{Database, Life, write_database};
use crate::line::{Line, Weather};
use crate::model::{Seen, Shown};
use crate::rig::{Quiet, Rng};
use fourwheel::app::{Bound, Ground, Running, Start};
use fourwheel::drive::{Access, Attr, Caller};
use fourwheel::error::{Error, Kind, Result, Retry};
use fourwheel::model::{FileKind, Ino, Name};
use fourwheel::remote::memory::Memory;
use fourwheel::store::{Remembered, Store};
use fourwheel::sync::SyncSettings;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a program tries again what only the remote can answer; virtual time.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take until all is saved; virtual time.
const QUIET_MAX: Duration = Duration::from_secs(3600);

pub struct Machine {
    home: tempfile::TempDir,
    platter: Platter,
    pub clock: Arc<SimClock>,
    pub memory: Arc<Memory>,
    pub weather: Arc<Weather>,
    pub life: Arc<Life>,
    pub running: Running,
    settings: SyncSettings,
    generation: u64,
    requests: u64,
    pub steps: u64,
    /// Whether somebody else writes to the account.
    pub shared: bool,
}

fn database(home: &tempfile::TempDir, generation: u64) -> PathBuf {
    let dir = home.path().join(generation.to_string());
    std::fs::create_dir_all(&dir).expect("a directory");
    dir.join("drive.db")
}

impl Machine {
    /// A fresh machine on this account.
    pub fn new(memory: Arc<Memory>, clock: Arc<SimClock>, weather: Arc<Weather>, settings: SyncSettings) -> Machine {
        let memory_disk = std::path::Path::new("/dev/shm");
        let place = if memory_disk.is_dir() { memory_disk.to_owned() } else { std::env::temp_dir() };
        let home = tempfile::Builder::new().prefix("fw-sim-").tempdir_in(place).expect("a directory");
        let platter = Platter::default();
        let path = database(&home, 0);
        let life = Arc::new(Life::new(path.clone()));
        let running = start(&path, &platter, &life, &clock, &memory, &weather, &settings, true, false);
        let (generation, requests, steps) = (0, 2, 0);
        let running = running.expect("a fresh drive starts");
        Machine {
            home,
            platter,
            clock,
            memory,
            weather,
            life,
            running,
            settings,
            generation,
            requests,
            steps,
            shared: false,
        }
    }

    /// The worker dies now, unless it did, and the next one starts on what it left.
    pub fn restart(&mut self, keeper_too: bool) {
        self.life.end();
        let database = self.life.database();
        self.start_on(&database, keeper_too, false);
    }

    /// The power goes, and what was not synced with it.
    pub fn cut_power(&mut self, rng: &mut Rng) {
        self.life.end();
        let database = self.platter.cut_power(rng);
        self.start_on(&database, true, true);
    }

    fn start_on(&mut self, files: &Database, first: bool, power_lost: bool) {
        self.running.sync.stop();
        self.steps += self.life.steps();
        self.generation += 1;
        let path = database(&self.home, self.generation);
        write_database(&path, files);
        self.life = Arc::new(Life::new(path.clone()));
        let (platter, clock, memory, weather) = (&self.platter, &self.clock, &self.memory, &self.weather);
        let running = start(&path, platter, &self.life, clock, memory, weather, &self.settings, first, power_lost);
        self.running = running.expect("a drive starts on what a crash left");
    }

    /// Changes one byte on the disk in a file whose path holds `part`.
    pub fn flip(&self, part: &str, rng: &mut Rng) -> bool {
        self.platter.flip(part, rng)
    }

    pub fn files(&self) -> Vec<(String, u64)> {
        self.platter.list()
    }

    pub fn caller(&mut self) -> Caller {
        self.requests += 2;
        Caller { uid: 0, gid: 0, request: Remembered { request: self.requests, repeated: false } }
    }

    /// Runs `act` until it succeeds, fails for good, or the worker is dead (`None`).
    pub async fn patiently<T>(&self, mut act: impl AsyncFnMut(&Running) -> Result<T>) -> Option<Result<T>> {
        let begun = tokio::time::Instant::now();
        loop {
            let done = tokio::select! {
                biased;
                () = self.life.ended() => return None,
                done = act(&self.running) => done,
            };
            match done {
                _ if self.life.is_over() => return None,
                Err(e) if e.kind.retry() == Retry::Later && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return Some(done),
            }
        }
    }

    /// Waits until nothing is to be saved. `None`: the worker died.
    pub async fn quiet(&self) -> Option<()> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < QUIET_MAX {
            self.running.sync.hurry();
            tokio::select! {
                biased;
                () = self.life.ended() => return None,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            let report = self.running.sync.report();
            if self.life.is_over() {
                return None;
            }
            let report = report.expect("a report");
            if report.pending_files == 0 && report.failed.is_empty() {
                return Some(());
            }
        }
        let pending = self.running.store.read(|rows| rows.pending(0, 10));
        panic!("never quiet: {:?} {pending:?}", self.running.sync.report());
    }

    /// The tree as programs see it. `None`: the worker died.
    pub async fn seen(&self) -> Option<Seen> {
        let mut seen = Seen::new();
        let mut next = vec![(Ino::ROOT, String::new())];
        while let Some((ino, path)) = next.pop() {
            let entries = self.patiently(async |r| r.drive.readdir(ino, 0).get().await).await?;
            let Ok(entries) = entries else { continue };
            for entry in entries {
                let path = if path.is_empty() { entry.name.to_string() } else { format!("{path}/{}", entry.name) };
                let shown = match entry.kind {
                    FileKind::Directory => {
                        next.push((entry.ino, path.clone()));
                        Shown::Directory
                    }
                    FileKind::Symlink => {
                        let target = self.patiently(async |r| r.drive.readlink(entry.ino).get().await).await?;
                        let Ok(target) = target else { continue };
                        Shown::Link(String::from_utf8_lossy(&target).into_owned())
                    }
                    _ => match self.read(entry.ino).await? {
                        Ok(content) => Shown::File(content),
                        // Somebody else took it away between the listing and the read.
                        Err(e) if self.shared && matches!(e.kind, Kind::NotFound | Kind::Stale | Kind::Changed) => {
                            continue;
                        }
                        Err(e) => panic!("read {path}: {e}"),
                    },
                };
                seen.insert(path, shown);
            }
        }
        Some(seen)
    }

    /// All bytes of a file.
    pub async fn read(&self, ino: Ino) -> Option<Result<Vec<u8>>> {
        self.patiently(async |r| {
            let opened = r.drive.open(ino, Access { write: false, truncate: false }).get().await?;
            let bytes = r.drive.read(ino, opened.fh, 0, 1 << 24).get().await;
            r.drive.release(ino, opened.fh);
            bytes.map(|bytes| bytes.to_vec())
        })
        .await
    }

    /// Resolves a path as the kernel does, a name at a time.
    pub async fn find(&self, path: &str) -> Option<Result<Attr>> {
        let mut at = self.patiently(async |r| r.drive.getattr(Ino::ROOT).get().await).await?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Ok(holder) = at else { break };
            if holder.kind != FileKind::Directory {
                return Some(Err(Error::new(Kind::NotDirectory, "a name above is no directory")));
            }
            let name = name(part);
            at = self.patiently(async |r| r.drive.lookup(holder.ino, &name).get().await).await?;
        }
        Some(at)
    }

    /// The kernel keeps nothing any more of what is not open.
    pub fn forget(&self) {
        (2..500).filter_map(Ino::new).for_each(|ino| self.running.drive.forget(ino));
    }

    /// The line is good again.
    pub fn heal(&self) {
        self.weather.bad.store(false, Ordering::Relaxed);
        self.weather.down.store(false, Ordering::Relaxed);
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a good name")
}

#[allow(clippy::too_many_arguments, reason = "all that a machine consists of")]
fn start(
    database: &std::path::Path,
    platter: &Platter,
    life: &Arc<Life>,
    clock: &Arc<SimClock>,
    memory: &Arc<Memory>,
    weather: &Arc<Weather>,
    settings: &SyncSettings,
    first: bool,
    power_lost: bool,
) -> Result<Running> {
    let disk = Arc::new(SimDisk::new(platter.clone(), life.clone(), clock.clone()));
    let ground = Ground {
        disk: disk.clone(),
        clock: clock.clone(),
        remote: Line::new(memory.clone(), weather.clone(), life.clone()),
        store: Arc::new(Store::open_on(database, disk)?),
        state_dir: "/state".into(),
        cache_dir: "/cache".into(),
    };
    let bound = Bound { max_bytes: 1 << 30, min_free_bytes: 0 };
    let deadline = Duration::from_secs(30);
    let start = Start { first, power_lost, uid: 0, gid: 0, deadline, close_waits: false };
    let running = Running::start(ground, bound, start, settings.clone(), |touched| {
        Arc::new(fourwheel::fs::Both(Arc::new(Quiet), Arc::new(touched)))
    })?;
    running.cache.scan();
    Ok(running)
}
