//! The root and what lies below it: paths become open directories, names are mapped, leftovers and special files are left out.

use super::at::{Dir, Facts, How};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Meta, RemotePath, Version};
use crate::remote::{NameRules, names};
use crate::sys::{Chance, Clock};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The names on a disk: any bytes but `/` and NUL.
pub(super) const RULES: NameRules = NameRules {
    forbidden: "",
    no_control: false,
    no_trailing_dot_space: false,
    no_leading_dot: false,
    name_bytes_max: 255,
    path_bytes_max: 1 << 16,
    any_bytes: true,
};

/// What the names of unfinished files begin with. Never listed, never taken as a name.
pub(super) const TEMP_PREFIX: &str = ".~fourwheel-";

/// Unfinished files that nobody has locked are removed once they are this old: time enough to make a file and lock it.
const LEFTOVER_NS: i64 = 60_000_000_000;

/// Bytes of extended attributes kept with one file: ext4 keeps them in one block of 4 KiB, less its own headers.
pub(super) const XATTR_BYTES_MAX: usize = 3072;

/// The folder's root.
pub(super) struct Root {
    dir: Dir,
    pub path: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    pub able: Able,
    /// Held while a content is put in place.
    pub exchanging: Mutex<()>,
}

/// What the file system under the root was found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Able {
    pub no_replace: bool,
    pub exchange: bool,
    pub xattrs: bool,
}

/// One name in a directory.
pub(super) struct Child {
    /// As on the disk.
    pub name: Vec<u8>,
    /// As the trait's callers know it.
    pub mapped: String,
    pub facts: Facts,
}

/// Converts an error of the folder's disk, which is the provider here: its full disk is a full account.
pub(super) fn fail(doing: impl fmt::Display, error: io::Error) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Kind::QuotaFull,
        Some(libc::ENOTDIR | libc::ELOOP) => Kind::NotDirectory,
        Some(libc::EISDIR) => Kind::IsDirectory,
        Some(libc::EXDEV) => Kind::CrossDevice,
        Some(libc::EINVAL) => Kind::Invalid,
        // What a network or removable disk says when it is away.
        Some(libc::ESTALE | libc::ENOTCONN | libc::EHOSTDOWN | libc::ENODEV | libc::ENXIO) => Kind::Offline,
        _ => return Error::disk(doing, &error),
    };
    Error::new(kind, format!("{doing}: {error}"))
}

/// The tag of one content: another inode, birth, size or time of change is another content.
pub(super) fn version(facts: &Facts) -> Version {
    Version::new(format!("{:x}-{:x}-{:x}-{:x}", facts.ino, facts.born_ns, facts.size, facts.mtime_ns))
}

/// Whether this kind of file is shown at all.
fn shown(kind: FileKind) -> bool {
    matches!(kind, FileKind::File | FileKind::Directory | FileKind::Symlink)
}

