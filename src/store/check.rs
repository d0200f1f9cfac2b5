//! The invariants of the tables, for `fourwheel check` and the tests.

use super::Rows;
use super::node::kind_number;
use super::rows::ino_of;
use crate::error::Result;
use crate::model::{FileKind, Ino};

impl Rows<'_> {
    /// One line for each fault; none when all is well.
    pub(super) fn check(&self) -> Result<Vec<String>> {
        let mut faults: Vec<String> = self
            .many("PRAGMA integrity_check(20)", [], |row| row.get::<_, String>(0))?
            .into_iter()
            .filter(|line| line != "ok")
            .collect();
        let rules = [
            ("a name leads to no inode", "SELECT count(*) FROM names WHERE ino NOT IN (SELECT ino FROM nodes)"),
            (
                "a name is in no directory",
                "SELECT count(*) FROM names WHERE parent NOT IN (SELECT ino FROM nodes WHERE kind = 1)",
            ),
            ("an inode has two names", "SELECT count(*) FROM (SELECT 1 FROM names GROUP BY ino HAVING count(*) > 1)"),
            (
                "what was sent belongs to no inode that waits",
                "SELECT count(*) FROM attempts WHERE ino NOT IN (SELECT ino FROM pending)",
            ),
            ("what is moved is no inode", "SELECT count(*) FROM moves WHERE ino NOT IN (SELECT ino FROM nodes)"),
            ("a view belongs to no inode", "SELECT count(*) FROM views WHERE ino NOT IN (SELECT ino FROM nodes)"),
            (
                "two inodes are at one place of the remote",
                "SELECT count(*) FROM (SELECT 1 FROM views WHERE which = 0 AND id IS NULL GROUP BY remote_no, parent, name HAVING count(*) > 1)",
            ),
            (
                "a clean file has no base",
                &format!(
                    "SELECT count(*) FROM nodes WHERE kind = {} AND content = 1 AND ino IN (SELECT ino FROM names) AND ino NOT IN (SELECT ino FROM views WHERE which = 1)",
                    kind_number(FileKind::File)
                ),
            ),
        ];
        for (what, sql) in rules {
            let n = self.count(sql, [])?;
            if n > 0 {
                faults.push(format!("{what}: {n}"));
            }
        }
        let inodes: Vec<Ino> = self.many("SELECT ino FROM nodes", [], |row| ino_of(row.get(0)?))?;
        for ino in inodes {
            if self.differs(ino)? != self.is_pending(ino)? {
                faults.push(format!("inode {ino}: the list of pending work does not agree with its views"));
            }
        }
        Ok(faults)
    }
}
