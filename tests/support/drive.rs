//! A drive in a directory of its own, and its mount through the kernel by the real binary.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::process::{alive, children, signal};
use super::wait::wait_for;

/// How long a mount may take until it answers, on a machine that also builds.
const ANSWERS: Duration = Duration::from_secs(60);

/// How long one mount may live: then its connection is aborted, so that a hung test fails and does not hang the rest.
const LIFE: Duration = Duration::from_secs(600);

/// The name of the one drive in the config.
pub const NAME: &str = "t";

/// Whether drives are bind mounts instead of the program, to debug the tests themselves.
pub fn fake() -> bool {
    std::env::var_os("FOURWHEEL_FAKE").is_some_and(|v| v == "1")
}

/// What a drive shows: the lines of its config table.
#[derive(Clone)]
pub struct Remote {
    lines: String,
    /// Where the bytes can be seen without the program, where there is such a place.
    pub folder: Option<PathBuf>,
}

impl Remote {
    /// A directory on this machine.
    pub fn folder(path: &Path) -> Remote {
        let lines = format!("type = \"folder\"\npath = {}\n", quoted(path));
        Remote { lines, folder: Some(path.to_path_buf()) }
    }

    /// Any other remote by its config lines.
    pub fn lines(lines: &str) -> Remote {
        Remote { lines: format!("{lines}\n"), folder: None }
    }

    /// Adds a config line.
    pub fn with(mut self, line: &str) -> Remote {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }
}

/// A TOML string; our paths hold nothing that JSON would write differently.
fn quoted(path: &Path) -> String {
    Value::from(path.to_string_lossy()).to_string()
}

/// The state, cache, config and mount point of one drive on one "machine". Dropped: everything is gone.
pub struct Drive {
    home: TempDir,
    remote: Remote,
}

impl Drive {
    /// A drive with an empty state and cache, uploading soon after a close so that tests are quick.
    pub fn new(remote: Remote) -> Drive {
        let remote = if remote.lines.contains("write_back_s") { remote } else { remote.with("write_back_s = 0.2") };
        let home = tempfile::Builder::new().prefix("fourwheel-test-").tempdir().expect("a temporary directory");
        for folder in ["config", "config/fourwheel", "state", "cache", "run", "mnt"] {
            std::fs::create_dir(home.path().join(folder)).expect("a fresh directory");
        }
        let drive = Drive { home, remote };
        std::fs::write(drive.config(), format!("[drive.{NAME}]\n{}", drive.remote.lines)).expect("a fresh file");
        drive
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config/fourwheel/config.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    pub fn mount_point(&self) -> PathBuf {
        self.home.path().join("mnt")
    }

    /// The binary with this drive's directories in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fourwheel"));
        command.args(arguments);
        for (key, folder) in [
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(key, self.home.path().join(folder));
        }
        command
    }

    /// Mounts it and waits until it answers.
    #[track_caller]
    pub fn mount(&self) -> Mount<'_> {
        Mount::start(self)
    }
}

/// A mounted drive. Dropped: unmounted and its processes ended, whatever state they are in.
pub struct Mount<'d> {
    drive: &'d Drive,
    keeper: Option<Child>,
    connection: Option<u32>,
    ended: Arc<AtomicBool>,
    log: PathBuf,
}

