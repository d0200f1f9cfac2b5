//! Metadata on disk: inodes, names, and each side's view of them, in SQLite. The only folder that names the database crate.
//!
//! * One writer at a time, under a mutex; readers have connections of their own (WAL). The design draws a writer thread; a
//!   mutex gives the same order without two thread hops per call, and runs in a simulation without threads.
//! * A transaction that returned survives the death of the process; [`Store::sync`] makes it survive a power cut too
//!   (the write-ahead log is synced; SQLite's own commits do not sync with `synchronous = NORMAL`).
//! * What the kernel must be told of a change is collected in the transaction and handed out after its commit.
//! * Views are kept per remote (`remote_no`, 0 is the drive's own remote), so that a second one needs no new schema.

mod check;
mod node;
mod opens;
mod outcome;
mod pending;
mod rows;
mod schema;
mod sent;
mod sessions;
mod tx;
mod view;

pub use node::{Content, Node, NodeTimes};
pub use opens::{OpenCounts, Opens, Use};
pub use outcome::{Fault, Outcome, Remembered};
pub use pending::{Failure, Pending};
pub use rows::{DirectoryEntry, Rows};
pub use sent::Attempt;
pub use sessions::{PartRow, SessionRow};
pub use tx::Tx;
pub use view::{View, Which};

use crate::error::{Error, Kind, Result};
use crate::model::Ino;
use crate::sys::{Disk, Open, RealDisk};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections readers share.
const READERS: usize = 4;

/// Something in the tree changed that the kernel may hold a copy of, or that the planner should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The name now leads elsewhere, or nowhere.
    Entry { parent: Ino, name: crate::model::Name },
    /// Size, times, mode or content changed by somebody else.
    Content(Ino),
    /// The planner has something to look at.
    Touched(Ino),
}

/// Takes events after the commit of what caused them. Must return at once and must not call the store.
pub trait Listener: Send + Sync {
    fn notice(&self, events: &[Event]);
}

/// The open database of one drive.
pub struct Store {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
    listener: std::sync::OnceLock<Arc<dyn Listener>>,
    opens: Opens,
    /// As of the last transaction; only those change it.
    disk_bytes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Converts a database error.
pub(crate) fn failed(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Kind::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
        _ => Kind::Disk,
    };
    Error::new(kind, format!("drive.db: {error}"))
}

impl Store {
    /// Opens `path`, and makes it where it is absent; the root directory exists afterwards.
    ///
    /// `Corrupt`: not a database, or a damaged one. `Config`: written by a newer version of this program.
    pub fn open(path: &Path) -> Result<Store> {
        Store::open_on(path, Arc::new(RealDisk))
    }

    /// The same, with the disk that its log is synced through. SQLite itself works on the machine's.
    pub fn open_on(path: &Path, disk: Arc<dyn Disk>) -> Result<Store> {
        let writer = schema::connect(path)?;
        schema::prepare(&writer)?;
        let readers = (0..READERS).map(|_| schema::connect(path).map(Mutex::new)).collect::<Result<_>>()?;
        let store = Store {
            disk,
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers,
            turn: AtomicUsize::new(0),
            listener: std::sync::OnceLock::new(),
            opens: Opens::default(),
            disk_bytes: AtomicU64::new(0),
        };
        store.measure();
        Ok(store)
    }

