//! mount and unmount: from the command line to the keeper and back.

use super::args::{KeepArgs, MountArgs};
use super::exit::Exit;
use super::say::talk;
use super::target::{Mounts, absent, record};
use super::{Hooks, pause};
use crate::config::{self, Drive, HAND_OVER, Places, RemoteSpec, Wanted, environment, words};
use crate::control::{Client, Mount, Saved, records_dir};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Clock, RealClock};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the keeper is asked to do.
#[derive(Debug)]
pub struct KeepJob {
    pub drive: Drive,
    /// Absolute; nothing else of it was checked.
    pub mountpoint: PathBuf,
    /// Return once the mount answers.
    pub daemon: bool,
    /// Mount over a directory that holds something.
    pub non_empty: bool,
    /// The command of the worker; the drive reaches it through the environment, which must be passed on.
    pub worker_argv: Vec<OsString>,
}

/// What the worker is asked to do.
#[derive(Debug)]
pub struct WorkerJob {
    pub drive: Drive,
    /// Absolute, without symbolic links.
    pub mountpoint: PathBuf,
    /// Where to publish the [`crate::control::Record`] of this mount.
    pub records: PathBuf,
}

/// How long unmount waits for the mount to go: the keeper gives its worker half a minute to finish.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(45);

/// How long unmount asks a worker that is being replaced.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long unmount sends what waits before it has the drive end.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// `fourwheel mount`: checks everything that needs no network and becomes the keeper.
///
/// The program is executed anew, with the drive in the environment: the command line may hold a password, and every user of
/// the machine can read it as long as the process lives; the environment is the owner's alone. Returns only on failure.
pub fn mount(args: MountArgs, config: Option<&Path>, places: &Places) -> Result<Exit> {
    let mut options = args.options;
    if args.read_only {
        options.push("read_only=true".into());
    }
    if args.allow_other {
        options.push("allow_other=true".into());
    }
    let wanted = Wanted { remote: &args.remote, config, options: &options };
    let drive = config::resolve(&wanted, places, &environment)?;
    let dir = places.working.join(&args.dir);
    refuse_circles(&drive, &dir)?;
    let keep = KeepArgs { dir, daemon: args.daemon, non_empty: args.non_empty };
    let error =
        Command::new(own_program()).arg0("fourwheel").args(keep.words()).env(HAND_OVER, drive.hand_over()?).exec();
    Err(Error::disk("start the keeper", &error))
}

/// `fourwheel keep`: hands over to the keeper.
pub fn keep(args: KeepArgs, hooks: &Hooks) -> Result<i32> {
    let drive = handed_over()?;
    let name = words::escape(&drive.name);
    let dir = args.dir.clone();
    let worker_argv = vec![own_program().into(), "worker".into(), "--".into(), real(&dir).into()];
    let job = KeepJob { drive, mountpoint: args.dir, daemon: args.daemon, non_empty: args.non_empty, worker_argv };
    let code = (hooks.keep)(job)?;
    if args.daemon && code == 0 {
        let dir = words::path(&dir);
        talk(format_args!("{name} is mounted at {dir}; \"fourwheel unmount {dir}\" ends it"));
    }
    Ok(code)
}

/// `fourwheel worker`: serves the mount until it ends.
pub fn worker(dir: PathBuf, hooks: &Hooks, places: &Places) -> Result<()> {
    (hooks.worker)(WorkerJob { drive: handed_over()?, mountpoint: dir, records: records_dir(&places.state) })
}

fn handed_over() -> Result<Drive> {
    match std::env::var(HAND_OVER) {
        Ok(text) => Drive::take_over(&text),
        Err(_) => Err(Error::new(Kind::Config, "this command is started by \"fourwheel mount\"; use that")),
    }
}

/// Our own file, by its name where it still has one, so that a later start finds an upgraded program.
fn own_program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.is_file() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

/// A drive that stands on its own mount would wait for itself.
fn refuse_circles(drive: &Drive, dir: &Path) -> Result<()> {
    let at = real(dir);
    let shown = words::path(dir);
    let refuse = |why: String| Err(Error::new(Kind::MountPoint, format!("{why}; choose another directory")));
    if let RemoteSpec::Folder(folder) = &drive.remote {
        let path = real(&folder.path);
        if at.starts_with(&path) || path.starts_with(&at) {
            return refuse(format!("{shown} and the drive's own folder {} lie in each other", words::path(&path)));
        }
    }
    for (what, path) in [("state", &drive.state_dir), ("cache", &drive.cache_dir)] {
        if real(path).starts_with(&at) {
            return refuse(format!("the drive's {what} directory {} lies in {shown}", words::path(path)));
        }
    }
    Ok(())
}

