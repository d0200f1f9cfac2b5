//! What the command line calls: to keep a mount, to serve it, to check a drive, to take a dead mount away.

use super::connect::connect;
use super::parts::{Bound, DATABASE, Ground, Running, Start, power_lost};
use super::service::{Facts, MountService};
use super::worker::{is_first, listeners, runtime, serve};
use crate::cli::{Hooks, KeepJob, WorkerJob, logs};
use crate::config::{Close, Drive, StateDir};
use crate::control::{Left, Record, Server};
use crate::error::{Error, Kind, Result};
use crate::fs::Deadlines;
use crate::keeper::mount::{MountSettings, is_root, unmount_lazy};
use crate::keeper::mount_point::Contents;
use crate::keeper::{self, Inherited, KeeperOptions, Place};
use crate::store::Store;
use crate::sync::SyncSettings;
use crate::sys::{Chance, Clock, RealChance, RealClock, RealDisk};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long `mount --daemon` waits for the mount to answer: a first mount asks the server what it can do.
const READY_WITHIN: Duration = Duration::from_secs(150);

/// How long the lock of a state directory is waited for.
const LOCK_WITHIN: Duration = Duration::from_secs(3);

/// How long a worker may go on sending when it is to stop, and a little more.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// What the binary runs with.
pub fn hooks() -> Hooks {
    Hooks { keep, worker, check: super::check::check, unmount }
}

fn keep(job: KeepJob) -> Result<i32> {
    let settings = &job.drive.settings;
    let mut options = KeeperOptions::new(&job.mountpoint, &job.drive.name, job.worker_argv);
    options.settings = MountSettings {
        source: job.drive.name.clone(),
        allow_other: settings.allow_other || is_root(),
        read_only: settings.read_only,
    };
    options.contents = if job.non_empty { Contents::MayBeHidden } else { Contents::MustBeEmpty };
    options.stop_patience = STOP_WITHIN;
    if job.daemon {
        // What a worker says before it has a log reaches the terminal that started it.
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().ok();
        options.place = Place::Daemon { stderr, patience: READY_WITHIN };
    }
    keeper::run(options).map_err(|e| match e.kind {
        Kind::Config | Kind::Exists | Kind::NotFound | Kind::NotDirectory | Kind::NotEmpty | Kind::Denied => {
            Error::new(Kind::MountPoint, e.to_string())
        }
        _ => e,
    })
}

fn unmount(mount_point: &Path) -> Result<()> {
    unmount_lazy(mount_point, None).map(drop)
}

fn worker(job: WorkerJob) -> Result<()> {
    let inherited = Inherited::from_env()?;
    let inherited =
        inherited.ok_or_else(|| Error::new(Kind::Config, "a worker is started by \"fourwheel mount\"; use that"))?;
    let served = serve_job(&job, &inherited);
    if let Err(e) = &served {
        inherited.failed(e);
    }
    served
}

