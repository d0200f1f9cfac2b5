//! Reading the tables.

use super::node::kind_of;
use super::view::hash_of;
use super::{Content, Failure, Node, NodeTimes, Outcome, PartRow, SessionRow, View, Which, failed};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Meta, Name, RemotePath, Version};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use std::collections::BTreeMap;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Grows with each name that is made; a listing goes on after the last one it gave. 1 or more.
    pub cookie: u64,
    pub name: Name,
    pub ino: Ino,
    pub kind: FileKind,
}

/// A consistent view of the tables.
pub struct Rows<'c> {
    pub(super) connection: &'c Connection,
}

const NODE: &str = "ino, kind, mode, uid, gid, rdev, size, mtime, ctime, atime, content, version, target, xattrs, \
                    meta_known, mtime_set, listed";
const VIEW: &str = "kind, id, parent, name, shown, size, version, hash, mtime, mode, xattrs, server_mtime";

pub(super) fn damaged(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("drive.db: {what}; run \"fourwheel check\""))
}

pub(super) fn ino_of(raw: i64) -> rusqlite::Result<Ino> {
    Ino::new(raw as u64).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, raw))
}

fn bad(index: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, what.into())
}

pub(super) fn xattrs_text(xattrs: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    use base64::Engine;
    if xattrs.is_empty() {
        return None;
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let text: BTreeMap<&str, String> = xattrs.iter().map(|(k, v)| (k.as_str(), engine.encode(v))).collect();
    serde_json::to_string(&text).ok()
}

fn xattrs_of(text: Option<String>, index: usize) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    use base64::Engine;
    let Some(text) = text else { return Ok(BTreeMap::new()) };
    let engine = base64::engine::general_purpose::STANDARD;
    let parsed: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| bad(index, "xattrs"))?;
    parsed.into_iter().map(|(k, v)| Ok((k, engine.decode(v).map_err(|_| bad(index, "xattrs"))?))).collect()
}

fn name_of(bytes: Vec<u8>, index: usize) -> rusqlite::Result<Name> {
    Name::new(&bytes).map_err(|_| bad(index, "name"))
}

fn node_of(row: &Row<'_>) -> rusqlite::Result<Node> {
    let version: Option<String> = row.get(11)?;
    let content = match (row.get::<_, i64>(10)?, version) {
        (0, _) => Content::None,
        (1, Some(version)) => Content::Version(Version(version)),
        (2, _) => Content::Dirty,
        _ => return Err(bad(10, "content")),
    };
    Ok(Node {
        ino: ino_of(row.get(0)?)?,
        kind: kind_of(row.get(1)?).ok_or_else(|| bad(1, "kind"))?,
        mode: row.get(2)?,
        uid: row.get(3)?,
        gid: row.get(4)?,
        rdev: row.get(5)?,
        size: row.get::<_, i64>(6)? as u64,
        times: NodeTimes { mtime_ns: row.get(7)?, ctime_ns: row.get(8)?, atime_ns: row.get(9)? },
        content,
        target: row.get(12)?,
        xattrs: xattrs_of(row.get(13)?, 13)?,
        meta_known: row.get(14)?,
        mtime_set: row.get(15)?,
        listed: row.get(16)?,
    })
}

fn view_of(row: &Row<'_>) -> rusqlite::Result<View> {
    let xattrs: Option<String> = row.get(10)?;
    let xattrs = match xattrs {
        None => None,
        Some(text) if text.is_empty() => Some(BTreeMap::new()),
        some => Some(xattrs_of(some, 10)?),
    };
    Ok(View {
        kind: kind_of(row.get(0)?).ok_or_else(|| bad(0, "kind"))?,
        id: row.get(1)?,
        parent: ino_of(row.get(2)?)?,
        name: row.get(3)?,
        shown: name_of(row.get(4)?, 4)?,
        size: row.get::<_, i64>(5)? as u64,
        version: row.get::<_, Option<String>>(6)?.map(Version),
        hash: row.get::<_, Option<String>>(7)?.and_then(|text| hash_of(&text)),
        meta: Meta { mtime_ns: row.get(8)?, mode: row.get(9)?, xattrs },
        server_mtime_ns: row.get(11)?,
    })
}

