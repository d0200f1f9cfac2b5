//! What programs on the mount do: one POSIX verb a file. Knows no kernel protocol; `fs` converts.
//!
//! A verb that memory, the store or a local file can answer does so at once ([`Answer::Now`]); only what needs the network,
//! or space on a full disk, is a future ([`Answer::Later`]), on which the caller sets the deadline. Every verb may be run
//! twice with the same [`Caller::request`]: a verb that changes names finds its outcome in the store the second time.

mod allocate;
mod attributes;
mod create;
mod directory;
mod handles;
mod open;
mod patience;
mod read;
mod recover;
mod remove;
mod rename;
mod statfs;
mod write;
mod xattr;

pub use attributes::{Attr, SetAttr, SetTime};
pub use create::NewNode;
pub use directory::{Dirent, DirentPlus};
pub use handles::Fh;
pub use open::{Access, Opened};
pub use recover::{Recovered, recover};
pub use rename::RenameMode;
pub use statfs::Statfs;
pub use xattr::SetXattr;

use crate::cache::Cache;
use crate::error::{Error, Kind, Result};
use crate::events::Wants;
use crate::fetch::Fetcher;
use crate::journal::Journal;
use crate::model::{FileKind, Ino, Name};
use crate::space::Space;
use crate::store::{Content, Node, NodeTimes, Outcome, Remembered, Rows, Store, Tx};
use crate::sys::Clock;
use handles::Handles;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// An answer that takes time.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What a verb gives back.
pub enum Answer<T> {
    /// Known at once.
    Now(Result<T>),
    /// Waits for the network or for space; dropped when its deadline passes.
    Later(Later<T>),
}

