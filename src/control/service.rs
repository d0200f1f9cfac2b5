//! The calls that a worker answers.

use super::status::{CheckReport, Conflict, Pinned, Saved, Status};
use crate::error::Result;
use async_trait::async_trait;
use std::path::Path;

/// What a running mount offers. Paths are relative to the mount point, empty for the root; any bytes that Linux allows.
///
/// Several calls may run at once. A future is dropped when its caller goes away; the call must bear that at any point.
/// There is no call for the log: it is a file in the state directory, readable when the worker is dead too.
#[async_trait]
pub trait Service: Send + Sync {
    /// Everything at a glance. Answers from memory, within milliseconds.
    async fn status(&self) -> Result<Status>;

    /// What is not saved yet. Asked several times a second by `wait`.
    async fn saved(&self) -> Result<Saved>;

    /// Sends what is waiting at and below `path`, and asks the remote for changes there; returns when both are done.
    /// `NotFound`; the kinds of remote calls; the first reason where something cannot be saved.
    async fn sync(&self, path: &Path) -> Result<()>;

    /// Conflict copies, newest first.
    async fn conflicts(&self) -> Result<Vec<Conflict>>;

    /// Keeps what is at and below `path` on this machine. Returns before the bytes are there. `NotFound`, `NoSpace`.
    async fn pin(&self, path: &Path) -> Result<Pinned>;

    /// Takes a pin back. `NotFound`: there was none.
    async fn unpin(&self, path: &Path) -> Result<Pinned>;

    /// Looks over the store's invariants and the cache's checksums.
    async fn check(&self) -> Result<CheckReport>;

    /// Asks for an orderly end: the mount goes, then the worker. Returns at once.
    async fn stop(&self) -> Result<()>;
}
