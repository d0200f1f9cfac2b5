//! Small JSON files of ours: written whole or not at all.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Disk, Open, RealDisk};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The largest note, bytes: two paths and a few words.
const BYTES_MAX: u64 = 64 * 1024;

/// Writes `note` at `path`, over an older one; its directory is made where it is absent. `Config`: a path in it is not UTF-8.
pub(super) fn write(path: &Path, note: &impl Serialize, doing: impl Fn() -> String) -> Result<()> {
    let text = serde_json::to_vec(note).map_err(|e| Error::new(Kind::Config, format!("{}: {e}", doing())))?;
    let temp = path.with_extension("new");
    let write = || {
        path.parent().map_or(Ok(()), |dir| RealDisk.make_dirs(dir))?;
        let file = RealDisk.open(&temp, Open::Create)?;
        file.set_len(0)?;
        file.write_at(&text, 0)?;
        RealDisk.rename(&temp, path)
    };
    write().context(doing())
}

/// The note at `path`; `None` where there is none that can be read: it is no user's data.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = RealDisk.open(path, Open::Existing).ok()?;
    let size = file.stat().ok()?.size;
    if size > BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    let read = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes[..read]).ok()
}

/// Takes a note away; one that is gone is no error.
pub(super) fn remove(path: &Path, doing: impl Fn() -> String) -> Result<()> {
    match RealDisk.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::disk(doing(), &e)),
        _ => Ok(()),
    }
}
