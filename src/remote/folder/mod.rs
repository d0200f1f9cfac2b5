//! A local directory as a remote: the default that needs no account. Also a network or removable disk.
//!
//! Nothing outside the directory is ever reached: paths are opened part by part and no symbolic link is followed. Contents
//! are replaced in one step (`.~fourwheel-…` beside the file, fsync, rename); whoever lists a directory removes unfinished
//! files there that have no writer any more. Names of that beginning, fifos, sockets and devices are not shown.
//!
//! **Versions** are inode number, birth time, size and mtime. Every write through here gives a new one, and so does every
//! foreign write that moves the mtime. Limits: setting the mtime alone gives a new version too; a foreign program that
//! changes content in place and then puts the mtime back is not seen; nor is a change of content, of the same size, within
//! one tick of the file system's clock (4 ms before Linux 6.13) of the last look.
//!
//! **Conditions**: `Absent` is the kernel's to obey (RENAME_NOREPLACE). For `Is`, the new content and the old change places
//! (RENAME_EXCHANGE), what was replaced is looked at, and put back where it was another version. Others may see the new
//! content for that moment.

mod at;
mod remote;
mod root;
mod walk;
mod watch;
mod write;

use crate::error::Result;
use crate::remote::{Capabilities, ChangeFeed, MetaSupport, RenameDir};
use crate::sys::{Chance, Clock};
use inotify::Inotify;
use root::{RULES, Root, XATTR_BYTES_MAX};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watch::Watch;

/// A local directory as a remote.
pub struct Folder {
    root: Arc<Root>,
    capabilities: Capabilities,
    feed: Arc<Mutex<FeedState>>,
}

/// The feed starts with the first question for it: watching a large tree takes a while.
struct FeedState {
    /// Taken by the start.
    inotify: Option<Inotify>,
    watch: Option<Watch>,
    /// When everything was last asked to be looked at, where not everything can be watched; monotonic.
    looked: Duration,
}

