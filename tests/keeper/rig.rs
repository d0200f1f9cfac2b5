//! One mounted drive and the handles to torment it.

use crate::filesystem::Control;
use fourwheel::keeper::{mount, mountinfo};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whether this machine can run the tests.
pub fn possible() -> Result<(), String> {
    if !mount::is_root() {
        return Err("they need root".into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".into());
    }
    Ok(())
}

/// A directory tree, a mount point, and later a keeper.
pub struct Rig {
    pub dir: TempDir,
    pub control: Control,
    pub mount_point: PathBuf,
}

impl Rig {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // World-readable, so that another user's keeper can serve it.
        let dir = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        for name in ["tree", "trash", "control", "a mount"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let control = Control::new(dir.path().join("control"));
        let mount_point = dir.path().join("a mount").canonicalize().unwrap();
        Rig { dir, control, mount_point }
    }

    pub fn tree(&self, name: &str) -> PathBuf {
        self.dir.path().join("tree").join(name)
    }

    pub fn mounted(&self, name: &str) -> PathBuf {
        self.mount_point.join(name)
    }

    /// The keeper's command.
    pub fn command(&self, options: &[&str]) -> Command {
        self.command_of(&std::env::current_exe().unwrap(), options)
    }

    /// The same with a copy of this program.
    pub fn command_of(&self, program: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("role-keeper").arg(&self.mount_point).arg(self.dir.path()).args(options);
        command.stdout(Stdio::null()).stdin(Stdio::null());
        command
    }

    /// Mounts and waits until the first worker serves.
    pub fn start(&self, options: &[&str]) -> Drive<'_> {
        let stderr = if std::env::var_os("KEEPER_TALK").is_some() { Stdio::inherit() } else { Stdio::null() };
        self.control.remove("worker");
        let child = self.command(options).stderr(stderr).spawn().unwrap();
        let drive = Drive { rig: self, child };
        drive.worker_after(0);
        drive
    }

    pub fn is_mounted(&self) -> bool {
        mountinfo::at(&self.mount_point).unwrap().is_some()
    }

    /// The generation and pid of the last worker that served.
    pub fn worker(&self) -> Option<(u64, i32)> {
        let text = self.control.read("worker")?;
        let (generation, pid) = text.split_once(' ')?;
        Some((generation.parse().ok()?, pid.parse().ok()?))
    }

    pub fn log(&self) -> Vec<String> {
        self.control.read("log").unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = mount::unmount_lazy(&self.mount_point, None);
    }
}

/// A running keeper.
pub struct Drive<'a> {
    pub rig: &'a Rig,
    pub child: Child,
}

impl Drive<'_> {
    /// The first worker with a number above `generation`.
    pub fn worker_after(&self, generation: u64) -> (u64, i32) {
        let mut found = None;
        wait_until("a worker serves", || {
            found = self.rig.worker().filter(|worker| worker.0 > generation);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn keeper(&self) -> i32 {
        self.child.id() as i32
    }

    /// Kills the current worker and waits for its successor.
    pub fn replace_worker(&self) {
        self.end_worker(libc::SIGKILL);
    }

    /// The worker dies of a fault of its own, and another one takes over.
    pub fn crash_worker(&self) {
        self.end_worker(libc::SIGABRT);
    }

    fn end_worker(&self, signal: i32) {
        let (generation, pid) = self.rig.worker().unwrap();
        kill(pid, signal);
        self.worker_after(generation);
    }

    /// Waits for the keeper's end.
    pub fn end(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the keeper ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Ends the drive as a user would, and insists on a clean end.
    pub fn stop(self) {
        kill(self.keeper(), libc::SIGTERM);
        let rig = self.rig;
        assert_eq!(self.end().code(), Some(0));
        assert!(!rig.is_mounted());
    }
}

impl Drop for Drive<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory.
    unsafe { libc::kill(pid, signal) };
}

pub fn alive(pid: i32) -> bool {
    // A zombie that nobody reaps (this container's init may not) counts as dead.
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/stat")) else { return false };
    let stat = std::io::read_to_string(file).unwrap_or_default();
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// Looks every few milliseconds until it is so; 20 s at most.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A small generator; the tests print its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
