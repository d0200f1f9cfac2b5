//! What `status` shows of the synchronisation.

use super::Shared;
use super::engine::is_local_only;
use crate::error::Result;
use crate::model::Ino;
use crate::store::{Failure, Rows, Which};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Pending inodes that are counted one by one; more are only said to be more.
const COUNTED_MAX: usize = 200_000;

/// An upload that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    pub path: String,
    pub done: u64,
    pub size: u64,
}

/// The uploads that run.
#[derive(Default)]
pub(super) struct MovingTable {
    rows: Mutex<HashMap<Ino, Moving>>,
}

impl MovingTable {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ino, Moving>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, ino: Ino, path: String, size: u64) {
        self.lock().insert(ino, Moving { path, done: 0, size });
    }

    pub(super) fn advance(&self, ino: Ino, bytes: u64) {
        if let Some(row) = self.lock().get_mut(&ino) {
            row.done = (row.done + bytes).min(row.size);
        }
    }

    pub(super) fn end(&self, ino: Ino) {
        self.lock().remove(&ino);
    }
}

#[derive(Default)]
struct Last {
    saved_ns: Option<i64>,
    error: Option<(i64, String)>,
}

/// Times of the last events.
#[derive(Default)]
pub(super) struct Rates {
    last: Mutex<Last>,
}

impl Rates {
    pub(super) fn saved(&self, at_ns: i64) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).saved_ns = Some(at_ns);
    }

    pub(super) fn set_error(&self, text: &str, at_ns: i64) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).error = Some((at_ns, text.to_owned()));
    }
}

/// The state of the synchronisation at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inodes that are not equal on both sides, local-only ones and failed ones not counted.
    pub pending_files: u64,
    pub pending_bytes: u64,
    /// Names that stay on this machine.
    pub local_only_files: u64,
    /// Path on the mount and reason of each entry that cannot be saved.
    pub failed: Vec<(String, String)>,
    pub conflicts: u64,
    pub uploading: Vec<Moving>,
    pub last_saved_ns: Option<i64>,
    pub last_error: Option<(i64, String)>,
    /// Directories whose children are not known yet.
    pub unlisted: u64,
    /// Inodes that the remote has, as far as it is known.
    pub entries: u64,
}

/// Why what is in a directory cannot be sent for now: for the directory.
enum Hindrance {
    LocalOnly,
    Failed(String),
}

/// The path of an inode on the mount; of one that was deleted here its place on the remote.
fn shown_path(rows: &Rows<'_>, ino: Ino) -> Result<String> {
    let here = rows.path(ino)?.filter(|path| !path.is_empty());
    Ok(match here {
        Some(path) => String::from_utf8_lossy(&path).into_owned(),
        None => rows.remote_path(0, ino)?.map(|path| path.as_str().to_owned()).unwrap_or_default(),
    })
}

impl super::Sync {
    /// The state of the synchronisation now.
    pub fn report(&self) -> Result<Report> {
        self.shared.report()
    }

    /// Lists `ino`, and all below it, on the remote, and brings the store up to date.
    pub async fn look_below(&self, ino: Ino) -> Result<()> {
        let directory = self.shared.store().read(|rows| rows.node(ino))?.kind == crate::model::FileKind::Directory;
        if directory {
            return super::feed::list_below(&self.shared, ino, true).await;
        }
        match self.shared.place(ino) {
            Ok(place) => self.shared.look(&place).await.map(drop),
            // It is new here.
            Err(_) => Ok(()),
        }
    }

    /// Whether something at or below `ino` waits to be saved: `None` if nothing does, else the reason why the first cannot be,
    /// if there is one.
    pub fn waiting_below(&self, ino: Ino) -> Result<Option<Option<String>>> {
        self.shared.store().read(|rows| {
            let mut waiting = None;
            let failures: HashMap<Ino, Failure> = rows.failures()?.into_iter().map(|f| (f.ino, f)).collect();
            for pending in rows.pending(0, COUNTED_MAX)? {
                let Some((_, name)) = rows.place(pending)? else { continue };
                let new = rows.view(pending, 0, Which::Remote)?.is_none();
                if (new && is_local_only(&self.shared.settings.local_only, name.as_bytes()))
                    || !rows.is_within(pending, ino)?
                {
                    continue;
                }
                if let Some(failure) = failures.get(&pending) {
                    return Ok(Some(Some(failure.reason.clone())));
                }
                match self.shared.hindrance(rows, pending, &failures)? {
                    Some(Hindrance::LocalOnly) => {}
                    Some(Hindrance::Failed(reason)) => return Ok(Some(Some(reason))),
                    None => waiting = Some(None),
                }
            }
            Ok(waiting)
        })
    }
}

impl Shared {
    /// What keeps the nearest directory above `ino` that the remote does not have from being made there.
    fn hindrance(&self, rows: &Rows<'_>, ino: Ino, failures: &HashMap<Ino, Failure>) -> Result<Option<Hindrance>> {
        let mut at = rows.place(ino)?.map(|(parent, _)| parent);
        while let Some(directory) = at.filter(|directory| *directory != Ino::ROOT) {
            if rows.view(directory, 0, Which::Remote)?.is_some() {
                return Ok(None);
            }
            let place = rows.place(directory)?;
            if place.as_ref().is_some_and(|(_, name)| is_local_only(&self.settings.local_only, name.as_bytes())) {
                return Ok(Some(Hindrance::LocalOnly));
            }
            if let Some(failure) = failures.get(&directory) {
                return Ok(Some(Hindrance::Failed(format!("its folder cannot be saved: {}", failure.reason))));
            }
            at = place.map(|(parent, _)| parent);
        }
        Ok(None)
    }

    fn report(&self) -> Result<Report> {
        let mut report = self.store().read(|rows| {
            let mut report = Report { conflicts: rows.conflicts()?.len() as u64, ..Report::default() };
            let failures: HashMap<Ino, Failure> = rows.failures()?.into_iter().map(|f| (f.ino, f)).collect();
            for ino in rows.pending(0, COUNTED_MAX)? {
                let Some(node) = rows.find_node(ino)? else { continue };
                let place = rows.place(ino)?;
                let known = rows.view(ino, 0, Which::Remote)?.is_some() || rows.view(ino, 0, Which::Base)?.is_some();
                if let Some((_, name)) = &place
                    && !known
                    && is_local_only(&self.settings.local_only, name.as_bytes())
                {
                    report.local_only_files += 1;
                    continue;
                }
                let size = self.parts.journal.get(ino).map_or(0, |s| s.size_and_mtime().0);
                if let Some(failure) = failures.get(&ino) {
                    report.failed.push((shown_path(rows, ino)?, failure.reason.clone()));
                    continue;
                }
                match self.hindrance(rows, ino, &failures)? {
                    Some(Hindrance::LocalOnly) => {
                        report.local_only_files += 1;
                        continue;
                    }
                    Some(Hindrance::Failed(reason)) => {
                        report.failed.push((shown_path(rows, ino)?, reason));
                        continue;
                    }
                    None => {}
                }
                report.pending_files += 1;
                if super::has_content(node.kind) {
                    report.pending_bytes += size;
                }
            }
            report.unlisted = rows.unlisted(0, 100_000)?.len() as u64;
            report.entries = rows.remote_count(0)?;
            Ok(report)
        })?;
        report.uploading = self.moving.lock().values().cloned().collect();
        report.uploading.sort_by(|a, b| a.path.cmp(&b.path));
        let last = self.rates.last.lock().unwrap_or_else(PoisonError::into_inner);
        report.last_saved_ns = last.saved_ns;
        report.last_error = last.error.clone();
        Ok(report)
    }
}
