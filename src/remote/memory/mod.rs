//! The contract as a program: an account in memory, able to do exactly what its [`Capabilities`] say.
//!
//! For tests and the simulation: it is deterministic, and a foreign editor is simply another user of the same `Arc`. Where a
//! condition is not the server's to obey, the look and the write are two steps with a yield between them, so that a
//! simulation can put somebody else's write there.

mod remote;
mod tree;
mod upload;

use crate::error::Result;
use crate::model::{FileKind, Meta, RemotePath};
use crate::remote::{Capabilities, ChangeFeed, MetaSupport, NameRules, Place, RenameDir, UploadSessions};
use crate::sys::Clock;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tree::{Fresh, Tree};

/// An account in memory.
pub struct Memory {
    capabilities: Capabilities,
    clock: Arc<dyn Clock>,
    tree: Mutex<Tree>,
    changed: Notify,
    page_entries: usize,
}

/// An account that can do everything, as a starting point: `Capabilities { stable_ids: false, ..everything() }`.
pub fn everything() -> Capabilities {
    Capabilities {
        stable_ids: true,
        case_sensitive: true,
        names: NameRules {
            forbidden: "",
            no_control: false,
            no_trailing_dot_space: false,
            no_leading_dot: false,
            name_bytes_max: 1024,
            path_bytes_max: 16_384,
            any_bytes: false,
        },
        whole_tree: true,
        list_parallel: 8,
        changes: ChangeFeed::Cursor,
        read_pinned: true,
        conditional_create: true,
        conditional_replace: true,
        conditional_remove: true,
        put_bytes_max: u64::MAX,
        session_from_bytes: 64 << 10,
        sessions: Some(UploadSessions {
            part_bytes_min: 4 << 10,
            part_bytes_max: 16 << 20,
            parts_max: 10_000,
            parallel: true,
            part_copy: true,
        }),
        rename_dir: RenameDir::Server,
        rename_replaces: true,
        copy: true,
        symlinks: true,
        meta: MetaSupport {
            with_upload: true,
            alone: true,
            directories: true,
            mtime_step_ns: 1,
            mode: true,
            xattr_bytes_max: 64 << 10,
            in_listing: true,
        },
        quota: true,
        directories: true,
        flat_keys: false,
    }
}

/// An account that can do as little as the contract allows.
pub fn nothing() -> Capabilities {
    Capabilities {
        stable_ids: false,
        case_sensitive: false,
        names: NameRules {
            forbidden: "\"*:<>?\\|",
            no_control: true,
            no_trailing_dot_space: true,
            no_leading_dot: false,
            name_bytes_max: 255,
            path_bytes_max: 4096,
            any_bytes: false,
        },
        whole_tree: false,
        list_parallel: 1,
        changes: ChangeFeed::None,
        read_pinned: false,
        conditional_create: false,
        conditional_replace: false,
        conditional_remove: false,
        put_bytes_max: u64::MAX,
        session_from_bytes: u64::MAX,
        sessions: None,
        rename_dir: RenameDir::PerObject,
        rename_replaces: false,
        copy: false,
        symlinks: false,
        meta: MetaSupport::default(),
        quota: false,
        directories: true,
        flat_keys: false,
    }
}

impl Memory {
    /// An empty account with these abilities, stating sha256 hashes, without a bound.
    pub fn new(capabilities: Capabilities, clock: Arc<dyn Clock>) -> Self {
        let tree = Mutex::new(Tree::new(capabilities.clone()));
        Memory { capabilities, clock, tree, changed: Notify::new(), page_entries: 1000 }
    }

    /// States no hashes.
    pub fn without_hashes(self) -> Self {
        self.lock().hashes = false;
        self
    }

    /// Gives at most `entries` a page of `list` and `sweep`.
    pub fn with_page(self, entries: usize) -> Self {
        Memory { page_entries: entries.max(1), ..self }
    }

    /// Bounds the account; `None` lifts the bound.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.lock().quota_bytes = bytes;
    }

    /// Makes the account forget every cursor given so far.
    pub fn expire_cursors(&self) {
        self.lock().feed.expire();
        self.changed.notify_waiters();
    }

    /// Makes the account forget every upload session.
    pub fn expire_sessions(&self) {
        self.lock().uploads.expire();
    }

    /// Every file with its content, by path.
    pub fn files(&self) -> BTreeMap<String, Bytes> {
        let tree = self.lock();
        let files = tree.all().filter(|node| node.kind == FileKind::File);
        files.map(|node| (node.path().as_str().to_owned(), node.content.clone())).collect()
    }

    /// Every path below the root, with what is there.
    pub fn paths(&self) -> BTreeMap<String, FileKind> {
        self.lock().all().map(|node| (node.path().as_str().to_owned(), node.kind)).collect()
    }

    /// A foreign editor's write in one step, unconditional.
    pub fn write_file(&self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        let place = Place::at(RemotePath::new(path));
        let fresh = self.fresh(FileKind::File, content.into(), Meta::default());
        self.lock().write(&place, fresh)?;
        self.changed.notify_waiters();
        Ok(())
    }

    fn fresh(&self, kind: FileKind, content: Bytes, meta: Meta) -> Fresh {
        Fresh { kind, content, meta, now_ns: self.clock.wall_ns() }
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
