//! A note of each drive that ended with something unsent, so that "may I switch off?" is answered for drives that are not
//! mounted too.

use super::note;
use crate::error::{Context, Result};
use crate::sys::{Disk, RealDisk};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a drive that is not mounted keeps for its next mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub drive: String,
    pub state_dir: PathBuf,
    /// Inodes that the remote does not have as they are here.
    pub files: u64,
    pub bytes: u64,
}

impl Left {
    /// Writes it into `dir` ([`super::records_dir`]), over an older one of the same state directory; one of no files is taken
    /// away instead. Atomic. `Config`: a path is not UTF-8.
    pub fn publish(&self, dir: &Path) -> Result<()> {
        let path = file(dir, &self.state_dir);
        let doing = || format!("note in {} what was not sent", dir.display());
        if self.files == 0 { note::remove(&path, doing) } else { note::write(&path, self, doing) }
    }

    /// All of them, by drive. One whose state directory is gone says nothing any more; what does not read as a note is
    /// passed over.
    pub fn all(dir: &Path) -> Result<Vec<Left>> {
        let names = RealDisk.list(dir).context(format!("read the notes in {}", dir.display()))?;
        let notes = names.iter().filter(|name| name.ends_with(".left"));
        let mut found: Vec<Left> = notes.filter_map(|name| note::read(&dir.join(name))).collect();
        found.retain(|left| RealDisk.list(&left.state_dir).is_ok_and(|names| !names.is_empty()));
        found.sort_by(|a, b| (&a.drive, &a.state_dir).cmp(&(&b.drive, &b.state_dir)));
        Ok(found)
    }
}

fn file(dir: &Path, state_dir: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    dir.join(format!("{:016x}.left", crate::config::fnv1a(state_dir.as_os_str().as_bytes())))
}
