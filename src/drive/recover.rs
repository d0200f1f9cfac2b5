//! At a worker's start: the store, the journal and the cache are brought together after whatever ended the last one.

use super::Drive;
use crate::error::Result;
use crate::journal::{Base, Found, Journal, Staged};
use crate::model::{FileKind, Ino, Name};
use crate::store::{Content, Node, NodeTimes, Store, Tx, Which};
use crate::sys::Disk;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// What recovery found and did; for the log and `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Dirty files that go on waiting for their upload.
    pub resumed: u64,
    /// Files that nobody could match, now in `lost+found`.
    pub put_aside: u64,
    /// Journal files whose upload was confirmed already.
    pub finished: u64,
    /// Files whose row says that bytes wait, and whose bytes are gone.
    pub lost: u64,
}

/// Compares the journal with the rows. Call before a [`Drive`] is made.
pub fn recover(store: &Store, journal: &Journal, disk: &dyn Disk, power_lost: bool, now_ns: i64) -> Result<Recovered> {
    let mut result = Recovered::default();
    let mut set_aside = HashSet::new();
    let found = journal.recover(power_lost)?;
    if let Some(highest) = found.iter().filter_map(Found::ino).max() {
        // Rows may be lost, and their numbers be free: what is put aside must not take the place of a file that is still here.
        store.write(|tx| tx.number_above(highest))?;
    }
    for found in found {
        match found {
            Found::Staged(staged) => match_one(store, journal, &staged, now_ns, &mut result)?,
            Found::Unknown { ino, path, size, nothing_synced } => {
                let known = match ino {
                    Some(ino) => store.read(|rows| rows.find_node(ino))?,
                    None => None,
                };
                if known.is_some_and(|node| node.content != Content::Dirty) || size == 0 || nothing_synced {
                    // Staged, but its row or its header was never written: nothing in it was acknowledged.
                    let _ = disk.remove(&path);
                } else {
                    set_unknown_aside(disk, &path)?;
                    result.put_aside += 1;
                    set_aside.extend(ino);
                }
            }
        }
    }
    for ino in store.read(|rows| rows.dirty())? {
        let node = store.read(|rows| rows.node(ino))?;
        if journal.get(ino).is_none() && node.size > 0 {
            result.lost += 1;
            let damaged = set_aside.contains(&ino);
            store.write(|tx| match power_lost && !damaged {
                true => forget_bytes(tx, node),
                // Not what a power cut does: somebody must be told.
                false => tx.set_failure(ino, Some("its bytes are gone from the journal; nothing was sent"), now_ns),
            })?;
        }
    }
    Ok(result)
}

/// A row that says that bytes wait, and no journal file, after a power cut: power went before they were on its disk, and no fsync was
/// answered (that syncs the journal before the row). As on a local disk, the file is there with what is known to be stored:
/// what the remote has, or nothing.
fn forget_bytes(tx: &mut Tx<'_>, mut node: Node) -> Result<()> {
    let agreed = tx.view(node.ino, 0, Which::Base)?;
    tracing::warn!(
        "\"{}\": {} bytes that no fsync was answered for went with the power; the file has what was saved before",
        String::from_utf8_lossy(&tx.path(node.ino)?.unwrap_or_default()),
        node.size
    );
    match agreed.as_ref().and_then(|view| view.version.clone().map(|version| (version, view))) {
        Some((version, view)) => {
            node.content = Content::Version(version);
            node.size = view.size;
            node.times.mtime_ns = view.meta.mtime_ns.unwrap_or(node.times.mtime_ns);
        }
        None => node.size = 0,
    }
    tx.set_node(&node)?;
    tx.set_failure(node.ino, None, 0)
}

fn set_unknown_aside(disk: &dyn Disk, path: &Path) -> Result<()> {
    use crate::error::Context;
    let name = path.file_name().unwrap_or_default();
    let aside = path.parent().unwrap_or(path).join("lost+found");
    disk.make_dirs(&aside).context("make lost+found")?;
    disk.rename(path, &aside.join(name)).context("put a journal file aside")
}