impl Folder {
    /// Opens a directory, which must exist. Tries in two unfinished files what its file system can do; blocks for a few
    /// disk operations.
    ///
    /// `NotFound`, `NotDirectory`, `Denied`.
    pub fn connect(path: &Path, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Result<Folder> {
        let root = Arc::new(Root::open(path, clock.clone(), chance)?);
        // None is left where the user's inotify instances are used up (128 by default).
        let inotify = Inotify::init().inspect_err(|e| tracing::warn!("no change feed of {}: {e}", path.display())).ok();
        let capabilities = capabilities(&root, inotify.is_some());
        let state = FeedState { inotify, watch: None, looked: clock.monotonic() };
        Ok(Folder { root, capabilities, feed: Arc::new(Mutex::new(state)) })
    }
}

fn capabilities(root: &Root, feed: bool) -> Capabilities {
    Capabilities {
        stable_ids: false,
        case_sensitive: true,
        names: RULES,
        whole_tree: true,
        list_parallel: 4,
        changes: if feed { ChangeFeed::Cursor } else { ChangeFeed::None },
        read_pinned: true,
        conditional_create: root.able.no_replace,
        conditional_replace: root.able.exchange,
        conditional_remove: false,
        put_bytes_max: u64::MAX,
        session_from_bytes: u64::MAX,
        sessions: None,
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
            xattr_bytes_max: if root.able.xattrs { XATTR_BYTES_MAX } else { 0 },
            in_listing: true,
        },
        quota: true,
        directories: true,
        flat_keys: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::model::RemotePath;
    use crate::remote::{Place, Remote, collect};
    use crate::sys::{RealChance, RealClock};
    use std::os::unix::ffi::OsStrExt;

    pub(super) fn root(path: &Path) -> Root {
        Root::open(path, Arc::new(RealClock), Arc::new(RealChance::new())).unwrap()
    }

    fn folder(path: &Path) -> Folder {
        Folder::connect(path, Arc::new(RealClock), Arc::new(RealChance::new())).unwrap()
    }

    fn at(path: &str) -> Place {
        Place::at(RemotePath::new(path))
    }

    fn make(path: &Path, content: &str) {
        use std::io::Write;
        std::fs::File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn no_link_leads_outside() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(&outside.path().join("secret"), "x");
        std::os::unix::fs::symlink(outside.path(), inside.path().join("door")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        let folder = folder(inside.path());
        assert_eq!(folder.stat(&at("door/secret")).await.unwrap(), None);
        assert_eq!(folder.list(&at("door"), None).await.unwrap_err().kind, Kind::NotDirectory);
        assert!(folder.mkdir(&at("door/new"), &Default::default()).await.is_err());
        assert!(folder.remove(&at("door/secret"), false, &crate::remote::Condition::Any).await.is_err());
        let version = folder.stat(&at("file")).await.unwrap().unwrap().version.unwrap();
        assert!(folder.read(&at("file"), &version, 0..1).await.is_err());
        for path in ["..", "../x", "a/../../x", "."] {
            assert_eq!(folder.stat(&at(path)).await.unwrap(), None, "{path}");
        }
        assert!(outside.path().join("secret").exists());
    }

    #[tokio::test]
    async fn names_that_are_no_text_are_spelled_and_special_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"latin\xe9 \xe2\x80\x9b");
        make(&dir.path().join(name), "hello");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let folder = folder(dir.path());
        let listing = folder.list(&at(""), None).await.unwrap();
        assert_eq!(listing.entries.len(), 1);
        let (path, entry) = &listing.entries[0];
        assert_eq!(path.as_str(), "latin‛E9 ‛‛");
        let stream = folder.read(&Place::at(path.clone()), entry.version.as_ref().unwrap(), 0..5).await.unwrap();
        assert_eq!(collect(stream).await.unwrap(), "hello");
        assert_eq!(folder.stat(&at("socket")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn leftovers_go_unless_they_have_a_writer_or_are_young() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let leftover = |name: &str| {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(old).unwrap();
            file
        };
        leftover(".~fourwheel-dead");
        make(&dir.path().join(".~fourwheel-young"), "");
        let writing = leftover(".~fourwheel-alive");
        assert!(at::try_lock(&writing));
        make(&dir.path().join("file"), "");
        let folder = folder(dir.path());
        let listing = folder.sweep(None).await.unwrap();
        assert_eq!(listing.entries.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["file"]);
        assert!(!dir.path().join(".~fourwheel-dead").exists());
        assert!(dir.path().join(".~fourwheel-alive").exists() && dir.path().join(".~fourwheel-young").exists());
    }

    #[tokio::test]
    async fn a_mode_leaves_the_version_and_a_write_in_place_does_not() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        make(&path, "one");
        let folder = folder(dir.path());
        let version = || async { folder.stat(&at("file")).await.unwrap().unwrap().version.unwrap() };
        let before = version().await;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(version().await, before);
        let stream = folder.read(&at("file"), &before, 0..3).await.unwrap();
        // Past the tick of the file system's clock, see above.
        tokio::time::sleep(Duration::from_millis(20)).await;
        make(&path, "two");
        assert_ne!(version().await, before);
        assert_eq!(collect(stream).await.unwrap_err().kind, Kind::Changed);
    }

    /// Follows the feed until everything that is there, and nothing else, was told of.
    async fn follow(folder: &Folder, cursor: &mut String, known: &mut std::collections::BTreeSet<RemotePath>) {
        use crate::remote::Change;
        for _ in 0..100 {
            let told = folder.changes(Some(cursor.clone()), 100).await.unwrap();
            assert!(!told.reset);
            *cursor = told.cursor;
            let now = folder.sweep(None).await.unwrap().entries.into_iter().map(|(path, _)| path);
            let now: std::collections::BTreeSet<_> = now.collect();
            for change in told.changes {
                match change {
                    Change::Present(path, _) => {
                        known.insert(path);
                    }
                    Change::Absent(path) => known.retain(|known| !known.is_within(&path)),
                    Change::Look { directory, .. } => {
                        known.retain(|path| !path.is_within(&directory) || *path == directory);
                        known.extend(now.iter().filter(|path| path.is_within(&directory)).cloned());
                    }
                }
            }
            if *known == now {
                return;
            }
        }
        panic!("the feed leaves it at {known:#?}");
    }

    #[tokio::test]
    async fn the_feed_tells_what_other_programs_do() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shell = |script: &str| {
            let mut run = std::process::Command::new("sh");
            run.args(["-ec", script]).current_dir(inside.path()).env("OUT", outside.path());
            assert!(run.status().unwrap().success(), "{script}");
        };
        shell("mkdir -p before/deep; echo x > before/deep/f");
        let folder = folder(inside.path());
        let mut cursor = folder.changes(None, 0).await.unwrap().cursor;
        let mut known: std::collections::BTreeSet<_> =
            folder.sweep(None).await.unwrap().entries.into_iter().map(|(path, _)| path).collect();
        for script in [
            "mkdir -p a/b/c; echo x > a/b/c/f; mv a z; echo y > z/b/c/g",
            "mv before $OUT/away; mkdir -p before; echo x > before/new",
            "echo x > $OUT/away/deep/unseen; mv $OUT/away back; echo x > back/deep/seen",
            "rm -r z; mkdir z; echo x > z/f; mv back/deep z/deep; mv z y; echo x > y/deep/last",
            "for i in 1 2 3 4 5 6 7 8 9; do mkdir -p t/$i/$i; echo x > t/$i/$i/f; mv t/$i t/m$i; done; rm -r t/m1 t/m5",
            "ln -s / link; mkfifo pipe; echo x >> y/f; chmod 600 y/f; rm link",
        ] {
            shell(script);
            follow(&folder, &mut cursor, &mut known).await;
        }
    }

    #[tokio::test]
    async fn a_feed_that_cannot_see_everything_asks_to_look_now_and_then() {
        use crate::remote::Change;
        use std::sync::atomic::{AtomicU64, Ordering};
        struct Steps(AtomicU64);
        impl Clock for Steps {
            fn wall_ns(&self) -> i64 {
                0
            }
            fn monotonic(&self) -> Duration {
                Duration::from_secs(self.0.load(Ordering::Relaxed))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Steps(AtomicU64::new(1000)));
        let folder = Folder::connect(dir.path(), clock.clone(), Arc::new(RealChance::new())).unwrap();
        let cursor = folder.changes(None, 0).await.unwrap().cursor;
        // As when the kernel grants no more watches.
        folder.feed.lock().unwrap().watch.as_ref().unwrap().shared.partial.store(true, Ordering::Relaxed);
        assert_eq!(folder.changes(Some(cursor.clone()), 0).await.unwrap().changes, []);
        clock.0.store(1061, Ordering::Relaxed);
        let look = Change::Look { directory: RemotePath::root(), deep: true };
        assert_eq!(folder.changes(Some(cursor.clone()), 0).await.unwrap().changes, [look]);
        assert_eq!(folder.changes(Some(cursor), 0).await.unwrap().changes, []);
    }
}
