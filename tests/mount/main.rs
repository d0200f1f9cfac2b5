//! Programs on a real mount, through the kernel: what POSIX promises, what editors, git, SQLite and rsync do, and crashes.
//!
//! Needs Linux with `/dev/fuse` and the programs of `scripts/setup`. A test that cannot run here fails and says why.
#![allow(clippy::disallowed_methods, reason = "tests live on the real clock and disk")]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod files;
mod foreign;
mod locks;
mod names;
mod programs;
mod saves;
mod tree;

use std::path::{Path, PathBuf};

use support::drive::Remote;
use support::{Drive, Mount};
use tempfile::TempDir;

/// A directory on this disk that plays the cloud.
struct Cloud(TempDir);

impl Cloud {
    fn new() -> Cloud {
        Cloud(tempfile::Builder::new().prefix("fourwheel-cloud-").tempdir().expect("a temporary directory"))
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn remote(&self) -> Remote {
        Remote::folder(self.0.path())
    }

    /// A drive on it with an empty state and cache: each is another machine.
    fn drive(&self) -> Drive {
        Drive::new(self.remote())
    }

    /// The names at the top, sorted, without what the program keeps for itself.
    fn names(&self) -> Vec<String> {
        names(self.0.path()).into_iter().filter(|name| !name.starts_with(".~fourwheel")).collect()
    }
}

/// Runs `check` on a fresh mount of a fresh cloud.
#[track_caller]
fn on_a_mount(check: impl FnOnce(&Mount, &Cloud)) {
    let cloud = Cloud::new();
    let drive = cloud.drive();
    let mount = drive.mount();
    check(&mount, &cloud);
    mount.unmount();
}

/// The names in a directory, sorted.
#[track_caller]
fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("list {}: {e}", path.display()));
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// Reads a file and compares; says where the first and the last difference are.
#[track_caller]
fn assert_holds(path: impl AsRef<Path>, expected: &[u8]) {
    let path = path.as_ref();
    let found = std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let differs = |at: &usize| found.get(*at) != expected.get(*at);
    let len = found.len().max(expected.len());
    if let Some(first) = (0..len).find(differs) {
        let last = (0..len).rfind(differs).unwrap_or(first);
        let count = (0..len).filter(differs).count();
        let shown = |bytes: &[u8]| format!("{:x?}", &bytes[first.min(bytes.len())..(first + 16).min(bytes.len())]);
        panic!(
            "{}: {} bytes, expected {}, {count} differ, from {first} to {last}: {} instead of {}",
            path.display(),
            found.len(),
            expected.len(),
            shown(&found),
            shown(expected)
        );
    }
}

/// Bytes that differ at every place and between seeds.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn the_mount_is_no_fake() {
    assert!(
        !support::drive::fake(),
        "FOURWHEEL_FAKE=1 is set: these tests did not touch the program and prove nothing"
    );
}

#[test]
fn noise_is_repeatable_and_differs_between_seeds() {
    assert_eq!(noise(1000, 1), noise(1000, 1));
    assert_ne!(noise(1000, 1), noise(1000, 2));
}
