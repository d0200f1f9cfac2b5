//! Addresses of sockets, also where the path is too long for one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest path that fits into `sun_path`, bytes (unix(7): 108 with the NUL).
const PATH_BYTES_MAX: usize = 107;

/// A path to bind or connect to; keep it until that is done.
pub struct Address {
    path: PathBuf,
    /// Keeps the directory's descriptor open while the path goes through it.
    _directory: Option<File>,
}

impl Address {
    /// The address of the socket at `path`. A long one goes through the descriptor of its directory.
    #[allow(clippy::disallowed_methods, reason = "a descriptor for an address, not a file's content")]
    pub fn new(path: &Path) -> io::Result<Address> {
        if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
            return Ok(Address { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let directory = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Address { path, _directory: Some(directory) })
    }

    /// What to bind or connect to.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}
