//! The change feed: inotify on every directory below the root, told as paths that were touched.
//!
//! One thread reads the kernel's events; it ends when the folder is dropped. When the kernel loses events every cursor
//! expires; when it grants no more watches the feed goes on for what is watched, and says now and then to look at everything.

use super::root::{RULES, Root, TEMP_PREFIX};
use crate::error::Result;
use crate::model::{FileKind, RemotePath};
use crate::remote::feed::Feed;
use crate::remote::names;
use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Room for the events of one read(2).
const EVENTS_BYTES: usize = 64 << 10;

/// A feed that is running.
pub(super) struct Watch {
    pub shared: Arc<Shared>,
    /// Dropped with the feed, which ends its thread.
    _alive: PipeWriter,
}

/// What the thread writes and the trait's calls read.
pub(super) struct Shared {
    feed: Mutex<Feed>,
    pub changed: Notify,
    /// Whether some directories have no watch.
    pub partial: AtomicBool,
}

impl Shared {
    pub fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Watches every directory, then starts the thread: what happens after this returns is told.
    pub fn start(root: Arc<Root>, inotify: Inotify) -> Result<Watch> {
        let (reader, alive) = io::pipe().map_err(|e| super::root::fail("watch the folder", e))?;
        let feed = Mutex::new(Feed::new(root.chance.next()));
        let shared = Arc::new(Shared { feed, changed: Notify::new(), partial: AtomicBool::new(false) });
        let mut table = Table {
            root,
            shared: shared.clone(),
            watches: inotify.watches(),
            paths: BTreeMap::new(),
            descriptors: BTreeMap::new(),
        };
        table.add(&RemotePath::root());
        let run = move || run(&mut table, inotify, &reader);
        let spawned = std::thread::Builder::new().name("folder-watch".into()).spawn(run);
        spawned.map_err(|e| super::root::fail("watch the folder", e))?;
        Ok(Watch { shared, _alive: alive })
    }
}

fn run(table: &mut Table, mut inotify: Inotify, alive: &PipeReader) {
    let mut room = vec![0; EVENTS_BYTES];
    while wait(&inotify, alive) {
        match inotify.read_events(&mut room) {
            Ok(events) => {
                for event in events {
                    table.note(&event);
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => {
                tracing::warn!("the folder's change feed ended: {e}");
                table.shared.partial.store(true, Ordering::Relaxed);
                return;
            }
        }
        table.shared.changed.notify_waiters();
    }
}

/// Waits for events; false when the folder was dropped.
fn wait(inotify: &Inotify, alive: &PipeReader) -> bool {
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [poll(inotify.as_raw_fd()), poll(alive.as_raw_fd())];
    // SAFETY: `fds` has two elements and both descriptors are open.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
    fds[1].revents == 0
}

/// Which watch stands for which directory.
struct Table {
    root: Arc<Root>,
    shared: Arc<Shared>,
    watches: Watches,
    paths: BTreeMap<WatchDescriptor, RemotePath>,
    descriptors: BTreeMap<RemotePath, WatchDescriptor>,
}

impl Table {
    /// Watches a directory and all below it. Each is watched before it is read, so nothing made meanwhile is missed.
    fn add(&mut self, path: &RemotePath) {
        let mut left = vec![path.clone()];
        while let Some(path) = left.pop() {
            // Gone again, or not to be read: then there is nothing to tell of it either.
            let Ok(dir) = self.root.dir(&path) else { continue };
            let mask = WatchMask::CREATE
                | WatchMask::DELETE
                | WatchMask::MOVE
                | WatchMask::MODIFY
                | WatchMask::CLOSE_WRITE
                | WatchMask::ATTRIB
                | WatchMask::ONLYDIR;
            match self.watches.add(dir.magic_path(), mask) {
                Ok(descriptor) => {
                    if let Some(old) = self.paths.insert(descriptor.clone(), path.clone()) {
                        self.descriptors.remove(&old);
                    }
                    self.descriptors.insert(path.clone(), descriptor);
                }
                Err(e) => {
                    if !self.shared.partial.swap(true, Ordering::Relaxed) {
                        tracing::warn!("{path} and others are looked at now and then only: {e}");
                    }
                    // Without a watch here, a watch below could not be kept right either.
                    continue;
                }
            }
            let Ok((_, children)) = self.root.children(&path) else { continue };
            let directories = children.iter().filter(|child| child.facts.kind == FileKind::Directory);
            left.extend(directories.map(|child| path.join(&child.mapped)));
        }
    }

    /// Forgets the watches of a directory and all below it.
    fn remove(&mut self, path: &RemotePath) {
        let below = self.descriptors.range(path.clone()..).filter(|(known, _)| known.is_within(path));
        let gone: Vec<_> = below.map(|(known, _)| known.clone()).collect();
        for descriptor in gone.iter().filter_map(|known| self.descriptors.remove(known)) {
            self.paths.remove(&descriptor);
            // The kernel has dropped the watches of removed directories by itself.
            let _ = self.watches.remove(descriptor);
        }
    }

    fn note(&mut self, event: &Event<&std::ffi::OsStr>) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return self.start_over();
        }
        if event.mask.contains(EventMask::IGNORED) {
            if let Some(path) = self.paths.remove(&event.wd) {
                self.descriptors.remove(&path);
            }
            return;
        }
        let (Some(directory), Some(name)) = (self.paths.get(&event.wd), event.name) else { return };
        if name.as_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
            return;
        }
        let Ok(mapped) = names::encode(name.as_bytes(), &RULES) else { return };
        let path = directory.join(&mapped);
        let directory = event.mask.contains(EventMask::ISDIR);
        let came = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
        let went = event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM);
        if directory && (came || went) {
            self.remove(&path);
        }
        if directory && came {
            self.add(&path);
        }
        self.shared.feed().touch(path.as_str(), directory && (came || went));
    }

    /// Events were lost: nothing is known of what happened, nor of which directories are there.
    fn start_over(&mut self) {
        tracing::warn!("the kernel lost events of the folder; it is looked at anew");
        self.remove(&RemotePath::root());
        self.add(&RemotePath::root());
        self.shared.feed().expire();
    }
}
