//! Real S3 servers for tests: moto (Python; the nearest to AWS of those measured), s3s-fs (Rust; checks signatures) and
//! `rclone serve s3` (Go; ignores every condition). Each is one child process on loopback, ended by its pid on drop.
//!
//! moto and rclone come from the environment that `FOURWHEEL_TEST_VENV` names (`scripts/setup` makes one in the cache);
//! s3s-fs from `FOURWHEEL_S3S_FS` or the path (`cargo install s3s-fs --version 0.14.1 --features binary --locked`).
#![allow(dead_code, clippy::disallowed_methods, reason = "a test outside the crate: every target uses its own part")]

use fourwheel::error::Result;
use fourwheel::remote::s3::{S3Options, S3Remote, connect};
use fourwheel::sys::{RealChance, RealClock};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

pub const KEY_ID: &str = "testkeyid0123456";
pub const SECRET: &str = "testsecretkey0123456";
/// How long a server may take to answer: moto imports for some seconds on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Moto,
    S3sFs,
    Rclone,
}

pub const ALL: [Kind; 3] = [Kind::Moto, Kind::S3sFs, Kind::Rclone];

/// A server that runs until this is dropped.
pub struct Server {
    pub kind: Kind,
    pub endpoint: String,
    child: Child,
    files: tempfile::TempDir,
}

/// The environment with moto, boto3 and rclone.
pub fn venv() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = || std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    std::env::var_os("FOURWHEEL_TEST_VENV").map_or_else(|| cache().join("fourwheel-test/venv"), PathBuf::from)
}

fn program(kind: Kind) -> Option<PathBuf> {
    let found = match kind {
        Kind::Moto => Some(venv().join("bin/moto_server")),
        Kind::Rclone => Some(venv().join("bin/rclone")),
        Kind::S3sFs => std::env::var_os("FOURWHEEL_S3S_FS").map(PathBuf::from).or_else(|| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
            std::env::split_paths(&path)
                .chain([venv().join("../bin"), home.join(".cargo/bin")])
                .map(|d| d.join("s3s-fs"))
                .find(|p| p.is_file())
        }),
    };
    found.filter(|path| path.is_file())
}

fn command(kind: Kind, program: &Path, files: &Path, port: u16) -> Command {
    let port = port.to_string();
    let mut command = Command::new(program);
    match kind {
        Kind::Moto => command.args(["-H", "127.0.0.1", "-p", &port]),
        Kind::S3sFs => command
            .args(["--host", "127.0.0.1", "--port", &port, "--access-key", KEY_ID, "--secret-key", SECRET])
            .arg(files),
        Kind::Rclone => command
            .env("XDG_CONFIG_HOME", files)
            .env("XDG_CACHE_HOME", files)
            .args(["serve", "s3", "--auth-key", &format!("{KEY_ID},{SECRET}"), "--addr", &format!("127.0.0.1:{port}")])
            .arg(files.join("s3")),
    };
    command
}

impl Server {
    /// Starts one; `None`, and a loud word, where the program is not installed.
    pub fn start(kind: Kind) -> Option<Server> {
        let Some(program) = program(kind) else {
            eprintln!("SKIPPED, NOT PASSED: the program of {kind:?} is not installed");
            return None;
        };
        for _ in 0..5 {
            let files = tempfile::Builder::new().prefix("fw-s3-").tempdir().expect("a directory");
            std::fs::create_dir(files.path().join("s3")).expect("a directory");
            let port = free_port();
            let log = std::fs::File::create(files.path().join("log")).expect("a log");
            let mut child = command(kind, &program, files.path(), port)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log)
                .spawn()
                .expect("a program that was found before");
            if answers(port, &mut child) {
                return Some(Server { kind, endpoint: format!("http://127.0.0.1:{port}"), child, files });
            }
            end(&mut child);
            eprintln!("{}", std::fs::read_to_string(files.path().join("log")).unwrap_or_default());
        }
        panic!("{kind:?} did not start; its log is above");
    }

    /// One that all tests of this process use while any of them does; moto takes seconds to start.
    pub fn shared(kind: Kind) -> Option<Arc<Server>> {
        static RUNNING: Mutex<Vec<(Kind, Weak<Server>)>> = Mutex::new(Vec::new());
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = running.iter().find(|(k, _)| *k == kind).and_then(|(_, server)| server.upgrade()) {
            return Some(server);
        }
        running.retain(|(k, _)| *k != kind);
        let server = Arc::new(Server::start(kind)?);
        running.push((kind, Arc::downgrade(&server)));
        Some(server)
    }

    /// Makes a bucket that nobody else uses, and says how to reach it.
    pub fn bucket(&self) -> S3Options {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let bucket = format!("bucket{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.make(&bucket);
        self.options(&bucket)
    }

    /// How to reach the bucket of a remote again.
    pub fn bucket_of(&self, remote: &S3Remote) -> S3Options {
        use fourwheel::remote::Remote;
        // "s3 bucket/prefix at host"
        let description = remote.describe();
        let bucket = description.split([' ', '/']).nth(1).expect("a bucket");
        self.options(bucket)
    }

    fn make(&self, bucket: &str) {
        match self.kind {
            // The other two keep a bucket as a directory.
            Kind::Moto => make_bucket(&self.endpoint, bucket),
            Kind::S3sFs => std::fs::create_dir(self.files.path().join(bucket)).expect("a bucket"),
            Kind::Rclone => std::fs::create_dir(self.files.path().join("s3").join(bucket)).expect("a bucket"),
        }
    }

    fn options(&self, bucket: &str) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            bucket: bucket.to_owned(),
            access_key_id: Some(KEY_ID.into()),
            secret_access_key: Some(SECRET.into()),
            ..S3Options::default()
        }
    }

    /// Connects to a fresh bucket.
    pub async fn remote(&self) -> Result<Arc<S3Remote>> {
        open(self.bucket()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Connects by the machine's clock.
pub async fn open(options: S3Options) -> Result<Arc<S3Remote>> {
    connect(options, Arc::new(RealClock), Arc::new(RealChance::new())).await
}

/// moto takes requests without a signature, so that a bucket can be made with the least means.
fn make_bucket(endpoint: &str, bucket: &str) {
    use std::io::{Read, Write};
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("a server that answered before");
    write!(stream, "PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port()
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

/// Ends one process by its pid: asked first, so that a wrapper (rclone's is Python) ends its own child.
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
