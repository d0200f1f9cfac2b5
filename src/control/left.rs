//! A note of each drive that ended with something unsent, so that "may I switch off?" is answered for drives that are not
//! mounted too.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Disk, Open, RealDisk};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The largest note, bytes: a path and a few words.
const BYTES_MAX: u64 = 64 * 1024;

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
        if self.files == 0 {
            return match RealDisk.remove(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::disk(doing(), &e)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec(self).map_err(|e| Error::new(Kind::Config, format!("{}: {e}", doing())))?;
        let temp = path.with_extension("new");
        let write = || {
            RealDisk.make_dirs(dir)?;
            let file = RealDisk.open(&temp, Open::Create)?;
            file.set_len(0)?;
            file.write_at(&text, 0)?;
            RealDisk.rename(&temp, &path)
        };
        write().context(doing())
    }

    /// All of them, by drive. One whose state directory is gone says nothing any more; what does not read as a note is
    /// passed over.
    pub fn all(dir: &Path) -> Result<Vec<Left>> {
        let names = RealDisk.list(dir).context(format!("read the notes in {}", dir.display()))?;
        let notes = names.iter().filter(|name| name.ends_with(".left"));
        let mut found: Vec<Left> = notes.filter_map(|name| read(&dir.join(name))).collect();
        found.retain(|left| RealDisk.list(&left.state_dir).is_ok_and(|names| !names.is_empty()));
        found.sort_by(|a, b| (&a.drive, &a.state_dir).cmp(&(&b.drive, &b.state_dir)));
        Ok(found)
    }
}

fn file(dir: &Path, state_dir: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    dir.join(format!("{:016x}.left", crate::config::fnv1a(state_dir.as_os_str().as_bytes())))
}

fn read(path: &Path) -> Option<Left> {
    let file = RealDisk.open(path, Open::Existing).ok()?;
    let size = file.stat().ok()?.size;
    if size > BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    let read = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes[..read]).ok()
}
