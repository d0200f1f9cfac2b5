//! When the worker dies: at a chosen step of its disk or of its line, and what of its database was written by then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The files of a database, by what follows its name.
pub type Database = Vec<(&'static str, Vec<u8>)>;

/// Reads the files of the database `path`.
pub fn read_database(path: &Path) -> Database {
    let file = |suffix: &'static str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::read(name).ok().map(|bytes| (suffix, bytes))
    };
    ["", "-wal"].into_iter().filter_map(file).collect()
}

/// Writes them to `path`.
pub fn write_database(path: &Path, files: &Database) {
    for (suffix, bytes) in files {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::write(name, bytes).expect("a file of the database");
    }
}

/// One worker's life. After its end nothing that it does has an effect but what it had sent before.
pub struct Life {
    database: PathBuf,
    steps: AtomicU64,
    last: AtomicU64,
    over: AtomicBool,
    left: Mutex<Option<Database>>,
    ended: Notify,
}

impl Life {
    pub fn new(database: PathBuf) -> Life {
        Life {
            database,
            steps: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
            over: AtomicBool::new(false),
            left: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The worker dies after so many more steps.
    pub fn end_after(&self, steps: u64) {
        self.last.store(self.steps.load(Ordering::Relaxed) + steps, Ordering::Relaxed);
    }

    /// Takes back [`Life::end_after`].
    pub fn go_on(&self) {
        self.last.store(u64::MAX, Ordering::Relaxed);
    }

    /// One step of the worker; an error when it is dead.
    pub fn step(&self) -> io::Result<()> {
        if self.steps.fetch_add(1, Ordering::Relaxed) >= self.last.load(Ordering::Relaxed) {
            self.end();
        }
        if self.is_over() { Err(io::Error::other("the worker is dead")) } else { Ok(()) }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The worker dies here.
    pub fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(read_database(&self.database));
            self.ended.notify_waiters();
        }
    }

    /// Returns when the worker is dead.
    pub async fn ended(&self) {
        let ended = self.ended.notified();
        if !self.is_over() {
            ended.await;
        }
    }

    /// The database as it was at the end.
    pub fn database(&self) -> Database {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone().expect("the worker is dead")
    }

    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}
