//! A directory served again, with inode numbers that survive the process: those of the directory below. It dies on request.

use fourwheel::fs::session::resent;
use fourwheel::keeper::Inherited;
use fourwheel::keeper::backings::Backing;
use fuser::*;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TTL: Duration = Duration::ZERO;

/// Small files through which test and worker talk.
#[derive(Clone)]
pub struct Control(PathBuf);

impl Control {
    pub fn new(dir: PathBuf) -> Self {
        Control(dir)
    }

    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(name)).ok()
    }

    pub fn write(&self, name: &str, text: &str) {
        let temp = self.0.join(format!(".{name}.{}", std::process::id()));
        std::fs::write(&temp, text).unwrap();
        std::fs::rename(temp, self.0.join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.0.join(name));
    }

    pub fn append(&self, name: &str, line: &str) {
        use std::io::Write;
        let mut file = File::options().append(true).create(true).open(self.0.join(name)).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

pub struct Loopback {
    tree: PathBuf,
    /// Where unlinked files live on.
    trash: PathBuf,
    control: Control,
    inherited: Arc<Inherited>,
    generation: u64,
    slow: Duration,
    passthrough: bool,
    paths: Mutex<HashMap<u64, PathBuf>>,
}

/// One request on its way.
struct Op {
    name: &'static str,
    resent: bool,
    die: bool,
}

impl Loopback {
    pub fn new(dir: &Path, inherited: Arc<Inherited>) -> Self {
        let control = Control::new(dir.join("control"));
        let slow = control.read("slow_us").map_or(0, |text| text.parse().unwrap());
        Loopback {
            tree: dir.join("tree"),
            trash: dir.join("trash"),
            passthrough: control.read("passthrough").is_some(),
            control,
            generation: inherited.generation(),
            inherited,
            slow: Duration::from_micros(slow),
            paths: Mutex::default(),
        }
    }

    /// Notes a request; dies here if told "NAME before".
    fn begin(&self, req: &Request, name: &'static str) -> Op {
        let (resent, _) = resent(req.unique().0);
        let order = self.control.read("die").filter(|order| order.split(' ').next() == Some(name));
        if resent || order.is_some() || self.control.read("log_all").is_some() {
            self.control.append("log", &format!("{} {name} {}", self.generation, if resent { "again" } else { "new" }));
        }
        let die = order.is_some();
        if die {
            self.control.remove("die");
        }
        if order.is_some_and(|order| order.ends_with("before")) {
            die_now();
        }
        std::thread::sleep(self.slow);
        Op { name, resent, die }
    }

    /// The work is done, the answer not yet given.
    fn done(&self, op: &Op) {
        if op.die {
            self.control.append("log", &format!("{} {} done", self.generation, op.name));
            die_now();
        }
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        if ino.0 == 1 {
            return Ok(self.tree.clone());
        }
        let known = self.paths.lock().unwrap().get(&ino.0).cloned();
        if let Some(path) = known
            && path.symlink_metadata().is_ok_and(|meta| meta.ino() == ino.0)
        {
            return Ok(path);
        }
        let found = find(&self.tree, ino.0).or_else(|| find(&self.trash, ino.0));
        let found = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        self.paths.lock().unwrap().insert(ino.0, found.clone());
        Ok(found)
    }

    fn attr(&self, meta: &Metadata) -> FileAttr {
        let kind = match meta.mode() & libc::S_IFMT {
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            _ => FileType::RegularFile,
        };
        let root = self.tree.metadata().unwrap().ino();
        let time = |secs: i64, ns: i64| UNIX_EPOCH + Duration::new(secs as u64, ns as u32);
        FileAttr {
            ino: INodeNo(if meta.ino() == root { 1 } else { meta.ino() }),
            size: meta.len(),
            blocks: meta.blocks(),
            atime: time(meta.atime(), meta.atime_nsec()),
            mtime: time(meta.mtime(), meta.mtime_nsec()),
            ctime: time(meta.ctime(), meta.ctime_nsec()),
            crtime: UNIX_EPOCH,
            kind,
            perm: (meta.mode() & 0o7777) as u16,
            nlink: meta.nlink() as u32,
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    fn attr_at(&self, path: &Path) -> io::Result<FileAttr> {
        Ok(self.attr(&path.symlink_metadata()?))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// Runs a call that makes something at `path`; that it is there already is right if an earlier worker made it.
    fn make(&self, op: &Op, path: &Path, call: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<FileAttr> {
        match call(path) {
            Err(e) if op.resent && e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        self.attr_at(path)
    }

    /// The backing id that a worker registered for `ino`.
    fn backing(&self, ino: u64) -> Option<u32> {
        self.inherited.backings().all().into_iter().find(|backing| backing.ino == ino).map(|backing| backing.id)
    }
}

fn die_now() -> ! {
    // SAFETY: kill(2) touches no memory.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}

fn find(dir: &Path, ino: u64) -> Option<PathBuf> {
    for entry in dir.read_dir().ok()?.flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().ok()?;
        if meta.ino() == ino {
            return Some(path);
        }
        if meta.is_dir()
            && let Some(found) = find(&path, ino)
        {
            return Some(found);
        }
    }
    None
}

fn errno(error: io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path).or_else(|_| File::open(path))
}

fn answer<T, R>(result: io::Result<T>, reply: R, yes: impl FnOnce(R, T), no: impl FnOnce(R, Errno)) {
    match result {
        Ok(value) => yes(reply, value),
        Err(e) => no(reply, errno(e)),
    }
}

fn entry(result: io::Result<FileAttr>, reply: ReplyEntry) {
    answer(result, reply, |reply, attr| reply.entry(&TTL, &attr, Generation(0)), ReplyEntry::error);
}

fn empty(result: io::Result<()>, reply: ReplyEmpty) {
    answer(result, reply, |reply, ()| reply.ok(), ReplyEmpty::error);
}

impl Filesystem for Loopback {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC | InitFlags::FUSE_PARALLEL_DIROPS);
        if self.passthrough {
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).unwrap();
            config.set_max_stack_depth(1).unwrap();
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let op = self.begin(req, "lookup");
        let found = self.child(parent, name).and_then(|path| self.attr_at(&path));
        self.done(&op);
        entry(found, reply);
    }

    fn forget(&self, req: &Request, _ino: INodeNo, _nlookup: u64) {
        let op = self.begin(req, "forget");
        self.done(&op);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let op = self.begin(req, "getattr");
        let found = self.path(ino).and_then(|path| self.attr_at(&path));
        self.done(&op);
        answer(found, reply, |reply, attr| reply.attr(&TTL, &attr), ReplyAttr::error);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        use std::os::unix::fs::PermissionsExt;
        let op = self.begin(req, "setattr");
        let work = || {
            let path = self.path(ino)?;
            if let Some(size) = size {
                open(&path)?.set_len(size)?;
            }
            if let Some(mode) = mode {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o7777))?;
            }
            self.attr_at(&path)
        };
        let result = work();
        self.done(&op);
        answer(result, reply, |reply, attr| reply.attr(&TTL, &attr), ReplyAttr::error);
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        use std::os::unix::ffi::OsStrExt;
        let op = self.begin(req, "readlink");
        let target = self.path(ino).and_then(std::fs::read_link);
        self.done(&op);
        answer(target, reply, |reply, target| reply.data(target.as_os_str().as_bytes()), ReplyData::error);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let op = self.begin(req, "mkdir");
        let made = self.child(parent, name).and_then(|path| self.make(&op, &path, |path| std::fs::create_dir(path)));
        self.done(&op);
        entry(made, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let op = self.begin(req, "symlink");
        let made = self
            .child(parent, name)
            .and_then(|path| self.make(&op, &path, |path| std::os::unix::fs::symlink(target, path)));
        self.done(&op);
        entry(made, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = self.begin(req, "unlink");
        let work = || {
            let path = self.child(parent, name)?;
            let ino = match path.symlink_metadata() {
                Err(_) if op.resent => return Ok(()),
                found => found?.ino(),
            };
            std::fs::rename(&path, self.trash.join(ino.to_string()))
        };
        let result = work();
        self.done(&op);
        empty(result, reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = self.begin(req, "rmdir");
        let result = match self.child(parent, name).and_then(std::fs::remove_dir) {
            Err(e) if op.resent && e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        self.done(&op);
        empty(result, reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let op = self.begin(req, "rename");
        let work = || {
            let (from, to) = (self.child(parent, name)?, self.child(newparent, newname)?);
            match std::fs::rename(from, to) {
                Err(e) if op.resent && e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        };
        let result = work();
        self.done(&op);
        empty(result, reply);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let op = self.begin(req, "open");
        let path = match self.path(ino) {
            Ok(path) => path,
            Err(e) => return reply.error(errno(e)),
        };
        let file = match open(&path) {
            Ok(file) if flags.0 & libc::O_TRUNC != 0 => file.set_len(0).map(|()| file),
            other => other,
        };
        let file = match file {
            Ok(file) => file,
            Err(e) => return reply.error(errno(e)),
        };
        let named = |prefix: &str| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if self.passthrough && named("through") {
            let known = self.backing(ino.0).filter(|_| self.control.read("fresh_ids").is_none());
            let raw = match known.map(Ok).unwrap_or_else(|| reply.open_backing(&file).map(BackingId::into_raw)) {
                Ok(raw) => raw,
                Err(e) => return reply.error(errno(e)),
            };
            if known.is_none() {
                // Before the reply: the next worker must know it as soon as the program goes on.
                assert!(self.inherited.backings().remember(Backing { id: raw, ino: ino.0 }));
            }
            // SAFETY: a worker of this mount registered it, and none ever closes it.
            let id = unsafe { reply.wrap_backing(raw) };
            self.done(&op);
            reply.opened_passthrough(FileHandle(7), FopenFlags::empty(), &id);
            id.into_raw();
            return;
        }
        self.done(&op);
        let mode = match () {
            () if named("direct") => FopenFlags::FOPEN_DIRECT_IO,
            () if named("keep") => FopenFlags::FOPEN_KEEP_CACHE,
            () => FopenFlags::empty(),
        };
        reply.opened(FileHandle(7), mode);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let op = self.begin(req, "create");
        let exclusive = flags & libc::O_EXCL != 0;
        let create = |path: &Path| {
            let mut options = File::options();
            options.write(true).create(true).create_new(exclusive).mode(mode & 0o7777).open(path).map(drop)
        };
        let made = self.child(parent, name).and_then(|path| self.make(&op, &path, create));
        self.done(&op);
        let yes = |reply: ReplyCreate, attr| {
            reply.created(&TTL, &attr, Generation(0), FileHandle(7), FopenFlags::empty());
        };
        answer(made, reply, yes, ReplyCreate::error);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let op = self.begin(req, "read");
        let work = || {
            let mut data = vec![0; size as usize];
            let len = open(&self.path(ino)?)?.read_at(&mut data, offset)?;
            data.truncate(len);
            Ok(data)
        };
        let result = work();
        self.done(&op);
        answer(result, reply, |reply, data| reply.data(&data), ReplyData::error);
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = self.begin(req, "write");
        let result = self.path(ino).and_then(|path| open(&path)?.write_all_at(data, offset));
        self.done(&op);
        answer(result, reply, |reply, ()| reply.written(data.len() as u32), ReplyWrite::error);
    }

    fn flush(&self, req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let op = self.begin(req, "flush");
        self.done(&op);
        reply.ok();
    }

    fn fsync(&self, req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let op = self.begin(req, "fsync");
        let result = self.path(ino).and_then(|path| open(&path)?.sync_data());
        self.done(&op);
        empty(result, reply);
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let op = self.begin(req, "release");
        self.done(&op);
        reply.ok();
    }

    fn opendir(&self, req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let op = self.begin(req, "opendir");
        self.done(&op);
        reply.opened(FileHandle(8), FopenFlags::empty());
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let op = self.begin(req, "readdir");
        let list = self.path(ino).and_then(|path| path.read_dir()?.collect::<io::Result<Vec<_>>>());
        self.done(&op);
        let mut list = match list {
            Ok(list) => list,
            Err(e) => return reply.error(errno(e)),
        };
        list.sort_by_key(std::fs::DirEntry::file_name);
        for (at, entry) in list.iter().enumerate().skip(offset as usize) {
            let meta = entry.path().symlink_metadata().unwrap();
            if reply.add(self.attr(&meta).ino, at as u64 + 1, self.attr(&meta).kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, req: &Request, _ino: INodeNo, _fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let op = self.begin(req, "releasedir");
        self.done(&op);
        reply.ok();
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let op = self.begin(req, "statfs");
        self.done(&op);
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1000, 1000, 4096, 255, 4096);
    }
}
