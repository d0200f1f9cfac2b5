//! Changing the tables, inside one transaction.

use super::node::kind_number;
use super::rows::xattrs_text;
use super::view::hash_text;
use super::{Attempt, Content, Event, Node, Outcome, Remembered, Rows, SessionRow, View, Which, failed};
use crate::error::{Error, Kind, Result};
use crate::model::{Ino, Name};
use rusqlite::{Connection, Params};
use std::collections::BTreeSet;
use std::ops::Deref;

/// How many outcomes of past requests are kept; far more than the kernel has open at once (`max_background` and the threads).
const OUTCOMES_KEPT: i64 = 8192;

/// A running transaction. Reads see its own writes.
pub struct Tx<'c> {
    rows: Rows<'c>,
    events: Vec<Event>,
    touched: BTreeSet<Ino>,
}

impl<'c> Deref for Tx<'c> {
    type Target = Rows<'c>;

    fn deref(&self) -> &Rows<'c> {
        &self.rows
    }
}

fn content_columns(content: &Content) -> (i64, Option<&str>) {
    match content {
        Content::None => (0, None),
        Content::Version(version) => (1, Some(version.as_str())),
        Content::Dirty => (2, None),
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Tx { rows: Rows::new(connection), events: Vec::new(), touched: BTreeSet::new() }
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize> {
        let mut statement = self.rows.connection.prepare_cached(sql).map_err(failed)?;
        statement.execute(params).map_err(failed)
    }

    /// Brings the list of pending work up to date; the last step of every transaction.
    pub(super) fn settle(&mut self) -> Result<()> {
        for ino in std::mem::take(&mut self.touched) {
            if self.rows.differs(ino)? {
                self.run("INSERT OR IGNORE INTO pending VALUES(?)", [ino.get() as i64])?;
                self.events.push(Event::Touched(ino));
            } else {
                self.run("DELETE FROM pending WHERE ino = ?", [ino.get() as i64])?;
                self.run("DELETE FROM failures WHERE ino = ?", [ino.get() as i64])?;
                // Both sides are equal: whatever was sent is there, or was replaced.
                self.run("DELETE FROM attempts WHERE ino = ?", [ino.get() as i64])?;
                if self.rows.is_unneeded(ino)? {
                    self.events.push(Event::Touched(ino));
                }
            }
        }
        Ok(())
    }

    /// Tells the planner to look at an inode again after the commit.
    pub fn touch(&mut self, ino: Ino) {
        self.touched.insert(ino);
    }

    /// Tells the kernel, after the commit, that a name changed; also kept for the next worker until `told`.
    pub fn tell_entry(&mut self, parent: Ino, name: &Name) -> Result<()> {
        self.run("INSERT INTO outbox(ino, name) VALUES(?, ?)", (parent.get() as i64, name.as_bytes()))?;
        self.events.push(Event::Entry { parent, name: name.clone() });
        Ok(())
    }

    /// Tells the kernel, after the commit, that content or attributes changed.
    pub fn tell_content(&mut self, ino: Ino) -> Result<()> {
        self.run("INSERT INTO outbox(ino, name) VALUES(?, NULL)", [ino.get() as i64])?;
        self.events.push(Event::Content(ino));
        Ok(())
    }

    /// Forgets what the kernel was told, up to and with number `seq`.
    pub fn told(&mut self, seq: i64) -> Result<()> {
        self.run("DELETE FROM outbox WHERE seq <= ?", [seq]).map(drop)
    }

    /// From now on new nodes get numbers above `ino`.
    pub fn number_above(&mut self, ino: Ino) -> Result<()> {
        let raw = ino.get() as i64;
        self.run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'nodes'", [raw])?;
        Ok(())
    }

    /// Makes a node; its `ino` is ignored and the new one returned. It has no name yet.
    pub fn add_node(&mut self, node: &Node) -> Result<Ino> {
        let (content, version) = content_columns(&node.content);
        self.run(
            "INSERT INTO nodes(kind, mode, uid, gid, rdev, size, mtime, ctime, atime, content, version, target, xattrs,
                               meta_known, mtime_set, listed) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rusqlite::params![
                kind_number(node.kind),
                node.mode,
                node.uid,
                node.gid,
                node.rdev,
                node.size as i64,
                node.times.mtime_ns,
                node.times.ctime_ns,
                node.times.atime_ns,
                content,
                version,
                node.target,
                xattrs_text(&node.xattrs),
                node.meta_known,
                node.mtime_set,
                node.listed,
            ],
        )?;
        let raw = self.rows.connection.last_insert_rowid() as u64;
        let ino = Ino::new(raw).ok_or_else(|| super::rows::damaged("inode number 0"))?;
        self.touched.insert(ino);
        Ok(ino)
    }

    /// Writes every field of a node.
    pub fn set_node(&mut self, node: &Node) -> Result<()> {
        let (content, version) = content_columns(&node.content);
        self.run(
            "UPDATE nodes SET kind = ?, mode = ?, uid = ?, gid = ?, rdev = ?, size = ?, mtime = ?, ctime = ?, atime = ?,
                              content = ?, version = ?, target = ?, xattrs = ?, meta_known = ?, mtime_set = ?, listed = ?
             WHERE ino = ?",
            rusqlite::params![
                kind_number(node.kind),
                node.mode,
                node.uid,
                node.gid,
                node.rdev,
                node.size as i64,
                node.times.mtime_ns,
                node.times.ctime_ns,
                node.times.atime_ns,
                content,
                version,
                node.target,
                xattrs_text(&node.xattrs),
                node.meta_known,
                node.mtime_set,
                node.listed,
                node.ino.get() as i64,
            ],
        )?;
        self.touched.insert(node.ino);
        Ok(())
    }

    /// Drops a node, its views and all that hangs on it. It must have no name.
    pub fn remove_node(&mut self, ino: Ino) -> Result<()> {
        for sql in [
            "DELETE FROM nodes WHERE ino = ?",
            "DELETE FROM views WHERE ino = ?",
            "DELETE FROM pending WHERE ino = ?",
            "DELETE FROM failures WHERE ino = ?",
            "DELETE FROM sessions WHERE ino = ?",
            "DELETE FROM attempts WHERE ino = ?",
            "DELETE FROM moves WHERE ino = ?",
            "DELETE FROM pins WHERE ino = ?",
            "DELETE FROM conflicts WHERE ino = ?",
        ] {
            self.run(sql, [ino.get() as i64])?;
        }
        self.touched.remove(&ino);
        Ok(())
    }

    /// Gives an inode a name. `Exists` where the name is taken.
    pub fn add_name(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<()> {
        let added = self.run(
            "INSERT OR IGNORE INTO names(parent, name, ino) VALUES(?, ?, ?)",
            (parent.get() as i64, name.as_bytes(), ino.get() as i64),
        )?;
        if added == 0 {
            return Err(Error::new(Kind::Exists, format!("\"{name}\" exists")));
        }
        self.touched.insert(ino);
        Ok(())
    }

    /// Takes a name away.
    pub fn remove_name(&mut self, parent: Ino, name: &Name) -> Result<()> {
        if let Some(ino) = self.rows.child(parent, name)? {
            self.touched.insert(ino);
        }
        self.run("DELETE FROM names WHERE parent = ? AND name = ?", (parent.get() as i64, name.as_bytes())).map(drop)
    }

    /// Writes one side's view, or takes it away.
    pub fn set_view(&mut self, ino: Ino, remote_no: u32, which: Which, view: Option<&View>) -> Result<()> {
        self.touched.insert(ino);
        let Some(view) = view else {
            return self
                .run(
                    "DELETE FROM views WHERE ino = ? AND remote_no = ? AND which = ?",
                    (ino.get() as i64, remote_no, which.number()),
                )
                .map(drop);
        };
        let xattrs = view.meta.xattrs.as_ref().map(|x| xattrs_text(x).unwrap_or_default());
        self.run(
            "INSERT OR REPLACE INTO views(ino, remote_no, which, kind, id, parent, name, shown, size, version, hash, mtime,
                                          mode, xattrs, server_mtime)
             VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rusqlite::params![
                ino.get() as i64,
                remote_no,
                which.number(),
                kind_number(view.kind),
                view.id,
                view.parent.get() as i64,
                view.name,
                view.shown.as_bytes(),
                view.size as i64,
                view.version.as_ref().map(|v| v.as_str()),
                view.hash.as_ref().map(hash_text),
                view.meta.mtime_ns,
                view.meta.mode,
                xattrs,
                view.server_mtime_ns,
            ],
        )
        .map(drop)
    }

    /// Gives all views of one inode to another: the name now belongs to another inode, the remote's file stays the same one.
    pub fn hand_over_views(&mut self, from: Ino, to: Ino) -> Result<()> {
        self.run("DELETE FROM views WHERE ino = ?", [to.get() as i64])?;
        self.run("UPDATE views SET ino = ? WHERE ino = ?", (to.get() as i64, from.get() as i64))?;
        self.run("DELETE FROM sessions WHERE ino IN (?, ?)", (from.get() as i64, to.get() as i64))?;
        self.run("UPDATE OR REPLACE pins SET ino = ? WHERE ino = ?", (to.get() as i64, from.get() as i64))?;
        self.touched.insert(from);
        self.touched.insert(to);
        Ok(())
    }

    /// Notes why an inode cannot be saved; `None` clears it.
    pub fn set_failure(&mut self, ino: Ino, reason: Option<&str>, at_ns: i64) -> Result<()> {
        match reason {
            Some(reason) => {
                self.run("INSERT OR REPLACE INTO failures VALUES(?, ?, ?)", (ino.get() as i64, reason, at_ns)).map(drop)
            }
            None => self.run("DELETE FROM failures WHERE ino = ?", [ino.get() as i64]).map(drop),
        }
    }

    /// Forgets why anything could not be saved.
    pub fn clear_failures(&mut self) -> Result<()> {
        self.run("DELETE FROM failures", ()).map(drop)
    }

    /// Keeps an upload session.
    pub fn set_session(&mut self, row: &SessionRow) -> Result<()> {
        let parts = serde_json::to_string(&row.parts).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
        self.run(
            "INSERT OR REPLACE INTO sessions VALUES(?, 0, ?, ?, ?, ?, ?, ?)",
            rusqlite::params![
                row.ino.get() as i64,
                row.session,
                row.generation as i64,
                row.size as i64,
                row.part_bytes as i64,
                row.place,
                parts
            ],
        )
        .map(drop)
    }

    /// Notes what is about to be sent, before it is: after a lost answer the remote may hold it. `None`: it was confirmed.
    pub fn set_attempt(&mut self, ino: Ino, sent: Option<&Attempt>) -> Result<()> {
        self.touched.insert(ino);
        match sent {
            Some(sent) => self
                .run(
                    "INSERT OR REPLACE INTO attempts VALUES(?, ?, ?, ?, ?)",
                    (ino.get() as i64, sent.parent.get() as i64, &sent.name, sent.size as i64, &sent.sha256),
                )
                .map(drop),
            None => self.run("DELETE FROM attempts WHERE ino = ?", [ino.get() as i64]).map(drop),
        }
    }

    /// Notes that an inode is being moved on the remote to a place, or (`None`) that it is known where it is.
    pub fn set_move(&mut self, ino: Ino, to: Option<(Ino, &str)>) -> Result<()> {
        self.touched.insert(ino);
        match to {
            Some((parent, name)) => {
                let values = (ino.get() as i64, parent.get() as i64, name);
                self.run("INSERT OR REPLACE INTO moves VALUES(?, ?, ?)", values).map(drop)
            }
            None => self.run("DELETE FROM moves WHERE ino = ?", [ino.get() as i64]).map(drop),
        }
    }

    /// Drops an upload session.
    pub fn remove_session(&mut self, ino: Ino) -> Result<()> {
        self.run("DELETE FROM sessions WHERE ino = ?", [ino.get() as i64]).map(drop)
    }

    /// Pins or unpins an inode.
    pub fn set_pin(&mut self, ino: Ino, pinned: bool) -> Result<()> {
        let sql = if pinned { "INSERT OR IGNORE INTO pins VALUES(?)" } else { "DELETE FROM pins WHERE ino = ?" };
        self.run(sql, [ino.get() as i64]).map(drop)
    }

    /// Lists an inode as a conflict copy of what was called `original`.
    pub fn add_conflict(&mut self, ino: Ino, original: &[u8], at_ns: i64) -> Result<()> {
        self.run("INSERT OR REPLACE INTO conflicts VALUES(?, ?, ?)", (ino.get() as i64, original, at_ns)).map(drop)
    }

    /// Keeps a small fact.
    pub fn set_fact(&mut self, key: &str, value: &str) -> Result<()> {
        self.run("INSERT OR REPLACE INTO facts VALUES(?, ?)", (key, value)).map(drop)
    }

    /// Marks every directory as wholly known: a sweep has ended.
    pub fn set_all_listed(&mut self) -> Result<()> {
        self.run("UPDATE nodes SET listed = 1 WHERE kind = 1 AND listed = 0", []).map(drop)
    }

    /// Keeps how a request ended, so that a repetition gets the same answer.
    pub fn remember(&mut self, request: Remembered, outcome: Outcome) -> Result<()> {
        let text = serde_json::to_string(&outcome).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
        let number = request.request as i64;
        self.run("INSERT OR REPLACE INTO outcomes VALUES(?, ?)", (number, text))?;
        if request.request % 512 < 2 {
            self.run("DELETE FROM outcomes WHERE request < ? OR request > ?", (number - OUTCOMES_KEPT, number))?;
        }
        Ok(())
    }

    /// Forgets all outcomes: a new mount counts its requests anew.
    pub fn forget_outcomes(&mut self) -> Result<()> {
        self.run("DELETE FROM outcomes", []).map(drop)
    }
}
