//! Writes: a content is written beside its place under a name of its own, made durable, and put there in one step.

use super::at::{self, Dir, Facts, How};
use super::root::{Root, XATTR_BYTES_MAX, fail, version};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, RemotePath, Version};
use crate::remote::{Body, Condition, PutRequest};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::PoisonError;

/// Bytes taken from a body at once.
const PIECE_BYTES: u64 = 1 << 20;

fn precondition(path: &RemotePath, found: Option<&Facts>) -> Error {
    let what = match found {
        None => "nothing is there".to_owned(),
        Some(facts) if facts.kind == FileKind::Directory => "a directory is there".to_owned(),
        Some(facts) => format!("version {} is there", version(facts)),
    };
    Error::new(Kind::Precondition, format!("{path}: {what}"))
}

/// Whether `condition` holds for what was found.
fn holds(condition: &Condition, found: Option<&Facts>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::Is(wanted) => {
            found.is_some_and(|facts| facts.kind != FileKind::Directory && version(facts) == *wanted)
        }
    }
}

fn file_over(path: &RemotePath, found: Option<&Facts>) -> Result<()> {
    match found.map(|facts| facts.kind) {
        None | Some(FileKind::File | FileKind::Symlink) => Ok(()),
        Some(FileKind::Directory) => Err(Error::new(Kind::IsDirectory, format!("{path}: is a directory"))),
        Some(_) => Err(Error::new(Kind::Exists, format!("{path}: a special file is there"))),
    }
}

/// An unfinished file; its name goes when this is dropped.
struct Temp<'a> {
    dir: &'a Dir,
    name: Vec<u8>,
    file: File,
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // Once the file has its own name, or another's content was put aside here and removed, nothing is left to remove.
        let _ = self.dir.unlink(&self.name);
    }
}

impl<'a> Temp<'a> {
    fn new(root: &Root, dir: &'a Dir, mode: u32) -> io::Result<Temp<'a>> {
        let name = root.temp_name();
        let file = dir.create(&name, mode)?;
        // Tells other processes that this file has a writer; where locks are not kept, its age does.
        at::try_lock(&file);
        Ok(Temp { dir, name, file })
    }
}

impl Root {
    /// Stores a body. See [`crate::remote::Remote::put`].
    pub fn put(&self, path: &RemotePath, request: &PutRequest) -> Result<Entry> {
        let body = &request.body;
        self.store(path, &request.meta, &request.condition, |file| pour(body, file))
    }

    /// Copies a file. See [`crate::remote::Remote::copy`].
    pub fn copy(&self, from: &RemotePath, wanted: &Version, to: &RemotePath, condition: &Condition) -> Result<Entry> {
        let (file, _) = self.open_version(from, wanted)?;
        let meta = self.entry(from)?.and_then(|entry| entry.meta).unwrap_or_default();
        self.store(to, &meta, condition, |mut target| {
            let doing = || format!("copy {from}");
            io::copy(&mut &file, &mut target).map_err(|e| fail(doing(), e))?;
            check_version(&file, wanted, from)
        })
    }

