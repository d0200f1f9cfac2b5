//! A directory entry's name as programs on the mount see it.

use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The longest name in bytes: NAME_MAX of Linux.
pub const NAME_BYTES_MAX: usize = 255;

/// A name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`. Any other bytes, UTF-8 or not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    ///
    /// [`Kind::NameTooLong`]: over 255 bytes. [`Kind::NameRefused`]: empty, `.`, `..`, or with `/` or NUL.
    pub fn new(bytes: &[u8]) -> Result<Name> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Error::new(Kind::NameTooLong, format!("name of {} bytes", bytes.len())));
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            let shown = String::from_utf8_lossy(bytes).escape_debug().to_string();
            return Err(Error::new(Kind::NameRefused, format!("\"{shown}\" is not a file name")));
        }
        Ok(Name(bytes.into()))
    }

    /// The longest name in bytes.
    pub const fn bytes_max() -> usize {
        NAME_BYTES_MAX
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name for calls of the standard library.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Display for Name {
    /// Writes the name safe for a terminal: control characters and bytes that are not UTF-8 are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_forbids_is_refused_and_all_else_taken() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::new(bad).unwrap_err().kind, Kind::NameRefused);
        }
        assert_eq!(Name::new(&[b'x'; 256]).unwrap_err().kind, Kind::NameTooLong);
        assert_eq!(Name::new(b"a\xff\n").unwrap().to_string(), "a\\xff\\n");
    }
}
