//! A drive's state directory: found, checked, and held by one process at a time.

use super::words;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Disk, RealDisk};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The layout of the directory as a whole; each file in it has a version of its own besides.
const FORMAT: u32 = 1;

/// What the file `format` begins with.
const FORMAT_WORD: &str = "fourwheel-state";

/// Names that may be there before `format` is: they hold nothing of a person's.
const HARMLESS: [&str; 6] = ["lock", "format", "format.new", "log", "log.1", "control"];

/// Names that are only there once `format` was.
const OURS: [&str; 2] = ["drive.db", "journal"];

/// A state directory, locked until this is dropped or the process ends, however it ends.
///
/// The lock is flock(2) on the file `lock`, which holds the pid of its holder in decimal for messages.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens `path`, made where it is absent, with mode 0700.
    ///
    /// * [`Kind::InUse`]: another process holds it; its pid is in the message.
    /// * [`Kind::Newer`]: a newer version wrote it. [`Kind::Corrupt`]: it says nothing readable of its version.
    /// * [`Kind::Config`]: it holds files of something else. Nothing is changed then.
    /// * The kinds of the local disk.
    pub fn open(path: &Path) -> Result<StateDir> {
        let shown = words::path(path);
        RealDisk.make_dirs(path).context(format!("make the state directory {shown}"))?;
        check_content(path, &shown)?;
        let lock = lock(path, &shown)?;
        restrict(path).context(format!("close the state directory {shown} to other users"))?;
        check_format(path, &shown)?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

fn check_content(path: &Path, shown: &str) -> Result<()> {
    let names = RealDisk.list(path).context(format!("read the state directory {shown}"))?;
    if names.iter().any(|name| name == "format") {
        return Ok(());
    }
    if let Some(name) = names.iter().find(|name| OURS.contains(&name.as_str())) {
        return Err(Error::new(
            Kind::Corrupt,
            format!(
                "the state directory {shown} has a {name} but no readable file \"format\"; nothing was changed. \
                 Restore that file (one line: \"{FORMAT_WORD} {FORMAT}\") if this version wrote the directory"
            ),
        ));
    }
    // `@` begins the state of a part of this drive.
    match names.iter().find(|name| !HARMLESS.contains(&name.as_str()) && !name.starts_with('@')) {
        Some(name) => Err(Error::new(
            Kind::Config,
            format!(
                "{shown} is no state directory of fourwheel: it holds \"{}\"; set state_dir to an empty directory",
                words::escape(name)
            ),
        )),
        None => Ok(()),
    }
}

#[allow(clippy::disallowed_methods, reason = "flock(2) is not for the simulated disk: one process, one drive there")]
fn lock(path: &Path, shown: &str) -> Result<File> {
    let doing = || format!("lock the state directory {shown}");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock")).context(doing())?;
    // SAFETY: the descriptor is open for the whole call.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return Err(Error::disk(doing(), &error));
        }
        let mut pid = String::new();
        // Only for the message: what cannot be read is left out.
        let _ = (&file).take(20).read_to_string(&mut pid);
        let pid = pid.trim().parse::<u32>().map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        return Err(Error::new(
            Kind::InUse,
            format!(
                "another fourwheel{pid} works with the state directory {shown}; unmount that drive first, or give this \
                 one its own state_dir"
            ),
        ));
    }
    let pid = format!("{}\n", std::process::id());
    file.rewind()
        .and_then(|()| file.write_all(pid.as_bytes()))
        .and_then(|()| file.set_len(pid.len() as u64))
        .context(doing())?;
    Ok(file)
}

/// Other users have no business in it. One that we do not own is left as its owner made it.
fn restrict(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    // SAFETY: geteuid(2) always succeeds.
    let ours = metadata.uid() == unsafe { libc::geteuid() };
    if ours && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "before there is a drive")]
fn check_format(path: &Path, shown: &str) -> Result<()> {
    let file = path.join("format");
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return write_format(path, &file),
        Err(e) => return Err(Error::disk(format!("read {shown}/format"), &e)),
    };
    let version = text.trim().strip_prefix(FORMAT_WORD).and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(version) if version == FORMAT => Ok(()),
        Some(version) if version > FORMAT => Err(Error::new(
            Kind::Newer,
            format!(
                "the state directory {shown} was written by a newer fourwheel (format {version}, this one knows \
                 {FORMAT}); nothing was changed. Install that version again"
            ),
        )),
        _ => Err(Error::new(
            Kind::Corrupt,
            format!(
                "the state directory {shown} is damaged: its file \"format\" is not readable; nothing was changed. \
                 It should be one line: \"{FORMAT_WORD} {FORMAT}\""
            ),
        )),
    }
}

fn write_format(path: &Path, file: &Path) -> Result<()> {
    let temp = path.join("format.new");
    let line = format!("{FORMAT_WORD} {FORMAT}\n");
    let write = || {
        let new = RealDisk.open(&temp, crate::sys::Open::Create)?;
        new.set_len(0)?;
        new.write_at(line.as_bytes(), 0)?;
        new.sync()?;
        RealDisk.rename(&temp, file)?;
        RealDisk.sync_dir(path)
    };
    write().context(format!("write {}", words::path(file)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "fixtures")]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_the_other_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        let held = StateDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let refused = StateDir::open(&path).unwrap_err();
        assert_eq!(refused.kind, Kind::InUse);
        assert!(refused.message().contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(held);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_newer_a_damaged_and_a_foreign_directory_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content, kind) in [
            ("format", "fourwheel-state 2\n", Kind::Newer),
            ("format", "", Kind::Corrupt),
            ("format", "\u{0}\u{0}", Kind::Corrupt),
            ("drive.db", "x", Kind::Corrupt),
            ("letter.odt", "x", Kind::Config),
        ] {
            let path = dir.path().join("state");
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(name), content).unwrap();
            assert_eq!(StateDir::open(&path).unwrap_err().kind, kind, "{name} {content:?}");
            assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), content);
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
}
