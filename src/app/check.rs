//! `fourwheel check`: the store's invariants, the cache's checksums, the journal against the rows.

use super::parts::{DATABASE, Running};
use crate::cache::Cache;
use crate::config::{Drive, StateDir};
use crate::control::CheckReport;
use crate::error::Result;
use crate::journal::Journal;
use crate::space::Space;
use crate::store::{Content, Store};
use crate::sys::{RealClock, RealDisk};
use std::sync::Arc;

/// Looks over a drive that runs.
pub fn look_over(running: &Running) -> Result<CheckReport> {
    report(&running.store, &running.cache, &running.journal)
}

/// Looks over a drive that is not mounted.
pub fn check(drive: &Drive) -> Result<CheckReport> {
    let state = StateDir::open(&drive.state_dir)?;
    let disk = Arc::new(RealDisk);
    let store = Store::open(&state.path().join(DATABASE))?;
    let space = Space::new(disk.clone(), drive.cache_dir.clone(), u64::MAX / 4, 0);
    let cache = Cache::open(disk.clone(), drive.cache_dir.join("cache"), space.clone())?;
    let journal = Journal::open(disk, Arc::new(RealClock), &state.path().join("journal"), space)?;
    journal.recover(false)?;
    report(&store, &cache, &journal)
}

fn report(store: &Store, cache: &Cache, journal: &Journal) -> Result<CheckReport> {
    let mut report = CheckReport { problems: store.check()?, ..CheckReport::default() };
    let (files, _) = store.read(|rows| rows.totals())?;
    report.checked.insert("files and folders".into(), files);
    let waiting = store.read(|rows| rows.pending(0, usize::MAX >> 1))?.len() as u64;
    report.checked.insert("waiting to be saved".into(), waiting);
    for ino in store.read(|rows| rows.dirty())? {
        let node = store.read(|rows| rows.node(ino))?;
        if node.content == Content::Dirty && node.size > 0 && journal.get(ino).is_none() {
            let path = store.read(|rows| rows.path(ino))?.unwrap_or_default();
            report.problems.push(format!(
                "{}: waits to be saved, and its bytes are gone from the journal; the remote keeps what it had",
                String::from_utf8_lossy(&path)
            ));
        }
    }
    report.checked.insert("in the journal".into(), journal.totals().0);
    let found = cache.verify(|_| true)?;
    report.checked.insert("pieces of the cache".into(), found.good_pieces);
    if found.bad_pieces > 0 {
        report
            .problems
            .push(format!("{} damaged pieces of the cache were dropped; they are fetched again", found.bad_pieces));
    }
    Ok(report)
}
