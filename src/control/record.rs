//! A note of each mount, so that it is found by its path, whether its worker lives or not.

use super::note;
use crate::error::{Context, Result};
use crate::sys::{Disk, RealDisk};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version of the note's layout.
const VERSION: u32 = 1;

/// One mount: what the command line must know to ask its worker, or to say that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub drive: String,
    /// Absolute, without symbolic links.
    pub mountpoint: PathBuf,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    /// The worker.
    pub pid: u32,
    /// The keeper; ending it ends the mount.
    pub keeper_pid: u32,
}

/// Where a user's records are; `state` is [`crate::config::Places::state`]. No drive's name begins with a dot.
pub fn records_dir(state: &Path) -> PathBuf {
    state.join(".mounts")
}

impl Record {
    /// Takes what the note says.
    pub fn new(drive: &str, mountpoint: &Path, state_dir: &Path, socket: &Path, pid: u32, keeper_pid: u32) -> Record {
        Record {
            version: VERSION,
            drive: drive.to_owned(),
            mountpoint: mountpoint.to_owned(),
            state_dir: state_dir.to_owned(),
            socket: socket.to_owned(),
            pid,
            keeper_pid,
        }
    }

    /// Writes it into `dir`, over an older one of the same mount point. Atomic. `Config`: a path is not UTF-8.
    pub fn publish(&self, dir: &Path) -> Result<()> {
        note::write(&dir.join(self.file_name()), self, || format!("note the mount in {}", dir.display()))
    }

    /// Takes it away again, at an orderly end. One that is gone is no error.
    pub fn withdraw(&self, dir: &Path) -> Result<()> {
        note::remove(&dir.join(self.file_name()), || format!("remove the note of the mount in {}", dir.display()))
    }

    /// All records in `dir`, by mount point. What does not read as one is passed over: it is no user's data.
    pub fn all(dir: &Path) -> Result<Vec<Record>> {
        let names = RealDisk.list(dir).context(format!("read the notes of mounts in {}", dir.display()))?;
        let notes = names.iter().filter(|name| name.ends_with(".json"));
        let mut records: Vec<Record> = notes.filter_map(|name| read(&dir.join(name))).collect();
        records.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        Ok(records)
    }

    fn file_name(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        format!("{:016x}.json", crate::config::fnv1a(self.mountpoint.as_os_str().as_bytes()))
    }
}

fn read(path: &Path) -> Option<Record> {
    note::read(path).filter(|record: &Record| record.version == VERSION)
}
