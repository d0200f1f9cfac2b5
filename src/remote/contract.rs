//! The trait itself and the types of its calls.

use super::Capabilities;
use crate::error::Result;
use crate::model::{Entry, Meta, Quota, RemotePath, Version};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

/// Content on its way from a provider. Pieces of any size; the first error ends it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Where content to send comes from; can be read again, so that an attempt can be repeated.
///
/// A source names one fixed content: a read fails with `Kind::Changed` once the bytes below it may differ.
pub trait Source: Send + Sync {
    /// Bytes in all.
    fn size(&self) -> u64;
    /// Reads exactly `range.end - range.start` bytes of `range` (half-open, within `size`). Blocks for a disk read at most.
    fn read(&self, range: Range<u64>) -> Result<Bytes>;
}

/// Content to send.
pub type Body = Arc<dyn Source>;

/// Where something is on a remote: the path always, the stable id where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: RemotePath,
    pub id: Option<String>,
}

impl Place {
    /// A place known by its path alone.
    pub fn at(path: RemotePath) -> Self {
        Place { path, id: None }
    }
}

/// What must be true at the target for a write to happen. Otherwise `Kind::Precondition`, and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is there.
    Absent,
    /// This version is there.
    Is(Version),
    /// Whatever is there.
    Any,
}

/// One page of entries.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Paths from the drive's root. Parents may come after their children. The listed directory itself is not among them.
    pub entries: Vec<(RemotePath, Entry)>,
    /// What to pass for the next page; `None` after the last.
    pub next: Option<String>,
    /// The version of the listed directory itself (etag propagation), where the provider has one.
    pub directory: Option<Version>,
}

/// One change that a feed reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This is now there.
    Present(RemotePath, Box<Entry>),
    /// Nothing is there any more (and nothing below it).
    Absent(RemotePath),
    /// Something changed in this directory, or below it if `deep`: list it again.
    Look { directory: RemotePath, deep: bool },
}

/// What a feed reported.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The state now of each place touched since, in any number of steps. `Absent` come last, so that what moved is known by
    /// its id at its new place before it is missed at the old one.
    pub changes: Vec<Change>,
    /// Where to go on. Saved in the transaction that applies the changes.
    pub cursor: String,
    /// Whether more is waiting now.
    pub more: bool,
    /// Whether the cursor had expired: sweep the tree again.
    pub reset: bool,
}

/// A whole-content write.
#[derive(Clone)]
pub struct PutRequest {
    pub body: Body,
    pub meta: Meta,
    pub condition: Condition,
}

/// An upload session: what must be kept to go on after a crash. Opaque to callers; kept as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session(pub String);

/// One part that the provider has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    pub size: u64,
    /// What `finish` must be told of it (an etag, for example).
    pub tag: String,
}

/// A provider's account, bound to one root.
///
/// Errors of every call: `Offline`, `TimedOut`, `Throttled`, `Unavailable` (may pass), `SignIn`, `Denied`, besides those
/// named at each. Futures may be dropped at any point: the call then may or may not have taken effect.
#[async_trait]
pub trait Remote: Send + Sync {
    /// What this account can do. Constant after `connect`.
    fn capabilities(&self) -> &Capabilities;

    /// A name for messages: `webdav http://host/dav/`. Without secrets.
    fn describe(&self) -> String;

    /// One page of the whole tree; `page` is `None` at first. Only where `capabilities().whole_tree`, else `Unsupported`.
    async fn sweep(&self, page: Option<String>) -> Result<Listing>;

    /// One page of one directory, its children only. `NotFound`, `NotDirectory`.
    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing>;

    /// What changed since `cursor`; with `None`, where the feed stands now (no changes).
    /// May wait up to `wait_ms` for a change. Only with [`super::ChangeFeed::Cursor`], else `Unsupported`.
    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes>;

    /// What is there now, attributes included; `None` where nothing is.
    async fn stat(&self, place: &Place) -> Result<Option<Entry>>;

    /// Content of one version; `range` is half-open and within the version's size.
    /// The stream gives exactly the bytes of `range`, else an error (`Corrupt` for a short body).
    /// `Changed`: that version is no longer there. `NotFound`.
    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream>;

    /// Where a symbolic link points to. Only with `capabilities().symlinks`.
    async fn read_link(&self, place: &Place) -> Result<Vec<u8>>;

    /// Stores whole content; returns what is there then, its version included. Mode and xattrs that `meta` does not give may
    /// stay as they were there or go; without an mtime the time is now.
    /// `Precondition`, `NotFound` (no parent), `IsDirectory`, `QuotaFull`, `TooLarge`, `NameRefused`; `Changed` from the source.
    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry>;

    /// Makes a symbolic link; replaces nothing (`Exists`). Only with `capabilities().symlinks`.
    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry>;

    /// Opens an upload session for a content of `size` bytes. Only with `capabilities().sessions`.
    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session>;

    /// Sends one part, `range` of `body`. Repeatable. `NotFound`: the session is gone, begin again.
    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part>;

    /// Lets the server copy `range` of `version` at `from` as a part. Only with `part_copy`. `Changed`.
    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part>;

    /// Which parts the provider holds. `NotFound`: the session is gone.
    async fn parts(&self, session: &Session) -> Result<Vec<Part>>;

    /// Puts the parts together at the target, if `condition` holds. All parts in order, without a gap.
    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry>;

    /// Drops a session and its parts. A session that is gone is no error.
    async fn abort(&self, session: &Session) -> Result<()>;

    /// Makes a directory. `Exists`, `NotFound` (no parent).
    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry>;

    /// Moves a file or a whole directory. For a file over a file, `condition` is on the target: `Is` replaces just that
    /// version, `Absent` nothing. A directory goes only where nothing is (`Absent`). `source` is the version moved, checked
    /// where possible. `NotFound`, `Precondition`. Safe to repeat: a source that is gone with the target in place is `NotFound`.
    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry>;

    /// Removes a file of that version, or an empty directory. `NotEmpty`, `NotFound`, `Precondition`.
    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()>;

    /// Copies a file on the server's side. Only with `capabilities().copy`.
    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry>;

    /// Changes the attributes that `meta` gives (xattrs as a whole) and leaves the others; returns what is there then (some
    /// providers give a new version: `version` is the one expected before). `Unsupported` without `meta.alone`.
    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry>;

    /// Space used and left.
    async fn quota(&self) -> Result<Quota>;
}