impl<'d> Mount<'d> {
    #[track_caller]
    fn start(drive: &'d Drive) -> Mount<'d> {
        let log = drive.home.path().join("log");
        let mut mount = Mount { drive, keeper: None, connection: None, ended: Arc::default(), log };
        if fake() {
            let remote = drive.remote.folder.as_ref().expect("only a remote with a folder can be faked");
            let status = Command::new("mount").arg("--bind").arg(remote).arg(mount.path()).status();
            assert!(status.is_ok_and(|s| s.success()), "mount --bind needs root");
            return mount;
        }
        let log = File::options().create(true).append(true).open(&mount.log).expect("a log file");
        let mut command = drive.command(&["mount", NAME]);
        command.arg(mount.path()).stdin(Stdio::null()).stdout(log.try_clone().expect("a duplicate")).stderr(log);
        end_with_us(&mut command);
        mount.keeper = Some(command.spawn().expect("the binary was built with this test"));
        let end = Instant::now() + ANSWERS;
        while !mount.answers() {
            let ended = mount.keeper.as_mut().and_then(|k| k.try_wait().ok().flatten());
            assert!(ended.is_none(), "mount ended with {ended:?}:\n{}", mount.log());
            assert!(Instant::now() < end, "the mount does not answer after {ANSWERS:?}:\n{}", mount.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        mount.connection = device_minor(&mount.path());
        mount.watch();
        mount
    }

    /// Whether something is mounted and a status comes: both, so that a dead mount does not count.
    fn answers(&self) -> bool {
        device_minor(&self.path()).is_some() && self.try_status().is_some()
    }

    /// Aborts the connection when this mount lives too long.
    fn watch(&self) {
        let (ended, connection, end) = (self.ended.clone(), self.connection, Instant::now() + LIFE);
        std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                if Instant::now() > end {
                    eprintln!("a mount lived {LIFE:?}: aborting its connection");
                    return abort(connection);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.drive.mount_point()
    }

    /// A path in it.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// What the program said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The status object of this mount.
    #[track_caller]
    pub fn status(&self) -> Value {
        if fake() {
            return serde_json::json!({ "pending_files": 0, "failed": [], "conflicts": 0, "online": true });
        }
        self.try_status().unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    fn try_status(&self) -> Option<Value> {
        let output = self.drive.command(&["status", "--json"]).output().ok()?;
        let all: Value = serde_json::from_slice(&output.stdout).ok()?;
        let mounts = all.as_array().or_else(|| all.get("mounts")?.as_array())?;
        mounts.iter().find(|m| m["mountpoint"].as_str().is_some_and(|p| Path::new(p) == self.path())).cloned()
    }

    /// Waits until everything is on the remote; panics when something failed.
    #[track_caller]
    pub fn wait_saved(&self) {
        if fake() {
            return;
        }
        let output = self
            .drive
            .command(&["wait", "--saved", "--timeout", "180"])
            .arg(self.path())
            .output()
            .expect("the binary starts");
        assert!(
            output.status.success(),
            "wait --saved ended with {}\n{}{}\nstatus: {}\nlog:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.status(),
            self.log()
        );
    }

    /// The process that owns the mount.
    pub fn keeper_pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(Child::id)
    }

    /// The process that serves it now.
    pub fn worker_pid(&self) -> Option<u32> {
        children(self.keeper_pid()?).into_iter().rfind(|pid| alive(*pid))
    }

    /// kill -9 of the worker; returns once another one serves.
    #[track_caller]
    pub fn kill_worker(&self) {
        if fake() {
            return;
        }
        let old = self.worker_pid().expect("a worker runs");
        signal(old, libc::SIGKILL);
        wait_for(ANSWERS, "a new worker", || self.worker_pid().filter(|pid| *pid != old));
    }

    /// kill -9 of the keeper and the worker together, as a crash of the machine would; takes the dead mount away.
    pub fn kill_all(mut self) {
        self.end(libc::SIGKILL);
    }

    /// Unmounts in good order; panics when the program does not end well.
    #[track_caller]
    pub fn unmount(mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let output = self.drive.command(&["unmount"]).arg(self.path()).output().expect("the binary starts");
            assert!(output.status.success(), "unmount: {}", String::from_utf8_lossy(&output.stderr));
            let status = wait_for(ANSWERS, "the mount's end", || keeper.try_wait().expect("our child"));
            assert!(status.success(), "mount ended with {status}:\n{}", self.log());
        }
    }

    fn end(&mut self, how: libc::c_int) {
        self.ended.store(true, Relaxed);
        if let Some(mut keeper) = self.keeper.take() {
            if how == libc::SIGTERM {
                signal(keeper.id(), how);
                let end = Instant::now() + Duration::from_secs(20);
                while keeper.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            // Stopped first: it would otherwise replace the worker, or tell it to end in good order.
            signal(keeper.id(), libc::SIGSTOP);
            let workers = children(keeper.id());
            for pid in workers.iter().copied().chain([keeper.id()]) {
                signal(pid, libc::SIGKILL);
            }
            // Reaps it; it was killed.
            let _ = keeper.wait();
            wait_for(ANSWERS, "the killed workers' end", || workers.iter().all(|pid| !alive(*pid)).then_some(()));
        }
        if device_minor(&self.path()).is_some() {
            abort(self.connection);
            detach(&self.path());
        }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the mount\n{}", self.log());
        }
        self.end(libc::SIGTERM);
    }
}

/// Lets the kernel end the process when the thread that starts it ends, also by a kill of this whole test.
fn end_with_us(command: &mut Command) {
    // SAFETY: prctl with these arguments only sets a flag of the child; it is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        })
    };
}

/// The minor device number of what is mounted at `path`; a FUSE connection has the same number.
fn device_minor(path: &Path) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().rfind(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))?;
    line.split(' ').nth(2)?.split_once(':')?.1.parse().ok()
}

/// Frees everything that waits for a FUSE connection; for users who are not root the kernel refuses, and a detach follows.
fn abort(connection: Option<u32>) {
    if let (Some(connection), false) = (connection, fake()) {
        let _ = std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
    }
}

fn detach(path: &Path) {
    // One at a time: a lazy unmount of the wrong mount would hurt another test.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lazily = |program: &str, flag: &str| {
        Command::new(program).arg(flag).arg(path).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    if !lazily("umount", "-l") {
        lazily("fusermount3", "-uz");
    }
}