    /// Opens a file if it has this version.
    pub fn open_version(&self, path: &RemotePath, wanted: &Version) -> Result<(File, Facts)> {
        let (dir, name) = self.parent(path)?;
        let file = dir.open_file(&name).map_err(|e| fail(format!("open {path}"), e))?;
        let facts = at::facts_of(&file).map_err(|e| fail(format!("open {path}"), e))?;
        match facts.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Error::new(Kind::IsDirectory, format!("{path}: is a directory"))),
            _ => return Err(Error::new(Kind::NotFound, format!("{path}: no longer a file"))),
        }
        check_version(&file, wanted, path)?;
        Ok((file, facts))
    }

    fn store(
        &self,
        path: &RemotePath,
        meta: &Meta,
        condition: &Condition,
        write: impl FnOnce(&File) -> Result<()>,
    ) -> Result<Entry> {
        let doing = || format!("write {path}");
        let (dir, name) = self.parent(path)?;
        let before = dir.facts(&name).map_err(|e| fail(doing(), e))?;
        if !holds(condition, before.as_ref()) {
            return Err(precondition(path, before.as_ref()));
        }
        file_over(path, before.as_ref())?;
        self.check_meta(meta)?;
        let old = before.filter(|facts| facts.kind == FileKind::File);
        let mode = meta.mode.or(old.map(|facts| facts.mode));
        // A mode that is to come keeps everybody out until it has.
        let made_mode = if mode.is_some() { 0o600 } else { 0o666 };
        let temp = Temp::new(self, &dir, made_mode).map_err(|e| fail(doing(), e))?;
        write(&temp.file)?;
        let kept = match &old {
            Some(facts) if meta.xattrs.is_none() => self.child_entry(&dir, &name, facts)?.meta.and_then(|m| m.xattrs),
            _ => meta.xattrs.clone(),
        };
        self.set_xattrs(&dir, &temp.name, &kept).map_err(|e| fail(doing(), e))?;
        finish(&temp, mode, meta.mtime_ns).map_err(|e| fail(doing(), e))?;
        let facts = at::facts_of(&temp.file).map_err(|e| fail(doing(), e))?;
        self.put_in_place(path, &temp, &name, condition)?;
        dir.sync().map_err(|e| fail(doing(), e))?;
        self.child_entry(&dir, &name, &facts)
    }

    /// Gives the unfinished file its name, if the condition holds at that very moment.
    fn put_in_place(&self, path: &RemotePath, temp: &Temp<'_>, name: &[u8], condition: &Condition) -> Result<()> {
        let doing = || format!("write {path}");
        let dir = temp.dir;
        let look = || dir.facts(name).map_err(|e| fail(doing(), e));
        let how = match condition {
            Condition::Absent if self.able.no_replace => How::NoReplace,
            Condition::Is(_) if self.able.exchange => How::Exchange,
            _ => How::Replace,
        };
        // Two that put back what they found could put back each other's.
        let _alone = self.exchanging.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have come while the content was written.
        let now = look()?;
        if !holds(condition, now.as_ref()) {
            return Err(precondition(path, now.as_ref()));
        }
        match dir.rename(&temp.name, dir, name, how) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST)) => {
                return Err(precondition(path, look()?.as_ref()));
            }
            Err(e) if how == How::Exchange && e.raw_os_error() == Some(libc::ENOENT) => {
                return Err(precondition(path, None));
            }
            Err(e) => return Err(fail(doing(), e)),
        }
        if how == How::Exchange {
            // What was there now has the unfinished name: the condition is checked on what was really replaced.
            let replaced = dir.facts(&temp.name).map_err(|e| fail(doing(), e))?;
            if replaced.is_some() && !holds(condition, replaced.as_ref()) {
                self.put_back(temp, name).map_err(|e| fail(doing(), e))?;
                return Err(precondition(path, replaced.as_ref()));
            }
        }
        Ok(())
    }

    /// Undoes an exchange.
    fn put_back(&self, temp: &Temp<'_>, name: &[u8]) -> io::Result<()> {
        let dir = temp.dir;
        dir.rename(&temp.name, dir, name, How::Exchange)?;
        let (ours, out) = (at::facts_of(&temp.file)?, dir.facts(&temp.name)?);
        if out.is_some_and(|out| out.ino != ours.ino) {
            // Somebody replaced our content meanwhile: theirs is the newer one, and it stays.
            dir.rename(&temp.name, dir, name, How::Exchange)?;
        }
        Ok(())
    }

    /// Makes a symbolic link. See [`crate::remote::Remote::put_link`].
    pub fn put_link(&self, path: &RemotePath, target: &[u8], meta: &Meta) -> Result<Entry> {
        let doing = || format!("make link {path}");
        let (dir, name) = self.parent(path)?;
        dir.make_link(&name, target).map_err(|e| fail(doing(), e))?;
        if let Some(mtime_ns) = meta.mtime_ns {
            dir.set_mtime(&name, mtime_ns).map_err(|e| fail(doing(), e))?;
        }
        dir.sync().map_err(|e| fail(doing(), e))?;
        self.there(path)
    }

    /// Makes a directory. See [`crate::remote::Remote::mkdir`].
    pub fn mkdir(&self, path: &RemotePath, meta: &Meta) -> Result<Entry> {
        let doing = || format!("make directory {path}");
        self.check_meta(meta)?;
        let (dir, name) = self.parent(path)?;
        dir.make_dir(&name).map_err(|e| fail(doing(), e))?;
        self.set_attributes(&dir, &name, FileKind::Directory, meta).map_err(|e| fail(doing(), e))?;
        dir.sync().map_err(|e| fail(doing(), e))?;
        self.there(path)
    }

    /// Changes attributes alone. See [`crate::remote::Remote::set_meta`].
    pub fn set_meta(&self, path: &RemotePath, directory: bool, was: Option<&Version>, meta: &Meta) -> Result<Entry> {
        let doing = || format!("set attributes of {path}");
        self.check_meta(meta)?;
        let found = self.facts(path)?.ok_or_else(|| Error::new(Kind::NotFound, format!("{path}: not there")))?;
        check_kind(path, &found, directory)?;
        if let Some(was) = was.filter(|was| version(&found) != **was) {
            return Err(precondition(path, Some(&found)).context(format!("expected {was}")));
        }
        if path.is_root() {
            return Err(Error::new(Kind::Unsupported, "the root's own attributes are the folder's owner's"));
        }
        let (dir, name) = self.parent(path)?;
        self.set_attributes(&dir, &name, found.kind, meta).map_err(|e| fail(doing(), e))?;
        // A file without read permission cannot be opened to be synced; its attributes are then as durable as any.
        if let Ok(file) = dir.open_file(&name) {
            file.sync_all().map_err(|e| fail(doing(), e))?;
        }
        self.there(path)
    }

    /// Moves. See [`crate::remote::Remote::rename`].
    pub fn rename(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        source: Option<&Version>,
        condition: &Condition,
    ) -> Result<Entry> {
        let doing = || format!("rename {from} to {to}");
        let (from_dir, from_name) = self.parent(from)?;
        let moved = from_dir.facts(&from_name).map_err(|e| fail(doing(), e))?;
        let moved = moved.ok_or_else(|| Error::new(Kind::NotFound, format!("{from}: not there")))?;
        if source.is_some_and(|wanted| moved.kind != FileKind::Directory && version(&moved) != *wanted) {
            return Err(precondition(from, Some(&moved)));
        }
        let (to_dir, to_name) = self.parent(to)?;
        if from == to {
            return self.there(to);
        }
        let target = to_dir.facts(&to_name).map_err(|e| fail(doing(), e))?;
        if !holds(condition, target.as_ref()) {
            return Err(precondition(to, target.as_ref()));
        }
        if moved.kind == FileKind::Directory && target.is_some() {
            return Err(Error::new(Kind::Exists, format!("{to}: exists")));
        }
        file_over(to, target.as_ref())?;
        if target.is_some_and(|target| target.ino == moved.ino) {
            // Two names of one file: rename(2) would keep both.
            from_dir.unlink(&from_name).map_err(|e| fail(doing(), e))?;
        } else {
            let free = target.is_none() && self.able.no_replace;
            let how = if free { How::NoReplace } else { How::Replace };
            from_dir.rename(&from_name, &to_dir, &to_name, how).map_err(|e| match e.raw_os_error() {
                Some(libc::EEXIST) => precondition(to, None).context("somebody came first"),
                _ => fail(doing(), e),
            })?;
        }
        to_dir.sync().and_then(|()| from_dir.sync()).map_err(|e| fail(doing(), e))?;
        self.there(to)
    }

    /// Removes. See [`crate::remote::Remote::remove`].
    pub fn remove(&self, path: &RemotePath, directory: bool, condition: &Condition) -> Result<()> {
        let doing = || format!("remove {path}");
        let (dir, name) = self.parent(path)?;
        let found = dir.facts(&name).map_err(|e| fail(doing(), e))?;
        let found = found.ok_or_else(|| Error::new(Kind::NotFound, format!("{path}: not there")))?;
        check_kind(path, &found, directory)?;
        if !directory && !holds(condition, Some(&found)) {
            return Err(precondition(path, Some(&found)));
        }
        if directory {
            // Leftovers are nobody's, and would keep the directory.
            self.children(path)?;
            dir.remove_dir(&name).map_err(|e| fail(doing(), e))?;
        } else {
            dir.unlink(&name).map_err(|e| fail(doing(), e))?;
        }
        dir.sync().map_err(|e| fail(doing(), e))
    }

    fn there(&self, path: &RemotePath) -> Result<Entry> {
        self.entry(path)?.ok_or_else(|| Error::new(Kind::NotFound, format!("{path}: gone again")))
    }

    fn check_meta(&self, meta: &Meta) -> Result<()> {
        let xattrs = meta.xattrs.iter().flatten();
        let bytes: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        match bytes > if self.able.xattrs { XATTR_BYTES_MAX } else { 0 } {
            true => Err(Error::new(Kind::TooLarge, format!("{bytes} bytes of extended attributes"))),
            false => Ok(()),
        }
    }

    /// Sets what is given. The mode last: it may take away the right to set the rest.
    fn set_attributes(&self, dir: &Dir, name: &[u8], kind: FileKind, meta: &Meta) -> io::Result<()> {
        if kind != FileKind::Symlink {
            self.set_xattrs(dir, name, &meta.xattrs)?;
        }
        if let Some(mtime_ns) = meta.mtime_ns {
            dir.set_mtime(name, mtime_ns)?;
        }
        match meta.mode.filter(|_| kind != FileKind::Symlink) {
            Some(mode) => dir.set_mode(name, mode),
            None => Ok(()),
        }
    }

    /// Makes the `user.` attributes exactly these; `None` leaves them.
    fn set_xattrs(&self, dir: &Dir, name: &[u8], wanted: &Option<BTreeMap<String, Vec<u8>>>) -> io::Result<()> {
        let Some(wanted) = wanted.as_ref().filter(|_| self.able.xattrs) else { return Ok(()) };
        for key in dir.xattr_names(name)?.into_iter().filter(|key| key.starts_with(b"user.")) {
            let text = std::str::from_utf8(&key);
            if text.is_ok_and(|text| !wanted.contains_key(text)) {
                dir.remove_xattr(name, &key)?;
            }
        }
        wanted.iter().try_for_each(|(key, value)| dir.set_xattr(name, key.as_bytes(), value))
    }
}