fn match_one(
    store: &Store,
    journal: &Journal,
    staged: &Arc<Staged>,
    now_ns: i64,
    result: &mut Recovered,
) -> Result<()> {
    let ino = staged.ino();
    let (size, mtime_ns) = staged.size_and_mtime();
    let base = staged.header().base;
    let row = store.read(|rows| rows.find_node(ino))?;
    match row {
        Some(node) if node.kind == FileKind::File && node.content == Content::Dirty => {
            result.resumed += 1;
            store.write(|tx| bring_up_to_date(tx, ino, size, mtime_ns))
        }
        Some(node) if node.kind == FileKind::File && same_version(&node, base.as_ref()) => {
            // Staged, and the row that says so is missing: what a program may have been told is kept.
            result.resumed += 1;
            store.write(|tx| {
                bring_up_to_date(tx, ino, size, mtime_ns)?;
                let mut node = tx.node(ino)?;
                node.content = Content::Dirty;
                tx.set_node(&node)
            })
        }
        Some(node) if node.kind == FileKind::File => {
            result.finished += 1;
            journal.discard(ino)
        }
        _ => {
            result.put_aside += 1;
            adopt(store, journal, staged, now_ns)
        }
    }
}

fn same_version(node: &Node, base: Option<&Base>) -> bool {
    matches!((&node.content, base), (Content::Version(version), Some(base)) if version.as_str() == base.version)
}

fn bring_up_to_date(tx: &mut Tx<'_>, ino: Ino, size: u64, mtime_ns: i64) -> Result<()> {
    let mut node = tx.node(ino)?;
    node.size = size;
    node.times.mtime_ns = mtime_ns;
    tx.set_node(&node)
}

/// The database knows nothing of this file: it is shown in `lost+found` of the mount, under its old path's last part.
fn adopt(store: &Store, journal: &Journal, staged: &Arc<Staged>, now_ns: i64) -> Result<()> {
    let path = staged.header().path_bytes();
    let last = path.rsplit(|b| *b == b'/').next().unwrap_or(b"file").to_vec();
    let (size, mtime_ns) = staged.size_and_mtime();
    let old = staged.ino();
    let plain = |kind, content| Node {
        ino: Ino::ROOT,
        kind,
        mode: if kind == FileKind::Directory { 0o755 } else { 0o644 },
        uid: u32::MAX,
        gid: u32::MAX,
        rdev: 0,
        size: 0,
        times: NodeTimes { mtime_ns: now_ns, ctime_ns: now_ns, atime_ns: now_ns },
        content,
        target: None,
        xattrs: Default::default(),
        meta_known: true,
        mtime_set: false,
        listed: true,
    };
    let ino = store.write(|tx| {
        let aside = Name::new(b"lost+found")?;
        let directory = match tx.child(Ino::ROOT, &aside)? {
            Some(there) => there,
            None => {
                let made = tx.add_node(&plain(FileKind::Directory, Content::None))?;
                tx.add_name(Ino::ROOT, &aside, made)?;
                made
            }
        };
        let mut node = plain(FileKind::File, Content::Dirty);
        node.size = size;
        node.times.mtime_ns = mtime_ns;
        let ino = tx.add_node(&node)?;
        let wished = Name::new(&last).or_else(|_| Name::new(b"file"))?;
        let name = match tx.child(directory, &wished)? {
            None => wished,
            Some(_) => Name::new(format!("recovered {old} {ino}").as_bytes())?,
        };
        tx.add_name(directory, &name, ino)?;
        Ok(ino)
    })?;
    journal.renumber(staged, ino)
}

impl Drive {
    /// Drops what nothing can reach any more; for a new mount also what only an earlier mount's programs held open.
    pub(super) fn tidy(&self, first: bool) -> Result<()> {
        for ino in self.store().read(|rows| rows.nameless())? {
            if first {
                self.purge(ino)?;
            } else {
                self.store().opens().hold(ino);
            }
        }
        if first {
            self.store().write(|tx| tx.forget_outcomes())?;
        }
        Ok(())
    }

    /// Brings sizes and times of files that are being written to their rows; every few seconds.
    pub fn settle_rows(&self) {
        for staged in self.parts().journal.changed() {
            if let Err(e) = self.bring_row_up_to_date(staged.ino()) {
                tracing::warn!("row of inode {}: {e}", staged.ino());
            }
        }
    }
}