impl<T: Send + 'static> Answer<T> {
    fn later(work: impl Future<Output = Result<T>> + Send + 'static) -> Answer<T> {
        Answer::Later(Box::pin(work))
    }

    /// The answer, waiting for it if need be.
    pub async fn get(self) -> Result<T> {
        match self {
            Answer::Now(answer) => answer,
            Answer::Later(work) => work.await,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// The kernel's number of this request, for verbs that must not run twice.
    pub request: Remembered,
}

/// The settings that verbs look at.
#[derive(Clone, Debug)]
pub struct DriveSettings {
    /// Owner of everything that no program chose an owner for.
    pub uid: u32,
    pub gid: u32,
    pub read_only: bool,
    /// How old the knowledge of a version may be at open where there is no change feed.
    pub refresh: Duration,
    /// Whether a change feed reports remote changes, so that `open` need not ask.
    pub feed: bool,
    /// Names and values of one file's extended attributes together, bytes: what the remote keeps with a file. `None`: it keeps
    /// none, and they stay here.
    pub xattr_bytes_max: Option<usize>,
    /// Whether the close of what was written waits for the remote.
    pub close_waits: bool,
    /// How long a writer waits for space before ENOSPC.
    pub space_wait: Duration,
}

/// How long `stat` waits for attributes that no listing told (S3), once per file, and only while the remote answers.
const META_WAIT: Duration = Duration::from_millis(500);

/// How long `open` waits for the remote's word on the version before it goes on with the one that is known.
const CHECK_WAIT: Duration = Duration::from_secs(2);

/// The parts a drive is made of.
pub struct Parts {
    pub store: Arc<Store>,
    pub cache: Arc<Cache>,
    pub journal: Arc<Journal>,
    pub fetcher: Arc<Fetcher>,
    pub space: Arc<Space>,
    pub clock: Arc<dyn Clock>,
    pub wants: Arc<Wants>,
    pub settings: DriveSettings,
}

/// A mounted drive, as programs use it. Cheap to clone.
#[derive(Clone)]
pub struct Drive {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    handles: Handles,
}

impl Drive {
    /// A drive of these parts. `first`: the mount is new, and the kernel holds nothing of an earlier worker.
    pub fn new(parts: Parts, first: bool) -> Result<Drive> {
        let seed = parts.clock.wall_ns() as u64;
        let drive = Drive { inner: Arc::new(Inner { parts, handles: Handles::new(seed) }) };
        drive.tidy(first)?;
        Ok(drive)
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    fn now_ns(&self) -> i64 {
        self.inner.parts.clock.wall_ns()
    }

    fn writable(&self) -> Result<()> {
        if self.parts().settings.read_only {
            return Err(Error::new(Kind::ReadOnly, "the drive is mounted read-only"));
        }
        Ok(())
    }

    /// Runs a change of names once: a repeated request gets the outcome of the first run.
    fn once(&self, caller: Caller, work: impl FnOnce(&mut Tx<'_>) -> Result<Outcome>) -> Result<Outcome> {
        self.writable()?;
        if caller.request.repeated
            && let Some(outcome) = self.store().read(|rows| rows.outcome(caller.request.request))?
        {
            return Ok(outcome);
        }
        self.store().write(|tx| {
            let outcome = work(tx)?;
            tx.remember(caller.request, outcome)?;
            Ok(outcome)
        })
    }

    /// Waits until the children of `directory` are known. `NotDirectory`, or why they cannot be listed.
    async fn listed(&self, directory: Ino) -> Result<()> {
        self.parts().wants.wait(crate::events::Wish::List(directory)).await
    }

    /// Notes that a program looks into a directory: without a feed it is listed again from time to time while that goes on.
    fn note_use(&self, directory: Ino) {
        if !self.parts().settings.feed {
            self.store().opens().use_directory(directory, self.parts().clock.monotonic());
        }
    }

    fn is_listed(&self, directory: Ino) -> Result<bool> {
        let node = self.store().read(|rows| rows.node(directory))?;
        if node.kind != FileKind::Directory {
            return Err(Error::new(Kind::NotDirectory, format!("inode {directory} is no directory")));
        }
        Ok(node.listed)
    }

    /// Answers with `work` when the directory's children are known, else lists it first.
    fn in_listed<T: Send + 'static>(
        &self,
        directory: Ino,
        work: impl FnOnce(&Drive) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        self.note_use(directory);
        match self.is_listed(directory) {
            Ok(true) => Answer::Now(work(self)),
            Err(e) => Answer::Now(Err(e)),
            Ok(false) => {
                let drive = self.clone();
                Answer::later(async move {
                    drive.listed(directory).await?;
                    work(&drive)
                })
            }
        }
    }

    /// Drops a node that nothing needs any more: no name, no view of a remote, not held by the kernel.
    fn purge(&self, ino: Ino) -> Result<()> {
        if self.store().purge(ino, || self.parts().journal.discard(ino))? {
            self.parts().cache.remove(ino, None)?;
        }
        Ok(())
    }

    /// The kernel holds this inode no longer.
    pub fn forget(&self, ino: Ino) {
        if self.store().opens().release(ino)
            && let Err(e) = self.purge(ino)
        {
            tracing::warn!("forget inode {ino}: {e}");
        }
    }
}

/// Checks that `ino` is a directory that still has a place, for making names in it.
fn living_directory(rows: &Rows<'_>, ino: Ino) -> Result<Node> {
    let node = rows.node(ino)?;
    if node.kind != FileKind::Directory {
        return Err(Error::new(Kind::NotDirectory, format!("inode {ino} is no directory")));
    }
    if ino != Ino::ROOT && rows.place(ino)?.is_none() {
        return Err(Error::new(Kind::NotFound, "the directory was removed"));
    }
    Ok(node)
}

/// Notes in a directory that a name in it was made or taken away.
fn touch_directory(tx: &mut Tx<'_>, mut directory: Node, now_ns: i64) -> Result<()> {
    directory.times.mtime_ns = now_ns;
    directory.times.ctime_ns = now_ns;
    directory.mtime_set = false;
    tx.set_node(&directory)
}

/// A node as a program makes it.
fn fresh(kind: FileKind, mode: u32, caller: Caller, now_ns: i64) -> Node {
    Node {
        ino: Ino::ROOT,
        kind,
        mode: mode & 0o7777,
        uid: caller.uid,
        gid: caller.gid,
        rdev: 0,
        size: 0,
        times: NodeTimes { mtime_ns: now_ns, ctime_ns: now_ns, atime_ns: now_ns },
        content: if kind == FileKind::File { Content::Dirty } else { Content::None },
        target: None,
        xattrs: Default::default(),
        meta_known: true,
        mtime_set: false,
        listed: true,
    }
}

fn exists(name: &Name) -> Error {
    Error::new(Kind::Exists, format!("\"{name}\" exists"))
}

fn absent(name: &Name) -> Error {
    Error::new(Kind::NotFound, format!("\"{name}\" does not exist"))
}
