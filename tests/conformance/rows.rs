//! Which accounts the laws run over. One line a row; a row that needs a server opens it itself, or gives `None`.

use super::flaky::{Fault, Flaky};
use super::s3_servers::Kind as Server;
use super::{s3, webdav};
use fourwheel::error::{Error, Kind};
use fourwheel::remote::memory::{everything, nothing};
use fourwheel::remote::{Call, Retry, RetryPolicy, Settings, wrap};
use fourwheel::remote::{Capabilities, ChangeFeed, Folder, Memory, MetaSupport, Remote, UploadSessions};
use fourwheel::sys::{RealChance, RealClock};
use futures_util::future::BoxFuture;
use std::any::Any;
use std::sync::Arc;

/// An account for one law: empty, and nobody else's.
pub struct Opened {
    pub remote: Arc<dyn Remote>,
    /// What must live as long as the account: a temporary directory, a server.
    pub keep: Option<Box<dyn Any + Send>>,
}

/// One kind of account.
pub struct Row {
    pub name: &'static str,
    /// Opens a fresh account; `None` where it cannot be had on this machine.
    pub open: Box<dyn Fn() -> BoxFuture<'static, Option<Opened>>>,
    /// Laws that this account's server breaks, each with how.
    pub faults: &'static [(&'static str, &'static str)],
}

impl Row {
    /// Leaves out laws that the server breaks; a law is named with what the server does.
    pub fn but(self, faults: &'static [(&'static str, &'static str)]) -> Row {
        Row { faults, ..self }
    }
}

/// A row whose accounts `open` gives.
pub fn row<F>(name: &'static str, open: impl Fn() -> F + 'static) -> Row
where
    F: Future<Output = Option<Opened>> + Send + 'static,
{
    Row { name, open: Box::new(move || Box::pin(open())), faults: &[] }
}

fn memory(name: &'static str, capabilities: fn() -> Capabilities) -> Row {
    row(name, move || async move {
        let remote = Arc::new(Memory::new(capabilities(), Arc::new(RealClock)).with_page(100));
        Some(Opened { remote, keep: None })
    })
}

/// As S3 is: paths alone, no directories of their own, no feed.
fn like_objects() -> Capabilities {
    Capabilities { stable_ids: false, changes: ChangeFeed::None, symlinks: false, directories: false, ..everything() }
}

/// As Nextcloud is: etags of directories, whole seconds.
fn like_etag_tree() -> Capabilities {
    let meta = MetaSupport { mtime_step_ns: 1_000_000_000, mode: false, ..everything().meta };
    Capabilities { changes: ChangeFeed::EtagTree, whole_tree: false, meta, ..everything() }
}

/// As OneDrive is: no case, many forbidden characters, sessions in order.
fn like_onedrive() -> Capabilities {
    let names = nothing().names;
    let sessions = UploadSessions { parallel: false, part_copy: false, ..everything().sessions.unwrap() };
    Capabilities { case_sensitive: false, names, rename_replaces: false, sessions: Some(sessions), ..everything() }
}

/// Behind every layer, as the program has it.
async fn layered() -> Option<Opened> {
    let memory = Arc::new(Memory::new(everything(), Arc::new(RealClock)).with_page(100));
    let (remote, _) = wrap(memory, Arc::new(RealClock), Arc::new(RealChance::new()), &Settings::default());
    Some(Opened { remote, keep: None })
}

/// Behind a link that fails every third call before it has an effect, and loses every fifth answer; the layer that repeats
/// must make up for all of it. Not lost are answers that nobody could make up for: of a move without a version (the caller
/// is told that the source is gone), of the end of a session. Nor do `mkdir`, `remove` and `copy` fail before their effect: after
/// that, "already so" counts as done, where a law asks for the refusal.
async fn lossy() -> Option<Opened> {
    let memory = Arc::new(Memory::new(everything(), Arc::new(RealClock)).with_page(100));
    let flaky = Flaky::new(memory, |call, n| {
        let before = !matches!(call, Call::Mkdir | Call::Remove | Call::Copy);
        let after = !matches!(call, Call::Rename | Call::Finish);
        match n {
            n if before && n % 3 == 1 => Fault::Before(Error::new(Kind::Unavailable, "planned")),
            n if after && n % 5 == 2 => Fault::After(Error::new(Kind::TimedOut, "planned")),
            n if call == Call::Read && n % 7 == 3 => Fault::Break(1, Error::new(Kind::Offline, "planned")),
            _ => Fault::None,
        }
    });
    let policy = RetryPolicy { tries: 40, base_ms: 0, max_ms: 0, total_ms: 60_000 };
    let remote = Retry::new(flaky, Arc::new(RealClock), Arc::new(RealChance::new()), policy);
    Some(Opened { remote: Arc::new(remote), keep: None })
}

async fn folder() -> Option<Opened> {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::connect(dir.path(), Arc::new(RealClock), Arc::new(RealChance::new())).unwrap();
    Some(Opened { remote: Arc::new(folder), keep: Some(Box::new(dir)) })
}

/// Every row.
pub fn rows() -> Vec<Row> {
    vec![
        memory("memory, everything", everything),
        memory("memory, nothing", nothing),
        memory("memory, like objects", like_objects),
        memory("memory, like an etag tree", like_etag_tree),
        memory("memory, like OneDrive", like_onedrive),
        row("memory, behind every layer", layered),
        row("memory, over a lossy link", lossy),
        row("folder", folder),
        row("apache", || webdav::open(&webdav::APACHE)).but(webdav::APACHE_FAULTS),
        row("nginx", || webdav::open(&webdav::NGINX)),
        row("rclone serve webdav", || webdav::open(&webdav::RCLONE)),
        row("nextcloud, emulated", || webdav::open(&webdav::NEXTCLOUD)),
        row("owncloud, emulated", || webdav::open(&webdav::OWNCLOUD)),
        row("wsgidav", || webdav::open(&webdav::WSGIDAV)),
        row("s3: moto", || s3::open(Server::Moto, "")).but(s3::MOTO),
        row("s3: moto, a prefix", || s3::open(Server::Moto, "/deep er/prefix+%41/")).but(s3::MOTO),
        row("s3: s3s-fs", || s3::open(Server::S3sFs, "")).but(s3::S3S_FS),
    ]
}
