//! What a crash left behind. Nothing that might be a user's is deleted here: the caller compares each file with its row.

use super::header::Header;
use super::log::{Log, replay};
use super::staged::Staged;
use super::{Journal, OVERHEAD_BYTES, lock};
use crate::error::{Context, Result};
use crate::model::{Ino, RangeSet};
use crate::sys::Open;
use std::path::PathBuf;
use std::sync::Arc;

/// One file found in the journal's directory.
pub enum Found {
    /// A file with its header; it is staged again.
    Staged(Arc<Staged>),
    /// Data without a header that can be read; still at this path.
    /// `nothing_synced`: the power was cut before its header was on the disk, so no fsync was answered for any of it.
    Unknown { ino: Option<Ino>, path: PathBuf, size: u64, nothing_synced: bool },
}

impl Found {
    /// Whose bytes these are, as far as the file's name tells.
    pub fn ino(&self) -> Option<Ino> {
        match self {
            Self::Staged(staged) => Some(staged.ino()),
            Self::Unknown { ino, .. } => *ino,
        }
    }
}

impl Journal {
    /// Stages again what is there. `power_lost`: the machine was restarted since, so what was never synced may be missing.
    pub fn recover(&self, power_lost: bool) -> Result<Vec<Found>> {
        let disk = &self.shared.disk;
        let mut found = Vec::new();
        let mut names = disk.list(&self.shared.dir).context("list the journal")?;
        names.sort_unstable();
        for name in &names {
            let Some((number, suffix)) = name.rsplit_once('.') else { continue };
            let ino = number.parse::<u64>().ok().and_then(Ino::new);
            match suffix {
                "data" => found.push(self.recover_one(ino, name, power_lost)?),
                // A header or log alone holds no bytes of anybody.
                "head" | "log" | "head-new" if !names.contains(&format!("{number}.data")) || suffix == "head-new" => {
                    let _ = disk.remove(&self.shared.dir.join(name));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn recover_one(&self, ino: Option<Ino>, name: &str, power_lost: bool) -> Result<Found> {
        let shared = &self.shared;
        let path = shared.dir.join(name);
        let doing = format!("recover journal file {name}");
        let file = shared.disk.open(&path, Open::Existing).context(&doing)?;
        let stat = file.stat().context(&doing)?;
        let header = match ino {
            Some(ino) => Header::read(shared.disk.as_ref(), &shared.path(ino, "head")).context(&doing)?,
            None => None,
        };
        let (Some(ino), Some(header)) = (ino, header.filter(|h| h.ino() == ino)) else {
            let head = ino.map(|ino| shared.disk.stat(&shared.path(ino, "head")));
            let blank = match head {
                Some(Ok(head)) => head.size == 0,
                Some(Err(e)) => e.kind() == std::io::ErrorKind::NotFound,
                None => false,
            };
            shared.space.occupied(stat.allocated);
            return Ok(Found::Unknown { ino, path, size: stat.size, nothing_synced: power_lost && blank });
        };
        let mut present: RangeSet = match (header.logged, power_lost) {
            (false, _) => std::iter::once(0..stat.size).collect(),
            // Clean bytes can be fetched again, and may never have reached the disk.
            (true, true) => RangeSet::new(),
            (true, false) => header.present.iter().map(|&(s, e)| s..e).collect(),
        };
        let log = match shared.disk.open(&shared.path(ino, "log"), Open::Existing) {
            Ok(log) => Some(log),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(crate::error::Error::disk(&doing, &e)),
        };
        let mut kept = None;
        let mut size = stat.size;
        let base_end = header.base.as_ref().map_or(0, |base| base.size);
        if header.logged {
            // Nothing was noted, as far as is known.
            size = replay(&[], present.clone(), base_end, true).size(size);
        }
        if let Some(log) = log.filter(|_| header.logged) {
            let mut bytes = vec![0; log.stat().context(&doing)?.size as usize];
            let read = log.read_at(&mut bytes, 0).context(&doing)?;
            bytes.truncate(read);
            let read = replay(&bytes, present, base_end, !power_lost);
            log.set_len(read.good).context(&doing)?;
            size = read.size(stat.size);
            present = read.present;
            kept = Some(Log::new(log, read.good));
        }
        if size < stat.size {
            file.set_len(size).context(&doing)?;
            file.set_mtime(stat.mtime_ns).context(&doing)?;
        }
        present.truncate(size);
        shared.space.occupied(OVERHEAD_BYTES);
        let staged = Staged::new(shared.clone(), file, header, present, size, stat.mtime_ns)?;
        // Its valid pages are what it owes; holes among them are counted too, and given back with the rest.
        staged.take_over(0);
        if let Some(log) = kept {
            staged.set_log(log);
        }
        let staged = Arc::new(staged);
        lock(&self.files).insert(ino, staged.clone());
        Ok(Found::Staged(staged))
    }
}
