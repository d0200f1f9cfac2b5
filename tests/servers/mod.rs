//! Real servers for tests: each a plain child process on a free loopback port, with a directory of its own, ended by its pid
//! when the value is dropped. Use from a test target by `#[path = "../servers/mod.rs"] mod servers;`.
//!
//! A server whose program is not installed is `None`, and says so loudly; such a test is skipped, not passed.
#![allow(dead_code, clippy::disallowed_methods, reason = "a test outside the crate: every target uses its own part")]

pub mod apache;
pub mod cut;
pub mod nginx;
pub mod rclone;
pub mod wsgidav;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const USER: &str = "ann";
pub const PASSWORD: &str = "pass word";

/// How long a server may take to answer; wsgidav on a busy machine needs some seconds.
const START_MAX: Duration = Duration::from_secs(30);
/// How often another port is tried when somebody else took the first.
const PORTS_MAX: usize = 5;

/// What must be ended when the test's process ends: servers that live as long as it does.
static KEPT: Mutex<Vec<Server>> = Mutex::new(Vec::new());

/// Keeps a server until the process ends, since statics are never dropped.
pub fn keep(server: Server) {
    extern "C" fn end_all() {
        KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }
    static ONCE: Once = Once::new();
    // SAFETY: the handler touches only a static, and catches no panic that could cross it.
    ONCE.call_once(|| assert_eq!(unsafe { libc::atexit(end_all) }, 0));
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(server);
}

/// A server that runs until this is dropped.
pub struct Server {
    /// The collection to mount, with a slash at the end.
    pub url: String,
    pub port: u16,
    /// The directory that it serves, for looking behind its back.
    pub files: PathBuf,
    child: Child,
    _directory: TempDir,
}

impl Server {
    /// Starts what `command` makes of a directory and a port; `path` is the collection's path below the port.
    fn start(path: &str, mut command: impl FnMut(&Path, u16) -> Command) -> Server {
        for _ in 0..PORTS_MAX {
            let directory = tempfile::Builder::new().prefix("fw-server-").tempdir().expect("a temporary directory");
            // Servers that give up root must still reach their files.
            std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
            let files = directory.path().join("www").join(path.trim_matches('/'));
            std::fs::create_dir_all(&files).expect("a directory to serve");
            let port = free_port();
            let log = std::fs::File::create(directory.path().join("log")).expect("a log");
            let mut child = command(directory.path(), port)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log)
                .spawn()
                .expect("a program that was found before");
            if answers(port, &mut child) {
                let url = format!("http://127.0.0.1:{port}{path}");
                return Server { url, port, files, child, _directory: directory };
            }
            end(&mut child);
            eprintln!("{}", std::fs::read_to_string(directory.path().join("log")).unwrap_or_default());
        }
        panic!("a server did not start; its log is above");
    }

    /// The process, for tests that stop it for a while.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn answers(port: u16, child: &mut Child) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if child.try_wait().ok().flatten().is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Ends one process by its pid: asked first, so that it ends its own children.
fn end(child: &mut Child) {
    // SAFETY: a signal to a process that this value started and has not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    for _ in 0..100 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The path of a program: `$FOURWHEEL_<NAME>`, the usual directories, or the venv that the tests' sheet names.
pub fn program(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(format!("FOURWHEEL_{}", name.to_uppercase())).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/tmp/davvenv/bin".into()]);
    let found = named.into_iter().chain(usual.map(|directory| directory.join(name))).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED, NOT PASSED: {name} is not installed; set FOURWHEEL_{} to its path", name.to_uppercase());
    }
    found
}

/// Gives a tree to the user that a root-started server becomes; nothing to do for others.
fn give_to(user: &str, path: &Path) {
    if is_root() {
        let done = Command::new("chown").arg("-R").arg(user).arg(path).status().expect("chown");
        assert!(done.success(), "chown {user} {}", path.display());
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) has no conditions.
    unsafe { libc::geteuid() == 0 }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e: io::Error| panic!("{}: {e}", path.display()));
}
