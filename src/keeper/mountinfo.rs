//! The kernel's list of mounts, `/proc/self/mountinfo`.

use crate::error::{Context, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type that our mounts have: `fuse` with our name as its subtype.
pub const FS_TYPE: &str = "fuse.fourwheel";

/// One mount of this mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number of the mount; unique while it lives.
    pub id: u32,
    /// Major and minor device number; a FUSE connection is known by the minor one.
    pub device: (u32, u32),
    pub mount_point: PathBuf,
    pub fs_type: String,
    /// What the mounter gave as the source: for ours the drive's name, made harmless.
    pub source: String,
    pub read_only: bool,
}

/// All mounts, in the order of mounting: of several at one place the last is the visible one.
pub fn all() -> Result<Vec<MountEntry>> {
    let mut text = Vec::new();
    File::open("/proc/self/mountinfo")
        .and_then(|mut file| file.read_to_end(&mut text))
        .context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// The fourwheel mounts.
pub fn fourwheel() -> Result<Vec<MountEntry>> {
    Ok(all()?.into_iter().filter(|entry| entry.fs_type == FS_TYPE).collect())
}

/// The visible mount exactly at `path`, which must be absolute and without symlinks.
pub fn at(path: &Path) -> Result<Option<MountEntry>> {
    Ok(all()?.into_iter().rfind(|entry| entry.mount_point == path))
}

/// Reads the lines; one that does not parse is left out.
///
/// Source: proc_pid_mountinfo(5). `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let mount_point = fields.nth(1)?;
    let options = fields.next()?;
    // Optional fields, any number of them, end with a dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let (fs_type, source) = (fields.next()?, fields.next()?);
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(MountEntry {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        mount_point: OsString::from_vec(unescape(mount_point)).into(),
        fs_type: String::from_utf8_lossy(&unescape(fs_type)).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        read_only: options.split(|&byte| byte == b',').any(|option| option == b"ro"),
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash, hash): `\040` is a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (byte, digits) {
            (b'\\', Some(digits)) => {
                out.push(digits.iter().fold(0u8, |value, d| value.wrapping_shl(3) | (d - b'0')));
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        99 22 0:57 / /home/a\\040b/\\134x\\012y ro,nosuid,nodev shared:1 master:2 - fuse.fourwheel my\\040drive rw,user_id=0\n\
        garbage\n\
        100 22 0:58 / /home/\xff rw - fuse.sshfs host:/ rw\n";

    #[test]
    fn escapes_and_optional_fields_are_understood() {
        let found = parse(TEXT);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].mount_point, Path::new("/home/a b/\\x\ny"));
        assert_eq!((found[1].device, found[1].read_only, found[1].id), ((0, 57), true, 99));
        assert_eq!((found[1].fs_type.as_str(), found[1].source.as_str()), (FS_TYPE, "my drive"));
        assert_eq!(found[2].mount_point, PathBuf::from(OsString::from_vec(b"/home/\xff".to_vec())));
    }

    #[test]
    fn the_kernels_own_list_parses() {
        let found = all().unwrap();
        assert!(!found.is_empty());
        assert!(at(Path::new("/proc")).unwrap().is_some_and(|entry| entry.fs_type == "proc"));
    }

    #[test]
    fn a_backslash_without_three_digits_stays() {
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"\\\\040"), b"\\ ");
    }
}
