//! Garage, an S3 server of its own make: `cargo install garage --locked` (5 to 10 minutes), as `scripts/soak` does.
#![allow(dead_code, clippy::disallowed_methods, reason = "a test outside the crate: every target uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::s3::{free_port, venv};

pub const BUCKET: &str = "drive";
/// How long it may take until the node answers.
const START_MAX: Duration = Duration::from_secs(60);

/// A node of one, with a bucket and a key for it; ends when dropped.
pub struct Garage {
    pub endpoint: String,
    pub key_id: String,
    pub secret: String,
    child: Child,
    directory: TempDir,
}

/// `$FOURWHEEL_GARAGE`, or where `scripts/soak` puts it.
fn program() -> Option<PathBuf> {
    let beside = venv().parent().map(|tools| tools.join("bin/garage"));
    let found = std::env::var_os("FOURWHEEL_GARAGE").map(PathBuf::from).or(beside).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED, NOT PASSED: garage is not installed; scripts/soak installs it");
    }
    found
}

impl Garage {
    pub fn start() -> Option<Garage> {
        let program = program()?;
        let directory = tempfile::Builder::new().prefix("fw-garage-").tempdir().expect("a directory");
        let (s3, rpc, admin) = (free_port(), free_port(), free_port());
        let at = directory.path().display();
        let config = format!(
            "metadata_dir = \"{at}/meta\"\ndata_dir = \"{at}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\nroot_domain = \".s3.garage\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n",
            "ab".repeat(32)
        );
        std::fs::write(directory.path().join("garage.toml"), config).expect("a config");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = garage(&program, directory.path())
            .arg("server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a program that was found before");
        let mut server = Garage {
            endpoint: format!("http://127.0.0.1:{s3}"),
            key_id: String::new(),
            secret: String::new(),
            child,
            directory,
        };
        server.set_up(&program);
        Some(server)
    }

    /// Gives the node all data, and makes the bucket and its key.
    fn set_up(&mut self, program: &Path) {
        let start = Instant::now();
        let node = loop {
            if let Some(text) = self.try_ask(program, &["node", "id", "-q"])
                && self.try_ask(program, &["status"]).is_some()
            {
                break text.split('@').next().unwrap_or_default().trim().to_owned();
            }
            assert!(start.elapsed() < START_MAX, "garage does not answer");
            std::thread::sleep(Duration::from_millis(100));
        };
        self.ask(program, &["layout", "assign", "-z", "one", "-c", "10G", &node]);
        self.ask(program, &["layout", "apply", "--version", "1"]);
        self.ask(program, &["bucket", "create", BUCKET]);
        let key = self.ask(program, &["key", "create", "tests"]);
        let after = |name: &str| {
            let line = key.lines().find(|line| line.trim_start().starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .expect("garage says the key")
        };
        (self.key_id, self.secret) = (after("Key ID"), after("Secret key"));
        self.ask(program, &["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", "tests"]);
    }

    fn try_ask(&self, program: &Path, words: &[&str]) -> Option<String> {
        let output =
            garage(program, self.directory.path()).args(words).stdin(Stdio::null()).output().expect("it starts");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ask(&self, program: &Path, words: &[&str]) -> String {
        self.try_ask(program, words).unwrap_or_else(|| panic!("garage {} failed", words.join(" ")))
    }
}

fn garage(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.join("garage.toml")).env("RUST_LOG", "garage=warn");
    command
}

impl Drop for Garage {
    fn drop(&mut self) {
        // It keeps nothing that outlives its directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
