//! `open` and `opendir`.

use super::handles::Fh;
use super::read::Bytesource;
use super::{Answer, CHECK_WAIT, Drive};
use crate::error::{Error, Kind, Result};
use crate::events::Wish;
use crate::fetch::Sink;
use crate::model::{FileKind, Ino};
use crate::store::Content;

/// Files up to this size are fetched whole when they are opened for writing, bytes.
const BASE_BYTES_MAX: u64 = 4 << 20;

/// How long that is waited for.
const BASE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub write: bool,
    /// O_TRUNC.
    pub truncate: bool,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub fh: Fh,
    /// Whether pages that the kernel kept since the last open are still right.
    pub keep_cache: bool,
}

impl Drive {
    /// Opens a file. Where no feed reports remote changes, the remote is asked for the version first when that was not
    /// looked at for a while; without its answer the file opens as it is known.
    pub fn open(&self, ino: Ino, access: Access) -> Answer<Opened> {
        let node = match self.store().read(|rows| rows.node(ino)) {
            Ok(node) => node,
            Err(e) => return Answer::Now(Err(e)),
        };
        if node.kind == FileKind::Directory {
            return Answer::Now(Err(Error::new(Kind::IsDirectory, format!("inode {ino} is a directory"))));
        }
        if (access.write || access.truncate)
            && let Err(e) = self.writable()
        {
            return Answer::Now(Err(e));
        }
        let settings = &self.parts().settings;
        let clean = matches!(node.content, Content::Version(_));
        if !clean || settings.feed || access.truncate || !self.parts().wants.is_online() || self.is_fresh(ino) {
            return self.open_now(ino, access);
        }
        let drive = self.clone();
        Answer::later(async move {
            let began = drive.parts().clock.monotonic();
            // No answer in time: what is known is opened, and the background finds a change later.
            drive.parts().wants.wait_shortly(Wish::Check(ino), CHECK_WAIT).await;
            // The path may lead to a new inode now; the kernel was told, and this handle keeps the old version.
            let opened = drive.open_now(ino, access).get().await?;
            if !drive.parts().wants.is_prompt() {
                drive.handle(ino, opened.fh).patience().waits(began);
            }
            Ok(opened)
        })
    }

    /// Whether the version of this file was compared with the remote's within `refresh`.
    fn is_fresh(&self, ino: Ino) -> bool {
        let now = self.parts().clock.monotonic();
        let parent = self.store().read(|rows| rows.place(ino)).ok().flatten().map(|(parent, _)| parent);
        let opens = self.store().opens();
        let age = |ino: Ino| opens.checked(ino).map(|then| now.saturating_sub(then));
        let limit = self.parts().settings.refresh;
        parent.and_then(age).is_some_and(|a| a <= limit * 2) || age(ino).is_some_and(|a| a <= limit)
    }

    fn open_now(&self, ino: Ino, access: Access) -> Answer<Opened> {
        // Counted first: what the remote does to a file that is open for writing waits.
        let opened = self.opened(ino, access, false);
        // The place is asked for among the writers: whoever takes the name away may have counted us or not, and is still at it.
        if self.store().opens().is_gone(ino) && !matches!(self.store().write(|tx| tx.place(ino)), Ok(Some(_))) {
            self.release(ino, opened.fh);
            return Answer::Now(Err(Error::new(Kind::Stale, format!("the remote took inode {ino} away"))));
        }
        if !access.truncate {
            return self.with_base(ino, access, opened);
        }
        let drive = self.clone();
        let finish = move |done: Result<()>| match done.and_then(|()| drive.drop_set_id(ino)) {
            Ok(()) => Ok(opened),
            Err(e) => {
                drive.release(ino, opened.fh);
                Err(e)
            }
        };
        match self.truncate(ino, 0) {
            Answer::Now(done) => Answer::Now(finish(done)),
            Answer::Later(work) => Answer::later(async move { finish(work.await) }),
        }
    }

    /// Takes S_ISUID, and S_ISGID of what a group may execute, away from what was cut by its opening. The kernel leaves that to us
    /// (FUSE_ATOMIC_O_TRUNC), and does it itself for all other changes of content.
    fn drop_set_id(&self, ino: Ino) -> Result<()> {
        let without = |mode: u32| match mode & libc::S_IXGRP {
            0 => mode & !libc::S_ISUID,
            _ => mode & !(libc::S_ISUID | libc::S_ISGID),
        };
        let mode = self.store().read(|rows| rows.node(ino))?.mode;
        if without(mode) == mode {
            return Ok(());
        }
        self.store().write(|tx| {
            let mut node = tx.node(ino)?;
            node.mode = without(node.mode);
            tx.set_node(&node)
        })
    }

    /// Gives a writer of a small file its whole base first: a write into it may be followed by a change of the remote, after
    /// which the rest of this version can be had no more. Without an answer in time the file opens as it is.
    fn with_base(&self, ino: Ino, access: Access, opened: Opened) -> Answer<Opened> {
        if !access.write || !self.parts().wants.is_online() {
            return Answer::Now(Ok(opened));
        }
        let target = match self.source(ino) {
            Ok(Bytesource::Clean(target)) if target.size <= BASE_BYTES_MAX => target,
            _ => return Answer::Now(Ok(opened)),
        };
        if matches!(&target.sink, Sink::Cache(file) if file.is_complete()) || target.size == 0 {
            return Answer::Now(Ok(opened));
        }
        let fetcher = self.parts().fetcher.clone();
        Answer::later(async move {
            let _ = tokio::time::timeout(BASE_WAIT, fetcher.bring(&target, 0..target.size)).await;
            Ok(opened)
        })
    }

    /// Gives a handle.
    pub(super) fn opened(&self, ino: Ino, access: Access, new: bool) -> Opened {
        let fh = self.inner.handles.add(access.write);
        self.store().opens().opened(ino, access.write);
        let keep_cache = !new && self.same_as_last_open(ino);
        Opened { fh, keep_cache }
    }

    fn same_as_last_open(&self, ino: Ino) -> bool {
        // A dirty file is written through this mount only, and the kernel sees each write.
        let content = self.store().read(|rows| rows.find_node(ino)).ok().flatten().map(|node| node.content);
        match content {
            Some(Content::Version(version)) => self.store().opens().seen(ino, Some(version)),
            Some(Content::Dirty) => self.store().opens().seen(ino, None),
            _ => false,
        }
    }
}

/// What a handle may not do.
pub(super) fn not_a_file(ino: Ino) -> Error {
    Error::new(Kind::Invalid, format!("inode {ino} is no regular file"))
}

/// Checks that a node is a regular file.
pub(super) fn regular(node: &crate::store::Node) -> Result<()> {
    if node.kind == FileKind::File { Ok(()) } else { Err(not_a_file(node.ino)) }
}
