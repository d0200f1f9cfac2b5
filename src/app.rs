//! Puts the parts together: what the command line calls to mount, to serve, to check.

use crate::cli::{Hooks, KeepJob, WorkerJob};
use crate::config::Drive;
use crate::control::CheckReport;
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// What the binary runs with.
pub fn hooks() -> Hooks {
    Hooks { keep, worker, check, unmount }
}

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::new(
        Kind::Unsupported,
        format!("{what}: this build has no drive in it; build fourwheel from its main branch"),
    ))
}

fn keep(_: KeepJob) -> Result<i32> {
    absent("mount")
}

fn worker(_: WorkerJob) -> Result<()> {
    absent("serve the mount")
}

fn check(_: &Drive) -> Result<CheckReport> {
    absent("check")
}

fn unmount(_: &Path) -> Result<()> {
    absent("unmount")
}