fn serve_job(job: &WorkerJob, inherited: &Inherited) -> Result<()> {
    let drive = &job.drive;
    let state = open_state(&drive.state_dir)?;
    logs::to_file(&state.log())?;
    keep_secrets();
    die_whole();
    raise_descriptors();
    let disk = Arc::new(RealDisk);
    let clock: Arc<dyn Clock> = Arc::new(RealClock);
    let chance: Arc<dyn Chance> = Arc::new(RealChance::new());
    let runtime = runtime()?;
    let store = Arc::new(Store::open(&state.path().join(DATABASE)).map_err(|e| damaged(e, &state))?);
    let connected = runtime.block_on(connect(drive, &store, &clock, &chance))?;
    let settings = &drive.settings;
    let start = Start {
        first: is_first(inherited),
        power_lost: power_lost(disk.as_ref(), state.path())?,
        // SAFETY: both calls cannot fail.
        uid: unsafe { libc::geteuid() },
        // SAFETY: as above.
        gid: unsafe { libc::getegid() },
        deadline: settings.deadline,
        close_waits: settings.close == Close::Remote,
    };
    let bound = Bound { max_bytes: settings.cache_bytes_max, min_free_bytes: settings.cache_bytes_free_min };
    let ground = Ground {
        disk,
        clock,
        remote: connected.remote,
        store,
        state_dir: state.path().to_owned(),
        cache_dir: drive.cache_dir.clone(),
    };
    let deadlines = Deadlines { request: settings.deadline, read: settings.read_deadline.min(settings.deadline) };
    let record = Record::new(
        &drive.name,
        &job.mountpoint,
        &drive.state_dir,
        &state.socket(),
        std::process::id(),
        inherited.keeper_pid() as u32,
    );
    let facts = Facts {
        drive: drive.name.clone(),
        mountpoint: job.mountpoint.to_string_lossy().into_owned(),
        remote: drive.remote.describe(),
        read_only: settings.read_only,
        cache_bytes_max: settings.cache_bytes_max,
        safe_mode: inherited.safe_mode(),
    };
    let mut left = Left { drive: drive.name.clone(), state_dir: drive.state_dir.clone(), files: 0, bytes: 0 };
    let mut ran = None;
    let served = serve(
        inherited,
        &runtime,
        deadlines,
        |notices| {
            let settings = sync_settings(drive, inherited.safe_mode().is_some());
            Running::start(ground, bound, start, settings, |touched| listeners(notices, touched))
        },
        |running| {
            ran = Some(running.clone());
            let service = MountService { running: running.clone(), meter: connected.meter, facts };
            let server = Server::bind(&state.socket())?;
            tokio::spawn(server.serve(Arc::new(service)));
            tracing::info!(
                "fourwheel {} serves {} at {}",
                env!("CARGO_PKG_VERSION"),
                drive.remote.describe(),
                job.mountpoint.display()
            );
            record.publish(&job.records)?;
            // From now on the record answers for the drive.
            left.publish(&job.records)
        },
    );
    if let Some(report) = ran.and_then(|running| running.sync.report().ok()) {
        left.files = report.pending_files + report.failed.len() as u64;
        left.bytes = report.pending_bytes;
        if let Err(error) = left.publish(&job.records) {
            tracing::warn!("{error}");
        }
        tracing::info!("ended; waiting for the next mount: {} files, {} bytes", left.files, left.bytes);
    }
    // The next mount writes its own; one that stays is shown as gone.
    let _ = record.withdraw(&job.records);
    served
}

/// Opens the state directory; a worker whose keeper was killed may need a moment to let go of it.
fn open_state(path: &Path) -> Result<StateDir> {
    let end = RealClock.monotonic() + LOCK_WITHIN;
    loop {
        match StateDir::open(path) {
            Err(e) if e.kind == Kind::InUse && RealClock.monotonic() < end => {
                #[allow(clippy::disallowed_methods, reason = "nothing runs yet in this process")]
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn sync_settings(drive: &Drive, safe_mode: bool) -> SyncSettings {
    let settings = &drive.settings;
    SyncSettings {
        write_back: settings.write_back,
        poll: settings.poll,
        refresh: settings.refresh,
        uploads: settings.uploads,
        read_only: settings.read_only,
        local_only: settings.local_only.iter().map(str::to_owned).collect(),
        host: host_name(),
        safe_mode,
    }
}

/// Says what to do about a database that cannot be read. The journal has its own headers, so nothing written is lost.
fn damaged(error: Error, state: &StateDir) -> Error {
    if error.kind != Kind::Corrupt {
        return error;
    }
    let path = state.path().join(DATABASE);
    let shown = path.display();
    Error::new(
        Kind::Corrupt,
        format!(
            "{error}; nothing was changed. Move {shown} and its -wal and -shm files away and mount again: the tree is read \
             from the remote, and files that waited to be saved come back in lost+found"
        ),
    )
}

#[allow(clippy::disallowed_methods, reason = "procfs is no disk")]
fn host_name() -> String {
    let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    if name.is_empty() { "here".into() } else { name }
}

/// A thread that panicked would leave requests unanswered: the whole worker ends, and the keeper starts the next one.
fn die_whole() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        say(info);
        tracing::error!("{info}");
        std::process::abort();
    }));
}

/// The cache holds two descriptors for each open file: as many as the system gives are asked for.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the answer, and is then given back.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// No core dump holds a password.
fn keep_secrets() {
    // SAFETY: PR_SET_DUMPABLE takes one number.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}
