//! The header file: whose bytes these are, should `drive.db` be lost.
//!
//! Two lines of text: JSON, and the CRC32C of the first line in hexadecimal.

use crate::model::{Ino, Version};
use crate::sys::{Disk, Open};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::path::Path;

/// The layout written by this program.
const FORMAT: u32 = 1;

/// Whose bytes a staged file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub ino: Ino,
    /// The path on the mount when it was staged, without a leading slash.
    pub path: Vec<u8>,
    /// The provider's stable id, where there is one.
    pub remote_id: Option<String>,
}

/// The clean version that a staged file started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub version: String,
    /// Bytes of that version.
    pub size: u64,
}

impl Base {
    /// The version's tag.
    pub fn version(&self) -> Version {
        Version(self.version.clone())
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    format: u32,
    ino: u64,
    /// Lossy where the path is not UTF-8; `raw_path` then has the bytes.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_path: Option<Vec<u8>>,
    pub remote_id: Option<String>,
    pub base: Option<Base>,
    /// Grows when bytes change after an upload of them began.
    pub generation: u64,
    /// Whether a log says what is valid. If not, every byte of the data file is.
    pub logged: bool,
    /// Ranges (start, end) that were valid when the file was staged; with a log only.
    pub present: Vec<(u64, u64)>,
}

impl Header {
    /// A header of a file that is being staged.
    pub fn new(identity: Identity, base: Option<Base>, present: Vec<Range<u64>>) -> Header {
        let path = String::from_utf8_lossy(&identity.path).into_owned();
        let raw_path = (path.as_bytes() != identity.path).then_some(identity.path);
        Header {
            format: FORMAT,
            ino: identity.ino.get(),
            path,
            raw_path,
            remote_id: identity.remote_id,
            logged: base.is_some(),
            base,
            generation: 1,
            present: present.into_iter().map(|r| (r.start, r.end)).collect(),
        }
    }

    /// The inode; `None` for a header that names none.
    pub fn ino(&self) -> Option<Ino> {
        Ino::new(self.ino)
    }

    /// The path on the mount when it was staged, in bytes.
    pub fn path_bytes(&self) -> Vec<u8> {
        self.raw_path.clone().unwrap_or_else(|| self.path.clone().into_bytes())
    }

    /// Names another path.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = String::from_utf8_lossy(path).into_owned();
        self.raw_path = (self.path.as_bytes() != path).then(|| path.to_vec());
    }

    fn text(&self) -> io::Result<String> {
        let json = serde_json::to_string(self)?;
        let sum = crc32c::crc32c(json.as_bytes());
        Ok(format!("{json}\n{sum:08x}\n"))
    }

    /// Writes the header of a file that has none; not durable until synced.
    pub fn create(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let file = disk.open(path, Open::Create)?;
        file.set_len(0)?;
        file.write_at(self.text()?.as_bytes(), 0)
    }

    /// Replaces the header so that a crash leaves the old one or the new one, whole. Synced before it takes its place.
    pub fn replace(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let temp = path.with_extension("head-new");
        let file = disk.open(&temp, Open::Create)?;
        file.set_len(0)?;
        file.write_at(self.text()?.as_bytes(), 0)?;
        file.sync()?;
        disk.rename(&temp, path)
    }

    /// Reads a header; `None` for one that does not parse or whose checksum is wrong.
    pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Header>> {
        let file = match disk.open(path, Open::Existing) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = vec![0; file.stat()?.size.min(1 << 20) as usize];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Header::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Option<Header> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (json, sum) = text.split_once('\n')?;
        let sum = u32::from_str_radix(sum.trim_end(), 16).ok()?;
        if crc32c::crc32c(json.as_bytes()) != sum {
            return None;
        }
        serde_json::from_str::<Header>(json).ok().filter(|h| h.format == FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_torn_one_does_not() {
        let identity = Identity { ino: Ino::ROOT, path: b"a/\xff".to_vec(), remote_id: None };
        let header =
            Header::new(identity, Some(Base { version: "v".into(), size: 3 }), std::iter::once(0..3).collect());
        let text = header.text().unwrap();
        assert_eq!(Header::parse(text.as_bytes()), Some(header.clone()));
        assert_eq!(header.path_bytes(), b"a/\xff");
        for cut in 0..text.len() - 1 {
            assert_eq!(Header::parse(&text.as_bytes()[..cut]), None, "cut at {cut}");
        }
    }
}