    /// Names who is told of changes; once.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        // A second listener is a mistake in `app`, and the first keeps working.
        let _ = self.listener.set(listener);
    }

    /// Which inodes are open on the mount; in memory only.
    pub fn opens(&self) -> &Opens {
        &self.opens
    }

    /// Runs `work` on a consistent snapshot.
    pub fn read<T>(&self, work: impl FnOnce(&Rows<'_>) -> Result<T>) -> Result<T> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let free = (0..READERS).find_map(|i| self.readers[(first + i) % READERS].try_lock().ok());
        let connection = free.unwrap_or_else(|| lock(&self.readers[first % READERS]));
        let transaction = connection.unchecked_transaction().map_err(failed)?;
        let answer = work(&Rows::new(&connection));
        // Nothing was written, so how the snapshot ends changes nothing.
        let _ = transaction.finish();
        answer
    }

    /// Runs `work` as one transaction: all of it happens, or, if it fails, nothing. Its events go out after the commit.
    pub fn write<T>(&self, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let connection = lock(&self.writer);
        let writing = crate::sys::Writing::begin();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let mut tx = Tx::new(&connection);
        let answer = work(&mut tx).and_then(|answer| tx.settle().map(|()| answer));
        let events = tx.into_events();
        let answer = self.end(&connection, answer);
        self.measure();
        drop(connection);
        drop(writing);
        let answer = answer?;
        if !events.is_empty()
            && let Some(listener) = self.listener.get()
        {
            listener.notice(&events);
        }
        Ok(answer)
    }

    /// Commits what succeeded and rolls back what failed.
    fn end<T>(&self, connection: &Connection, answer: Result<T>) -> Result<T> {
        let ended = answer.and_then(|answer| match connection.execute_batch("COMMIT") {
            Ok(()) => Ok(answer),
            Err(e) => Err(failed(e)),
        });
        if ended.is_err() {
            // Without a transaction, as after a failed commit that ended it, there is nothing to roll back.
            let _ = connection.execute_batch("ROLLBACK");
        }
        ended
    }

    /// Drops a node that has no name, no view of a remote, and is not held by the kernel; whether it did. Nothing can reach
    /// such a node again. `discard` drops its bytes first: after a crash in between, a row without bytes is nobody's, and bytes
    /// without a row would be shown as somebody's.
    pub fn purge(&self, ino: Ino, discard: impl FnOnce() -> Result<()>) -> Result<bool> {
        // In this order: what loses its name is held before that is seen.
        if self.read(|rows| is_needed(rows, ino))? || self.opens.is_held(ino) {
            return Ok(false);
        }
        discard()?;
        self.write(|tx| {
            let needed = is_needed(tx, ino)?;
            if !needed {
                tx.remove_node(ino)?;
            }
            Ok(!needed)
        })
    }

    /// Makes every committed transaction durable against a power cut.
    pub fn sync(&self) -> Result<()> {
        // Closing a second descriptor of the log is harmless: SQLite's POSIX locks are on drive.db and its -shm file.
        let _writer = lock(&self.writer);
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        match self.disk.open(Path::new(&log), Open::Existing) {
            Ok(file) => file.sync().map_err(|e| Error::disk("sync drive.db-wal", &e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::disk("open drive.db-wal", &e)),
        }
    }

    /// Bytes that the database's files take on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    #[allow(clippy::disallowed_methods, reason = "SQLite owns these files")]
    fn measure(&self) {
        use std::os::unix::fs::MetadataExt;
        let size = |suffix| {
            let mut file = self.path.clone().into_os_string();
            file.push(suffix);
            std::fs::metadata(&file).map_or(0, |m| m.blocks() * 512)
        };
        self.disk_bytes.store(["", "-wal", "-shm"].into_iter().map(size).sum(), Ordering::Relaxed);
    }

    /// Checks the database's own structure and our invariants; one line for each fault, none when all is well.
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(|rows| rows.check())
    }
}

/// Whether a node can still be reached, or is not there at all.
fn is_needed(rows: &Rows<'_>, ino: Ino) -> Result<bool> {
    Ok(ino == Ino::ROOT
        || rows.find_node(ino)?.is_none()
        || rows.place(ino)?.is_some()
        || rows.view(ino, 0, Which::Remote)?.is_some()
        || rows.view(ino, 0, Which::Base)?.is_some()
        // On its way to the remote: once it is there it must be deleted there.
        || rows.attempt(ino)?.is_some()
        || rows.moving(ino)?.is_some())
}