impl Root {
    /// Opens the directory and finds out what its file system can do.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Result<Root> {
        let doing = || format!("open folder {}", path.display());
        let dir = Dir::root(path).map_err(|e| fail(doing(), e))?;
        let able = Able { no_replace: false, exchange: false, xattrs: false };
        let mut root = Root { dir, path: path.to_owned(), clock, chance, able, exchanging: Mutex::default() };
        root.able = root.probe().map_err(|e| fail(doing(), e))?;
        Ok(root)
    }

    /// Tries on two unfinished files what not every file system does.
    fn probe(&self) -> io::Result<Able> {
        let (a, b) = (self.temp_name(), self.temp_name());
        let dir = &self.dir;
        let able = match (dir.create(&a, 0o600), dir.create(&b, 0o600)) {
            (Ok(_), Ok(_)) => Able {
                no_replace: dir
                    .rename(&a, dir, &b, How::NoReplace)
                    .is_err_and(|e| e.raw_os_error() == Some(libc::EEXIST)),
                exchange: dir.rename(&a, dir, &b, How::Exchange).is_ok(),
                xattrs: dir.set_xattr(&a, b"user.fourwheel.probe", b"1").is_ok(),
            },
            // A folder that cannot be written is still a folder to read.
            _ => Able { no_replace: true, exchange: false, xattrs: dir.xattr_names(b".").is_ok() },
        };
        for name in [a, b] {
            if dir.facts(&name)?.is_some() {
                dir.unlink(&name)?;
            }
        }
        Ok(able)
    }

    /// A name for an unfinished file.
    pub fn temp_name(&self) -> Vec<u8> {
        format!("{TEMP_PREFIX}{:016x}", self.chance.next()).into_bytes()
    }

    /// The name on disk of a path's last part. `NameRefused`: no file here can be called so.
    pub fn name(path: &RemotePath) -> Result<Vec<u8>> {
        let refuse = |why: &str| Error::new(Kind::NameRefused, format!("{path}: {why}"));
        if path.is_root() {
            return Err(Error::new(Kind::Exists, "the root is always there"));
        }
        let bytes = names::decode(path.name(), &RULES);
        if bytes.starts_with(TEMP_PREFIX.as_bytes()) {
            return Err(refuse("names of that beginning are kept for unfinished files"));
        }
        match names::encode(&bytes, &RULES)? {
            mapped if mapped == path.name() => Ok(bytes),
            _ => Err(refuse("not a name as this folder spells it")),
        }
    }

    /// Opens a directory, part by part, through no link. `NotFound`, `NotDirectory`.
    pub fn dir(&self, path: &RemotePath) -> Result<Dir> {
        let doing = || format!("open {path}");
        let mut dir = self.dir.try_clone().map_err(|e| fail(doing(), e))?;
        for part in path.parts() {
            let name = Root::name(&RemotePath::new(part)).map_err(|error| match error.kind {
                Kind::NameRefused => Error::new(Kind::NotFound, error.message()),
                _ => error,
            })?;
            dir = dir.child(&name).map_err(|e| fail(doing(), e))?;
        }
        Ok(dir)
    }

    /// Opens the directory that `path` is in, and gives its name there.
    pub fn parent(&self, path: &RemotePath) -> Result<(Dir, Vec<u8>)> {
        let name = Root::name(path)?;
        let (parent, _) = path.split().unwrap_or_default();
        Ok((self.dir(&parent)?, name))
    }

    /// What is at `path`; `None` where nothing is that could be shown.
    pub fn facts(&self, path: &RemotePath) -> Result<Option<Facts>> {
        let doing = || format!("look at {path}");
        if path.is_root() {
            return self.dir.own_facts().map(Some).map_err(|e| fail(doing(), e));
        }
        let (dir, name) = match self.parent(path) {
            Ok(found) => found,
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::NotDirectory | Kind::NameRefused | Kind::NameTooLong) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let found = dir.facts(&name).map_err(|e| fail(doing(), e))?;
        Ok(found.filter(|facts| shown(facts.kind)))
    }

    /// What a call tells of what is at `path`, attributes included; `None` where nothing is.
    pub fn entry(&self, path: &RemotePath) -> Result<Option<Entry>> {
        let Some(facts) = self.facts(path)? else { return Ok(None) };
        let xattrs = match path.is_root() {
            true => self.xattrs(&self.dir, b".", &facts)?,
            false => {
                let (dir, name) = self.parent(path)?;
                self.xattrs(&dir, &name, &facts)?
            }
        };
        Ok(Some(self.entry_of(&facts, xattrs)))
    }

    /// As [`Root::entry`], of a name in an open directory.
    pub fn child_entry(&self, dir: &Dir, name: &[u8], facts: &Facts) -> Result<Entry> {
        Ok(self.entry_of(facts, self.xattrs(dir, name, facts)?))
    }

    fn entry_of(&self, facts: &Facts, xattrs: Option<BTreeMap<String, Vec<u8>>>) -> Entry {
        let directory = facts.kind == FileKind::Directory;
        Entry {
            kind: facts.kind,
            id: None,
            size: if directory { 0 } else { facts.size },
            version: (!directory).then(|| version(facts)),
            hash: None,
            server_mtime_ns: Some(facts.mtime_ns),
            meta: Some(Meta { mtime_ns: Some(facts.mtime_ns), mode: Some(facts.mode), xattrs }),
        }
    }

    /// The `user.` attributes; links have none. What vanishes or may not be read in between is told as none.
    fn xattrs(&self, dir: &Dir, name: &[u8], facts: &Facts) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
        if !self.able.xattrs {
            return Ok(None);
        }
        let mut all = BTreeMap::new();
        if facts.kind == FileKind::Symlink {
            return Ok(Some(all));
        }
        let passes = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODATA | libc::EACCES));
        let keys = match dir.xattr_names(name) {
            Ok(keys) => keys,
            Err(e) if passes(&e) => return Ok(Some(all)),
            Err(e) => return Err(fail("list extended attributes", e)),
        };
        for key in keys.into_iter().filter(|key| key.starts_with(b"user.")) {
            // The trait holds names as text; one that is not is left alone on the disk.
            let Ok(text) = String::from_utf8(key) else { continue };
            match dir.xattr(name, text.as_bytes()) {
                Ok(value) => {
                    all.insert(text, value);
                }
                Err(e) if passes(&e) => {}
                Err(e) => return Err(fail("read an extended attribute", e)),
            }
        }
        Ok(Some(all))
    }

    /// Everything in a directory that is shown, in order of the mapped names. Removes leftovers on its way.
    pub fn children(&self, path: &RemotePath) -> Result<(Dir, Vec<Child>)> {
        let doing = || format!("list {path}");
        let dir = self.dir(path)?;
        let mut children = Vec::new();
        for name in dir.names().map_err(|e| fail(doing(), e))? {
            if name.starts_with(TEMP_PREFIX.as_bytes()) {
                self.sweep_leftover(&dir, &name);
                continue;
            }
            let Some(facts) = dir.facts(&name).map_err(|e| fail(doing(), e))? else { continue };
            if shown(facts.kind) {
                let mapped = names::encode(&name, &RULES)?;
                children.push(Child { name, mapped, facts });
            }
        }
        children.sort_by(|a, b| a.mapped.cmp(&b.mapped));
        Ok((dir, children))
    }

    /// Removes an unfinished file whose writer is gone. A failure leaves it for the next listing.
    fn sweep_leftover(&self, dir: &Dir, name: &[u8]) {
        let old = |facts: &Facts| facts.mtime_ns < self.clock.wall_ns().saturating_sub(LEFTOVER_NS);
        let Ok(Some(facts)) = dir.facts(name) else { return };
        let unused = match facts.kind {
            FileKind::File => dir.open_file(name).is_ok_and(|file| super::at::try_lock(&file)),
            _ => false,
        };
        if old(&facts) && unused && dir.unlink(name).is_ok() {
            tracing::info!("removed an unfinished file in {}", self.path.display());
        }
    }
}
