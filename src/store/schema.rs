//! The tables, and how a connection is set up. Every change of layout raises `VERSION` and says how to get there.

use super::failed;
use crate::error::{Error, Kind, Result};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// The layout written by this program (`PRAGMA user_version`).
const VERSION: i64 = 2;

/// New in layout 2.
const MOVES: &str = "CREATE TABLE moves(ino INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL);";

const TABLES: &str = "
CREATE TABLE nodes(
  ino INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL,
  size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, atime INTEGER NOT NULL,
  content INTEGER NOT NULL, version TEXT, target BLOB, xattrs TEXT,
  meta_known INTEGER NOT NULL, mtime_set INTEGER NOT NULL, listed INTEGER NOT NULL);
CREATE TABLE names(
  cookie INTEGER PRIMARY KEY AUTOINCREMENT,
  parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, UNIQUE(parent, name));
CREATE INDEX names_ino ON names(ino);
CREATE INDEX names_order ON names(parent, cookie);
CREATE TABLE views(
  ino INTEGER NOT NULL, remote_no INTEGER NOT NULL, which INTEGER NOT NULL,
  kind INTEGER NOT NULL, id TEXT, parent INTEGER NOT NULL, name TEXT NOT NULL, shown BLOB NOT NULL,
  size INTEGER NOT NULL, version TEXT, hash TEXT, mtime INTEGER, mode INTEGER, xattrs TEXT, server_mtime INTEGER,
  PRIMARY KEY(ino, remote_no, which)) WITHOUT ROWID;
CREATE INDEX views_place ON views(remote_no, which, parent, name);
CREATE INDEX views_id ON views(remote_no, id) WHERE id IS NOT NULL;
CREATE TABLE pending(ino INTEGER PRIMARY KEY);
CREATE TABLE failures(ino INTEGER PRIMARY KEY, reason TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE sessions(
  ino INTEGER PRIMARY KEY, remote_no INTEGER NOT NULL, session TEXT NOT NULL, generation INTEGER NOT NULL,
  size INTEGER NOT NULL, part_bytes INTEGER NOT NULL, place TEXT NOT NULL, parts TEXT NOT NULL);
CREATE TABLE attempts(
  ino INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL);
CREATE TABLE pins(ino INTEGER PRIMARY KEY);
CREATE TABLE conflicts(ino INTEGER PRIMARY KEY, original BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE facts(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outcomes(request INTEGER PRIMARY KEY, outcome TEXT NOT NULL);
CREATE TABLE outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, ino INTEGER NOT NULL, name BLOB);
";

/// Opens a connection with our settings.
pub(super) fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;
             PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 8388608;",
        )
        .map_err(failed)?;
    Ok(connection)
}

/// Makes the tables in a new database; refuses one from a newer program.
pub(super) fn prepare(connection: &Connection) -> Result<()> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match found {
        VERSION => Ok(()),
        0 => {
            let root = format!(
                "BEGIN IMMEDIATE; {TABLES} {MOVES}
                 INSERT INTO nodes VALUES(1, 1, {}, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 1, 0, 0);
                 PRAGMA user_version = {VERSION}; COMMIT;",
                0o755
            );
            connection.execute_batch(&root).map_err(failed)
        }
        1 => {
            let upgrade = format!("BEGIN IMMEDIATE; {MOVES} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&upgrade).map_err(failed)
        }
        newer if newer > VERSION => Err(Error::new(
            Kind::Config,
            format!(
                "drive.db has layout {newer}, this program knows {VERSION}: it was written by a newer fourwheel; upgrade this one"
            ),
        )),
        other => Err(Error::new(Kind::Corrupt, format!("drive.db has the unknown layout {other}"))),
    }
}
