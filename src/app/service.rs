//! What a running mount answers on its control socket.

use super::parts::Running;
use super::pins::at_and_below;
use crate::control::{
    CheckReport, Conflict, Failed, LIST_MAX, LastError, Pinned, Saved, Service, Status, Sweep, Time, Upload,
};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use crate::remote::Meter;
use crate::store::Rows;
use async_trait::async_trait;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

/// How often `sync` looks whether all is sent.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What does not change while a mount runs.
pub struct Facts {
    pub drive: String,
    pub mountpoint: String,
    pub remote: String,
    pub read_only: bool,
    pub cache_bytes_max: u64,
    pub safe_mode: Option<String>,
}

/// The service of one mount.
pub struct MountService {
    pub running: Arc<Running>,
    pub meter: Arc<Meter>,
    pub facts: Facts,
}

fn failed(list: &[(String, String)]) -> (Vec<Failed>, u64) {
    let shown = list.iter().take(LIST_MAX);
    let shown = shown.map(|(path, reason)| Failed { path: path.clone(), reason: reason.clone() });
    (shown.collect(), list.len() as u64)
}

/// The inode at a path of the mount. `NotFound`.
fn resolve(rows: &Rows<'_>, path: &Path) -> Result<Ino> {
    let mut at = Ino::ROOT;
    for part in path.components() {
        let Component::Normal(part) = part else { continue };
        let missing = || Error::new(Kind::NotFound, format!("{} does not exist on this drive", path.display()));
        at = rows.child(at, &Name::new(part.as_bytes())?)?.ok_or_else(missing)?;
    }
    Ok(at)
}

impl MountService {
    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Running) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = self.running.clone();
        let done = tokio::task::spawn_blocking(move || work(&running)).await;
        done.unwrap_or_else(|e| Err(Error::new(Kind::Disk, e.to_string())))
    }

    async fn change_pin(&self, path: &Path, pin: bool) -> Result<Pinned> {
        let path = path.to_owned();
        let found = self
            .on_a_thread(move |running| {
                let ino = running.store.read(|rows| resolve(rows, &path))?;
                if !pin && !running.store.read(|rows| rows.pins())?.contains(&ino) {
                    return Err(Error::new(Kind::NotFound, format!("{} is not pinned", path.display())));
                }
                running.store.write(|tx| tx.set_pin(ino, pin))?;
                running.pins.changed()?;
                running.store.read(|rows| {
                    let mut files = Vec::new();
                    for ino in at_and_below(rows, vec![ino])? {
                        if rows.node(ino)?.kind == FileKind::File {
                            files.push(ino);
                        }
                    }
                    Ok(files)
                })
            })
            .await?;
        let missing_bytes = if pin { self.running.pins.missing_bytes(&found)? } else { 0 };
        Ok(Pinned { files: found.len() as u64, missing_bytes })
    }
}

#[async_trait]
impl Service for MountService {
    async fn status(&self) -> Result<Status> {
        let (report, swept) = self
            .on_a_thread(|running| {
                let swept = running.store.read(|rows| rows.fact(crate::sync::SWEPT))?;
                Ok((running.sync.report()?, swept))
            })
            .await?;
        let meter = self.meter.snapshot();
        let (failed, failed_files) = failed(&report.failed);
        let uploading = report.uploading.iter().take(LIST_MAX);
        let uploading = uploading.map(|m| Upload { path: m.path.clone(), done: m.done, size: m.size }).collect();
        Ok(Status {
            drive: self.facts.drive.clone(),
            mountpoint: self.facts.mountpoint.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            remote: self.facts.remote.clone(),
            online: self.running.wants.is_online(),
            read_only: self.facts.read_only,
            pending_files: report.pending_files,
            pending_bytes: report.pending_bytes,
            failed,
            failed_files,
            conflicts: report.conflicts,
            uploading,
            upload_bytes_per_s: meter.bytes_out_per_s,
            download_bytes_per_s: meter.bytes_in_per_s,
            last_saved: report.last_saved_ns.map(Time),
            last_error: report.last_error.map(|(when, text)| LastError { when: Time(when), text }),
            cache_bytes: self.running.cache.stats().bytes,
            cache_bytes_max: self.facts.cache_bytes_max,
            journal_bytes: self.running.journal.totals().1,
            local_only_files: report.local_only_files,
            safe_mode: self.facts.safe_mode.clone(),
            sweep: Sweep {
                running: swept.is_none(),
                entries: report.entries,
                complete: swept.and_then(|text| text.parse().ok()).map(Time),
            },
            requests: meter.calls.iter().map(|c| (c.call.name().to_owned(), c.requests)).collect(),
        })
    }

    async fn saved(&self) -> Result<Saved> {
        self.running.sync.hurry();
        let report = self
            .on_a_thread(|running| {
                running.drive.settle_rows();
                running.sync.report()
            })
            .await?;
        let (failed, failed_files) = failed(&report.failed);
        Ok(Saved {
            pending_files: report.pending_files,
            pending_bytes: report.pending_bytes,
            failed,
            failed_files,
            upload_bytes_per_s: self.meter.snapshot().bytes_out_per_s,
            online: self.running.wants.is_online(),
        })
    }

    async fn sync(&self, path: &Path) -> Result<()> {
        let path = path.to_owned();
        let ino = self.on_a_thread(move |running| running.store.read(|rows| resolve(rows, &path))).await?;
        self.running.sync.look_below(ino).await?;
        loop {
            self.running.sync.hurry();
            let waiting = self.on_a_thread(move |running| running.sync.waiting_below(ino)).await?;
            match waiting {
                None => return Ok(()),
                Some(Some(reason)) => return Err(Error::new(Kind::Unavailable, reason)),
                Some(None) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn conflicts(&self) -> Result<Vec<Conflict>> {
        self.on_a_thread(|running| {
            running.store.read(|rows| {
                let mut found = Vec::new();
                for (ino, original, at_ns) in rows.conflicts()? {
                    let copy = rows.path(ino)?.unwrap_or_default();
                    let directory = copy.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &copy[..=at]);
                    let path = [directory, &original].concat();
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    found.push(Conflict { path: text(&path), copy: text(&copy), when: Time(at_ns) });
                }
                found.reverse();
                Ok(found)
            })
        })
        .await
    }

    async fn pin(&self, path: &Path) -> Result<Pinned> {
        self.change_pin(path, true).await
    }

    async fn unpin(&self, path: &Path) -> Result<Pinned> {
        self.change_pin(path, false).await
    }

    async fn check(&self) -> Result<CheckReport> {
        self.on_a_thread(super::check::look_over).await
    }

    async fn stop(&self) -> Result<()> {
        // SAFETY: kill(2) with our own parent's number; a wrong one is refused.
        unsafe { libc::kill(libc::getppid(), libc::SIGTERM) };
        Ok(())
    }
}
