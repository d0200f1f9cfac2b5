//! Which mounts there are: what the kernel says, put beside our own records.

use super::record::Record;
use crate::error::{Context, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type by which the kernel lists our mounts.
const FS_TYPE: &str = "fuse.fourwheel";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub mountpoint: PathBuf,
    pub presence: Presence,
    /// `None`: another user's, or its record was lost.
    pub record: Option<Record>,
}

/// Whether the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Mounted,
    /// A record without a mount: the keeper was killed, or the machine went down.
    Gone,
}

/// All mounts of this machine that are ours by type, and the records in `records_dir` that have none; by mount point.
pub fn known(records_dir: &Path) -> Result<Vec<Mount>> {
    Ok(joined(mountinfo()?, Record::all(records_dir)?))
}

/// The mount points of type `fuse.fourwheel`, as the kernel lists them for this process.
#[allow(clippy::disallowed_methods, reason = "the kernel's list, not a disk")]
pub fn mountinfo() -> Result<Vec<PathBuf>> {
    let bytes = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&bytes))
}

/// proc_pid_mountinfo(5): fields by blanks; the fifth is the mount point, the type follows the field `-`.
fn parse(mountinfo: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mountinfo.split(|b| *b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let fs_type = fields.iter().position(|field| *field == b"-").and_then(|at| fields.get(at + 1));
        if let (Some(point), Some(kind)) = (fields.get(4), fs_type)
            && *kind == FS_TYPE.as_bytes()
        {
            found.push(PathBuf::from(OsString::from_vec(unescape(point))));
        }
    }
    found
}

/// Blank, tab, line feed and backslash come as `\040` and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn joined(mut mounted: Vec<PathBuf>, records: Vec<Record>) -> Vec<Mount> {
    mounted.sort();
    mounted.dedup();
    let mut mounts: Vec<Mount> = records
        .into_iter()
        .map(|record| {
            let presence = if mounted.contains(&record.mountpoint) { Presence::Mounted } else { Presence::Gone };
            Mount { mountpoint: record.mountpoint.clone(), presence, record: Some(record) }
        })
        .collect();
    for mountpoint in mounted {
        if mounts.iter().all(|mount| mount.mountpoint != mountpoint) {
            mounts.push(Mount { mountpoint, presence: Presence::Mounted, record: None });
        }
    }
    mounts.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    mounts
}

/// The mount that `path` (absolute) lies in, the innermost, and the rest of the path below it.
pub fn within<'a>(mounts: &'a [Mount], path: &Path) -> Option<(&'a Mount, PathBuf)> {
    let inside = |mount: &&Mount| path.starts_with(&mount.mountpoint);
    let mount = mounts.iter().filter(inside).max_by_key(|mount| mount.mountpoint.as_os_str().len())?;
    let rest = path.strip_prefix(&mount.mountpoint).ok()?;
    Some((mount, rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_found_and_others_passed_over() {
        let text = b"36 35 98:0 / /mnt rw - ext4 /dev/root rw\n\
            40 35 0:50 / /home/u/My\\040Drive\\134 rw,nosuid shared:2 master:1 - fuse.fourwheel work rw\n\
            41 35 0:51 / /x rw - fuse.sshfs fuse.fourwheel rw\ngarbage\n\n";
        assert_eq!(parse(text), [PathBuf::from("/home/u/My Drive\\")]);
        assert_eq!(unescape(b"a\\9\\04"), b"a\\9\\04");
    }

    #[test]
    fn records_and_mounts_are_put_beside_each_other() {
        let record = |at: &str| Record::new("d", Path::new(at), Path::new("/s"), Path::new("/s/control"), 1, 2);
        let mounts = joined(vec!["/b".into(), "/a/in".into(), "/b".into()], vec![record("/a"), record("/b")]);
        let seen: Vec<_> =
            mounts.iter().map(|m| (m.mountpoint.to_str().unwrap(), m.presence, m.record.is_some())).collect();
        let wanted =
            [("/a", Presence::Gone, true), ("/a/in", Presence::Mounted, false), ("/b", Presence::Mounted, true)];
        assert_eq!(seen, wanted);
        let (mount, rest) = within(&mounts, Path::new("/a/in/x/y")).unwrap();
        assert_eq!((mount.mountpoint.to_str(), rest.to_str()), (Some("/a/in"), Some("x/y")));
        assert!(within(&mounts, Path::new("/ab")).is_none());
    }
}