impl<'c> Rows<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Rows { connection }
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row(params, read).optional().map_err(failed)
    }

    pub(super) fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_map(params, read).and_then(|rows| rows.collect()).map_err(failed)
    }

    pub(super) fn count(&self, sql: &str, params: impl Params) -> Result<u64> {
        Ok(self.one(sql, params, |row| row.get::<_, i64>(0))?.unwrap_or(0) as u64)
    }

    /// The node, or `Stale` where no such inode exists any more.
    pub fn node(&self, ino: Ino) -> Result<Node> {
        self.find_node(ino)?.ok_or_else(|| Error::new(Kind::Stale, format!("inode {ino} is gone")))
    }

    /// The node, if there is one.
    pub fn find_node(&self, ino: Ino) -> Result<Option<Node>> {
        self.one(&format!("SELECT {NODE} FROM nodes WHERE ino = ?"), [ino.get() as i64], node_of)
    }

    /// The inode that a name leads to.
    pub fn child(&self, parent: Ino, name: &Name) -> Result<Option<Ino>> {
        self.one("SELECT ino FROM names WHERE parent = ? AND name = ?", (parent.get() as i64, name.as_bytes()), |row| {
            ino_of(row.get(0)?)
        })
    }

    /// The node that a name leads to.
    pub fn lookup(&self, parent: Ino, name: &Name) -> Result<Option<Node>> {
        self.one(
            &format!("SELECT {NODE} FROM nodes WHERE ino = (SELECT ino FROM names WHERE parent = ? AND name = ?)"),
            (parent.get() as i64, name.as_bytes()),
            node_of,
        )
    }

    /// Where an inode is on the mount; `None` for the root and for what was deleted. (Hard links are refused, so one name at most.)
    pub fn place(&self, ino: Ino) -> Result<Option<(Ino, Name)>> {
        self.one("SELECT parent, name FROM names WHERE ino = ? LIMIT 1", [ino.get() as i64], |row| {
            Ok((ino_of(row.get(0)?)?, name_of(row.get(1)?, 1)?))
        })
    }

    /// Up to `limit` entries of a directory whose cookie is above `after`, in the order of their cookies.
    pub fn entries(&self, parent: Ino, after: u64, limit: usize) -> Result<Vec<DirectoryEntry>> {
        self.many(
            "SELECT names.cookie, names.name, names.ino, nodes.kind FROM names JOIN nodes ON nodes.ino = names.ino
             WHERE parent = ? AND cookie > ? ORDER BY cookie LIMIT ?",
            (parent.get() as i64, after as i64, limit as i64),
            |row| {
                Ok(DirectoryEntry {
                    cookie: row.get::<_, i64>(0)? as u64,
                    name: name_of(row.get(1)?, 1)?,
                    ino: ino_of(row.get(2)?)?,
                    kind: kind_of(row.get(3)?).ok_or_else(|| bad(3, "kind"))?,
                })
            },
        )
    }

    /// The same with the nodes.
    pub fn entries_with_nodes(&self, parent: Ino, after: u64, limit: usize) -> Result<Vec<(u64, Name, Node)>> {
        let columns: Vec<String> = NODE.split(", ").map(|c| format!("nodes.{}", c.trim())).collect();
        self.many(
            &format!(
                "SELECT {}, names.cookie, names.name FROM names JOIN nodes ON nodes.ino = names.ino
                 WHERE parent = ? AND cookie > ? ORDER BY cookie LIMIT ?",
                columns.join(", ")
            ),
            (parent.get() as i64, after as i64, limit as i64),
            |row| Ok((row.get::<_, i64>(17)? as u64, name_of(row.get(18)?, 18)?, node_of(row)?)),
        )
    }

    /// Whether a directory shows nothing.
    pub fn is_empty(&self, parent: Ino) -> Result<bool> {
        Ok(self.count("SELECT EXISTS(SELECT 1 FROM names WHERE parent = ?)", [parent.get() as i64])? == 0)
    }

    /// The path on the mount, from its root, without a leading slash; `None` for what was deleted.
    pub fn path(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        let mut parts: Vec<Name> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let Some((parent, name)) = self.place(at)? else { return Ok(None) };
            parts.push(name);
            at = parent;
            if parts.len() > 4096 {
                return Err(damaged("a directory is inside itself"));
            }
        }
        let mut path = Vec::new();
        for name in parts.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        Ok(Some(path))
    }

    /// Whether `ino` is `ancestor` or lies below it on the mount.
    pub fn is_within(&self, ino: Ino, ancestor: Ino) -> Result<bool> {
        let mut at = ino;
        loop {
            if at == ancestor {
                return Ok(true);
            }
            match self.place(at)? {
                Some((parent, _)) => at = parent,
                None => return Ok(false),
            }
        }
    }

    /// One side's view.
    pub fn view(&self, ino: Ino, remote_no: u32, which: Which) -> Result<Option<View>> {
        self.one(
            &format!("SELECT {VIEW} FROM views WHERE ino = ? AND remote_no = ? AND which = ?"),
            (ino.get() as i64, remote_no, which.number()),
            view_of,
        )
    }

    /// The inode that the remote has at this place.
    pub fn remote_child(&self, remote_no: u32, parent: Ino, name: &str) -> Result<Option<Ino>> {
        self.one(
            "SELECT ino FROM views WHERE remote_no = ? AND which = 0 AND parent = ? AND name = ?",
            (remote_no, parent.get() as i64, name),
            |row| ino_of(row.get(0)?),
        )
    }

    /// All inodes that the remote has, or had, in a directory under this very name.
    pub fn remote_namesakes(&self, remote_no: u32, parent: Ino, name: &str) -> Result<Vec<Ino>> {
        self.many(
            "SELECT ino FROM views WHERE remote_no = ? AND which = 0 AND parent = ? AND name = ? ORDER BY ino",
            (remote_no, parent.get() as i64, name),
            |row| ino_of(row.get(0)?),
        )
    }

    /// The inode with this stable id.
    pub fn by_id(&self, remote_no: u32, id: &str) -> Result<Option<Ino>> {
        self.one("SELECT ino FROM views WHERE remote_no = ? AND id = ? AND which = 0", (remote_no, id), |row| {
            ino_of(row.get(0)?)
        })
    }

    /// Every inode that the remote has directly in a directory, with its name there.
    pub fn remote_children(&self, remote_no: u32, parent: Ino) -> Result<Vec<(Ino, String)>> {
        self.many(
            "SELECT ino, name FROM views WHERE remote_no = ? AND which = 0 AND parent = ? ORDER BY name",
            (remote_no, parent.get() as i64),
            |row| Ok((ino_of(row.get(0)?)?, row.get(1)?)),
        )
    }

    /// Whether the remote, or the base, has anything in a directory.
    pub fn has_view_children(&self, remote_no: u32, parent: Ino) -> Result<bool> {
        let sql = "SELECT EXISTS(SELECT 1 FROM views WHERE remote_no = ?1 AND which = 0 AND parent = ?2)
                   OR EXISTS(SELECT 1 FROM views WHERE remote_no = ?1 AND which = 1 AND parent = ?2)";
        Ok(self.count(sql, (remote_no, parent.get() as i64))? != 0)
    }

    /// Every inode of which the remote has something, for what a sweep no longer finds.
    pub fn remote_inodes(&self, remote_no: u32) -> Result<Vec<Ino>> {
        self.many("SELECT ino FROM views WHERE remote_no = ? AND which = 0", [remote_no], |row| ino_of(row.get(0)?))
    }

    /// How many inodes the remote has.
    pub fn remote_count(&self, remote_no: u32) -> Result<u64> {
        self.count("SELECT count(*) FROM views WHERE remote_no = ? AND which = 0", [remote_no])
    }

    /// The path on the remote of a directory or file, by the remote's own view. `None`: the remote does not have it.
    pub fn remote_path(&self, remote_no: u32, ino: Ino) -> Result<Option<RemotePath>> {
        let mut parts: Vec<String> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let Some(view) = self.view(at, remote_no, Which::Remote)? else { return Ok(None) };
            parts.push(view.name);
            at = view.parent;
            if parts.len() > 4096 {
                return Err(damaged("a remote directory is inside itself"));
            }
        }
        parts.reverse();
        Ok(Some(RemotePath::new(&parts.join("/"))))
    }

    /// The inode at a path on the remote; `None` where the remote has, as far as we know, nothing there.
    pub fn at_remote_path(&self, remote_no: u32, path: &RemotePath) -> Result<Option<Ino>> {
        let mut at = Ino::ROOT;
        for part in path.parts() {
            match self.remote_child(remote_no, at, part)? {
                Some(ino) => at = ino,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The inodes that the planner must look at, oldest first, at most `limit` above `after`.
    pub fn pending(&self, after: u64, limit: usize) -> Result<Vec<Ino>> {
        self.many("SELECT ino FROM pending WHERE ino > ? ORDER BY ino LIMIT ?", (after as i64, limit as i64), |row| {
            ino_of(row.get(0)?)
        })
    }

    /// Whether the planner must look at this inode.
    pub fn is_pending(&self, ino: Ino) -> Result<bool> {
        Ok(self.count("SELECT EXISTS(SELECT 1 FROM pending WHERE ino = ?)", [ino.get() as i64])? != 0)
    }

    /// Whether something directly in a directory waits to be saved.
    pub fn has_pending_children(&self, directory: Ino) -> Result<bool> {
        let sql = "SELECT EXISTS(SELECT 1 FROM pending JOIN names ON names.ino = pending.ino WHERE names.parent = ?1)
                   OR EXISTS(SELECT 1 FROM pending JOIN views ON views.ino = pending.ino WHERE views.parent = ?1)";
        Ok(self.count(sql, [directory.get() as i64])? != 0)
    }

    /// What could not be saved, and why.
    pub fn failures(&self) -> Result<Vec<Failure>> {
        self.many("SELECT ino, reason, at FROM failures ORDER BY ino", [], |row| {
            Ok(Failure { ino: ino_of(row.get(0)?)?, reason: row.get(1)?, at_ns: row.get(2)? })
        })
    }

    /// Why this inode could not be saved.
    pub fn failure(&self, ino: Ino) -> Result<Option<String>> {
        self.one("SELECT reason FROM failures WHERE ino = ?", [ino.get() as i64], |row| row.get(0))
    }

    /// The upload session of an inode.
    pub fn session(&self, ino: Ino) -> Result<Option<SessionRow>> {
        self.one(
            "SELECT session, generation, size, part_bytes, place, parts FROM sessions WHERE ino = ?",
            [ino.get() as i64],
            |row| {
                let parts: String = row.get(5)?;
                Ok(SessionRow {
                    ino,
                    session: row.get(0)?,
                    generation: row.get::<_, i64>(1)? as u64,
                    size: row.get::<_, i64>(2)? as u64,
                    part_bytes: row.get::<_, i64>(3)? as u64,
                    place: row.get(4)?,
                    parts: serde_json::from_str::<Vec<PartRow>>(&parts).map_err(|_| bad(5, "parts"))?,
                })
            },
        )
    }

    /// Inodes with an upload session.
    pub fn session_inodes(&self) -> Result<Vec<Ino>> {
        self.many("SELECT ino FROM sessions", [], |row| ino_of(row.get(0)?))
    }

    /// The pinned inodes.
    pub fn pins(&self) -> Result<Vec<Ino>> {
        self.many("SELECT ino FROM pins ORDER BY ino", [], |row| ino_of(row.get(0)?))
    }

    /// Conflict copies that still exist: inode, the name it had, when (nanoseconds since 1970).
    pub fn conflicts(&self) -> Result<Vec<(Ino, Vec<u8>, i64)>> {
        self.many(
            "SELECT ino, original, at FROM conflicts WHERE ino IN (SELECT ino FROM names) ORDER BY at",
            [],
            |row| Ok((ino_of(row.get(0)?)?, row.get(1)?, row.get(2)?)),
        )
    }

    /// Whether an inode is a conflict copy.
    pub fn is_conflict(&self, ino: Ino) -> Result<bool> {
        Ok(self.count("SELECT EXISTS(SELECT 1 FROM conflicts WHERE ino = ?)", [ino.get() as i64])? != 0)
    }

    /// A small fact kept by name (cursor, probe results, times).
    pub fn fact(&self, key: &str) -> Result<Option<String>> {
        self.one("SELECT value FROM facts WHERE key = ?", [key], |row| row.get(0))
    }

    /// How a request ended, if it was done and must not be done again.
    pub fn outcome(&self, request: u64) -> Result<Option<Outcome>> {
        let text: Option<String> =
            self.one("SELECT outcome FROM outcomes WHERE request = ?", [request as i64], |row| row.get(0))?;
        text.map(|text| serde_json::from_str(&text).map_err(|_| damaged("an outcome does not parse"))).transpose()
    }

    /// What the kernel was not yet told of, oldest first: number, inode, and the name in it (or none: its content).
    pub fn outbox(&self) -> Result<Vec<(i64, Ino, Option<Name>)>> {
        self.many("SELECT seq, ino, name FROM outbox ORDER BY seq", [], |row| {
            let name: Option<Vec<u8>> = row.get(2)?;
            Ok((row.get(0)?, ino_of(row.get(1)?)?, name.map(|n| name_of(n, 2)).transpose()?))
        })
    }

    /// Inodes without a name: deleted here, perhaps open, perhaps still on the remote.
    pub fn nameless(&self) -> Result<Vec<Ino>> {
        self.many(
            "SELECT ino FROM nodes WHERE ino != 1 AND NOT EXISTS(SELECT 1 FROM names WHERE names.ino = nodes.ino)",
            [],
            |row| ino_of(row.get(0)?),
        )
    }

    /// Named files whose bytes are in the journal.
    pub fn dirty(&self) -> Result<Vec<Ino>> {
        self.many(
            "SELECT ino FROM nodes WHERE content = 2 AND EXISTS(SELECT 1 FROM names WHERE names.ino = nodes.ino)",
            [],
            |row| ino_of(row.get(0)?),
        )
    }

    /// Named inodes whose attributes only a `stat` of the remote tells, at most `limit` above `after`.
    pub fn meta_unknown(&self, after: u64, limit: usize) -> Result<Vec<Ino>> {
        self.many(
            "SELECT ino FROM nodes WHERE meta_known = 0 AND ino > ? ORDER BY ino LIMIT ?",
            (after as i64, limit as i64),
            |row| ino_of(row.get(0)?),
        )
    }

    /// Directories whose children are not all known, at most `limit` above `after`.
    pub fn unlisted(&self, after: u64, limit: usize) -> Result<Vec<Ino>> {
        self.many(
            "SELECT ino FROM nodes WHERE kind = 1 AND listed = 0 AND ino > ? ORDER BY ino LIMIT ?",
            (after as i64, limit as i64),
            |row| ino_of(row.get(0)?),
        )
    }

    /// Numbers for `statfs`: how many inodes, and how many bytes in files.
    pub fn totals(&self) -> Result<(u64, u64)> {
        let read =
            |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Option<i64>>(1)?.unwrap_or(0) as u64));
        Ok(self.one("SELECT count(*), sum(size) FROM nodes WHERE kind = 0", [], read)?.unwrap_or((0, 0)))
    }

    /// Whether nothing but the kernel can need this inode: it has no name, and no remote has it.
    pub(super) fn is_unneeded(&self, ino: Ino) -> Result<bool> {
        let sql = "SELECT EXISTS(SELECT 1 FROM nodes WHERE ino = ?1 AND ino != 1)
                   AND NOT EXISTS(SELECT 1 FROM names WHERE ino = ?1) AND NOT EXISTS(SELECT 1 FROM views WHERE ino = ?1)";
        Ok(self.count(sql, [ino.get() as i64])? != 0)
    }

    /// Whether the three views of an inode differ, so that the planner has something to do.
    pub(super) fn differs(&self, ino: Ino) -> Result<bool> {
        if ino == Ino::ROOT {
            return Ok(false);
        }
        let Some(node) = self.find_node(ino)? else { return Ok(false) };
        if self.moving(ino)?.is_some() {
            return Ok(true);
        }
        let base = self.view(ino, 0, Which::Base)?;
        let remote = self.view(ino, 0, Which::Remote)?;
        let Some((parent, name)) = self.place(ino)? else {
            return Ok(base.is_some() || remote.is_some() || self.attempt(ino)?.is_some());
        };
        if !node.is_syncable() {
            return Ok(false);
        }
        let (Some(base), Some(remote)) = (base, remote) else { return Ok(true) };
        let content = match &node.content {
            Content::Dirty => true,
            Content::Version(version) => base.version.as_ref() != Some(version),
            Content::None => false,
        };
        Ok(content
            || !remote.same_place(&base)
            || !remote.same_content(&base)
            || parent != base.parent
            || name != base.shown
            || node.meta_differs(&base.meta)
            || node.time_is_moved(&remote.meta))
    }
}