fn check_kind(path: &RemotePath, found: &Facts, directory: bool) -> Result<()> {
    match (found.kind == FileKind::Directory, directory) {
        (true, false) => Err(Error::new(Kind::IsDirectory, format!("{path}: is a directory"))),
        (false, true) => Err(Error::new(Kind::NotDirectory, format!("{path}: is not a directory"))),
        _ => Ok(()),
    }
}

/// `Changed` if the open file no longer has this version.
pub(super) fn check_version(file: &File, wanted: &Version, path: &RemotePath) -> Result<()> {
    let facts = at::facts_of(file).map_err(|e| fail(format!("read {path}"), e))?;
    match version(&facts) == *wanted {
        true => Ok(()),
        false => Err(Error::new(Kind::Changed, format!("{path}: version {wanted} is gone"))),
    }
}

/// Writes a whole body into an empty file and compares the sizes.
fn pour(body: &Body, mut file: &File) -> Result<()> {
    let (size, mut at) = (body.size(), 0);
    while at < size {
        let end = size.min(at + PIECE_BYTES);
        let piece = body.read(at..end)?;
        if piece.len() as u64 != end - at {
            return Err(Error::new(Kind::Changed, "the source gave another number of bytes"));
        }
        file.write_all(&piece).map_err(|e| fail("write", e))?;
        at = end;
    }
    let stored = at::facts_of(file).map_err(|e| fail("write", e))?.size;
    if stored == size {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("the disk holds {stored} bytes of {size}")))
}

/// Sets what a finished file has, and makes it durable.
fn finish(temp: &Temp<'_>, mode: Option<u32>, mtime_ns: Option<i64>) -> io::Result<()> {
    if let Some(mode) = mode {
        temp.dir.set_mode(&temp.name, mode)?;
    }
    if let Some(mtime_ns) = mtime_ns {
        at::set_file_mtime(&temp.file, mtime_ns)?;
    }
    temp.file.sync_all()
}
