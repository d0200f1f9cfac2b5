//! Reading `/proc/self/mountinfo` (proc(5)): which of our mounts there are, and what stands at a mount point.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which the kernel lists our mounts.
pub const SUBTYPE: &str = "fuse.fourwheel";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub mount_point: PathBuf,
    /// The file system's type, `fuse.fourwheel` for ours.
    pub kind: String,
    pub source: String,
    /// The device's minor number: the connection's number under `/sys/fs/fuse/connections`.
    pub minor: u32,
}

/// All mounts that this process sees; empty where procfs cannot be read.
#[allow(clippy::disallowed_methods, reason = "procfs is no disk")]
pub fn mounts() -> Vec<Mounted> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// The topmost mount at exactly this path.
pub fn at(mount_point: &Path) -> Option<Mounted> {
    mounts().into_iter().rfind(|m| m.mount_point == mount_point)
}

/// Our mounts.
pub fn ours() -> Vec<Mounted> {
    mounts().into_iter().filter(|m| m.kind == SUBTYPE).collect()
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(rest.next()?)).into_owned();
    Some(Mounted { mount_point, kind, source, minor })
}

/// Undoes the octal escapes of blanks, tabs, newlines and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let octal = field.get(at + 1..at + 4).filter(|d| d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(digits) if field[at] == b'\\' => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                at += 4;
            }
            _ => {
                out.push(field[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_is_read() {
        let line = br"36 35 0:98 / /mnt/a\040b rw,nosuid shared:1 - fuse.fourwheel work\134x rw,user_id=0";
        let found = parse(line).unwrap();
        assert_eq!(found.mount_point, Path::new("/mnt/a b"));
        assert_eq!((found.kind.as_str(), found.source.as_str(), found.minor), (SUBTYPE, "work\\x", 98));
    }
}