/// The path without symbolic links, as far as it exists. What it may ask is the disk under a mount point, not a mount's inside.
fn real(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut above = path;
    loop {
        if let Ok(found) = above.canonicalize() {
            return rest.iter().rev().fold(found, |path: PathBuf, part| path.join(part));
        }
        match (above.parent(), above.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                above = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

/// `fourwheel unmount`.
pub fn unmount(dir: &Path, force: bool, hooks: &Hooks, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let mount = mounts.named(dir)?;
    if mount.presence == crate::control::Presence::Gone {
        record(mount)?.withdraw(&mounts.records())?;
        talk(format_args!("{} was not mounted any more", words::path(&mount.mountpoint)));
        return Ok(Exit::Done);
    }
    if force {
        (hooks.unmount)(&mount.mountpoint)?;
        if let Some(record) = &mount.record {
            record.withdraw(&mounts.records())?;
        }
        return Ok(Exit::Done);
    }
    let mut client = connected(mount)?;
    refuse_busy(&mount.mountpoint)?;
    let saved = send_rest(&mut client)?;
    match client.stop() {
        // It may be gone before its answer is written.
        Err(error) if error.kind != Kind::Offline => return Err(error),
        _ => {}
    }
    wait_until_gone(mount)?;
    if saved.pending_files > 0 {
        talk(format_args!(
            "not on the remote yet: {}; safe on this machine, sent at the next mount",
            words::count(saved.pending_files, "file")
        ));
    }
    Ok(Exit::Done)
}

/// Asks again for a moment: a worker that died is replaced.
fn connected(mount: &Mount) -> Result<Client> {
    let begin = RealClock.monotonic();
    loop {
        match Client::connect(&record(mount)?.socket) {
            Err(_) if RealClock.monotonic() - begin < CONNECT_TIMEOUT => pause(Duration::from_millis(20)),
            connected => return connected.map_err(|_| absent(mount)),
        }
    }
}

/// Has what waits sent before the end, for a short while; what is left then.
fn send_rest(client: &mut Client) -> Result<Saved> {
    let begin = RealClock.monotonic();
    loop {
        let saved = client.saved()?;
        let over = RealClock.monotonic() - begin >= SEND_TIMEOUT;
        if saved.pending_files == 0 || !saved.online || over {
            return Ok(saved);
        }
        pause(Duration::from_millis(50));
    }
}

/// A mount that is taken from under a program would have it write into the directory below, onto no drive. As far as
/// /proc shows the programs: root sees all, others their own.
#[allow(clippy::disallowed_methods, reason = "procfs is no disk")]
fn refuse_busy(mountpoint: &Path) -> Result<()> {
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint));
    let uses = |process: &Path| {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        ["cwd", "root", "exe"].iter().any(|link| inside(process.join(link))) || files.map(|f| f.path()).any(inside)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let Some(busy) = processes.filter(|p| numbered(&p.file_name())).map(|p| p.path()).find(|p| uses(p)) else {
        return Ok(());
    };
    let name = std::fs::read_to_string(busy.join("comm")).unwrap_or_default();
    let pid = busy.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let at = words::path(mountpoint);
    Err(Error::new(
        Kind::MountPoint,
        format!(
            "{at} is in use by {} (process {pid}); leave it there and repeat, or \"fourwheel unmount --force {at}\" takes it away",
            words::escape(name.trim())
        ),
    ))
}

fn wait_until_gone(mount: &Mount) -> Result<()> {
    let begin = RealClock.monotonic();
    while RealClock.monotonic() - begin < UNMOUNT_TIMEOUT {
        let mounted = crate::control::mountinfo().context("see whether the mount is gone")?;
        if !mounted.contains(&mount.mountpoint) {
            return Ok(());
        }
        pause(Duration::from_millis(20));
    }
    let at = words::path(&mount.mountpoint);
    Err(Error::new(
        Kind::TimedOut,
        format!(
            "the drive at {at} did not end within {} seconds; \"fourwheel unmount --force {at}\" takes it away",
            UNMOUNT_TIMEOUT.as_secs()
        ),
    ))
}
