//! Calls that nothing was heard of: what was sent, and what was moved.

use super::rows::ino_of;
use super::{Rows, Which};
use crate::error::Result;
use crate::model::{Ino, Name};

/// Content (or a directory, a link) on its way to a place. After a lost answer the remote may hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The directory that it was sent to.
    pub parent: Ino,
    /// The name on the remote.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of the content; empty where it is not known.
    pub sha256: Vec<u8>,
}

impl Attempt {
    /// One without content.
    pub fn at(parent: Ino, name: &str) -> Self {
        Attempt { parent, name: name.to_owned(), size: 0, sha256: Vec::new() }
    }
}

fn attempt_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Attempt> {
    let size = row.get::<_, i64>(2)? as u64;
    Ok(Attempt { parent: ino_of(row.get(0)?)?, name: row.get(1)?, size, sha256: row.get(3)? })
}

impl Rows<'_> {
    /// What was last sent and not confirmed.
    pub fn attempt(&self, ino: Ino) -> Result<Option<Attempt>> {
        self.one("SELECT parent, name, size, sha256 FROM attempts WHERE ino = ?", [ino.get() as i64], attempt_of)
    }

    /// The inodes that were sent to a place and not heard of since.
    pub fn attempted_at(&self, parent: Ino, name: &str) -> Result<Vec<Ino>> {
        let sql = "SELECT ino FROM attempts WHERE parent = ? AND name = ?";
        self.many(sql, (parent.get() as i64, name), |row| ino_of(row.get(0)?))
    }

    /// All that was sent to a place and not heard of since, by whatever inode had the name then.
    pub fn attempts_at(&self, parent: Ino, name: &str) -> Result<Vec<Attempt>> {
        let sql = "SELECT parent, name, size, sha256 FROM attempts WHERE parent = ? AND name = ?";
        self.many(sql, (parent.get() as i64, name), attempt_of)
    }

    /// Where on the remote an inode is being moved to, and nothing was heard of it yet: directory and name.
    pub fn moving(&self, ino: Ino) -> Result<Option<(Ino, String)>> {
        self.one("SELECT parent, name FROM moves WHERE ino = ?", [ino.get() as i64], |row| {
            Ok((ino_of(row.get(0)?)?, row.get(1)?))
        })
    }

    /// All that is being moved, and where to.
    pub fn moves(&self) -> Result<Vec<(Ino, Ino, String)>> {
        self.many("SELECT ino, parent, name FROM moves", [], |row| {
            Ok((ino_of(row.get(0)?)?, ino_of(row.get(1)?)?, row.get(2)?))
        })
    }

    /// The inode itself or the directory above it, as the remote has them, that is being moved: no path below it is certain.
    pub fn on_its_way(&self, ino: Ino) -> Result<Option<Ino>> {
        let mut at = Some(ino);
        while let Some(ino) = at.filter(|ino| *ino != Ino::ROOT) {
            if self.moving(ino)?.is_some() {
                return Ok(Some(ino));
            }
            at = self.view(ino, 0, Which::Remote)?.map(|view| view.parent);
        }
        Ok(None)
    }

    /// The inode that is being moved to this place.
    pub fn moving_to(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        self.one("SELECT ino FROM moves WHERE parent = ? AND name = ?", (parent.get() as i64, name), |row| {
            ino_of(row.get(0)?)
        })
    }

    /// The inode that was being sent to this place, is there (or anywhere on the remote) in no view, and was deleted or moved
    /// here since. None where another took the name and was sent too: that one is asked first.
    pub fn stray_attempt(&self, parent: Ino, name: &str, shown: &Name) -> Result<Option<Ino>> {
        let sql = "SELECT ino FROM attempts WHERE parent = ?1 AND name = ?2 AND ino IN (SELECT ino FROM nodes)
                   AND NOT EXISTS(SELECT 1 FROM names WHERE names.ino = attempts.ino AND names.parent = ?1 AND names.name = ?3)
                   AND NOT EXISTS(SELECT 1 FROM views WHERE views.ino = attempts.ino AND which = 0)
                   AND NOT EXISTS(SELECT 1 FROM names JOIN attempts AS other ON other.ino = names.ino
                                  WHERE names.parent = ?1 AND names.name = ?3 AND other.parent = ?1 AND other.name = ?2)";
        self.one(sql, (parent.get() as i64, name, shown.as_bytes()), |row| ino_of(row.get(0)?))
    }
}
