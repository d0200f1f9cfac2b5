//! What a mount says of itself. The field names are a contract: other programs read `fourwheel status --json`.

use super::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many entries the lists in a status hold at most; the counts beside them say how many there are.
pub const LIST_MAX: usize = 1000;

/// One mount. Paths of files are relative to the mount point, without a leading slash; what is not UTF-8 in them is shown
/// with replacement characters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The drive's name, as given to `mount`, without secrets.
    pub drive: String,
    pub mountpoint: String,
    /// The worker's process id.
    pub pid: u32,
    /// The worker's version.
    pub version: String,
    /// What the remote is, without secrets: `webdav https://host/dav/`.
    pub remote: String,
    /// Whether the remote answered when it was asked last.
    pub online: bool,
    pub read_only: bool,
    /// Files whose bytes, names or attributes the remote does not have yet; without those in `failed`.
    pub pending_files: u64,
    /// Bytes that are still to be sent for them.
    pub pending_bytes: u64,
    /// Files that cannot be saved as they are: at most [`LIST_MAX`] of them, by path.
    pub failed: Vec<Failed>,
    /// How many they are in all.
    pub failed_files: u64,
    /// Conflict copies that nobody has removed yet; `fourwheel conflicts` lists them.
    pub conflicts: u64,
    /// Uploads that run now.
    pub uploading: Vec<Upload>,
    /// Bytes sent per second, over the last seconds.
    pub upload_bytes_per_s: u64,
    /// Bytes received per second, over the last seconds.
    pub download_bytes_per_s: u64,
    /// When the remote last confirmed a file; `None` before the first time.
    pub last_saved: Option<Time>,
    pub last_error: Option<LastError>,
    /// Bytes on disk that clean blocks take.
    pub cache_bytes: u64,
    /// The bound on cache, journal and database together.
    pub cache_bytes_max: u64,
    /// Bytes on disk that files waiting for upload take.
    pub journal_bytes: u64,
    /// Files that stay on this machine for their name (`local_only`).
    pub local_only_files: u64,
    /// Why nothing is sent: set after repeated deaths of the worker; `None` in good health.
    pub safe_mode: Option<String>,
    /// How far the tree is known.
    pub sweep: Sweep,
    /// Calls to the remote since the worker started, by name.
    pub requests: BTreeMap<String, u64>,
}

/// A file that cannot be saved as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub path: String,
    /// In words, with what to do.
    pub reason: String,
}

/// An upload that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    pub path: String,
    /// Bytes that the remote has acknowledged.
    pub done: u64,
    /// Bytes in all.
    pub size: u64,
}

/// What went wrong last, even if it has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    pub when: Time,
    pub text: String,
}

/// How far the remote's tree is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Whether a sweep runs now.
    pub running: bool,
    /// Entries that it has seen so far; of the last one where none runs.
    pub entries: u64,
    /// When the whole tree was last seen; `None`: never yet.
    pub complete: Option<Time>,
}

/// The answer to "may I switch off?".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// As in [`Status`].
    pub pending_files: u64,
    pub pending_bytes: u64,
    pub failed: Vec<Failed>,
    pub failed_files: u64,
    pub upload_bytes_per_s: u64,
    pub online: bool,
}

/// A file that was changed here and on the remote: both are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Where the remote's content is.
    pub path: String,
    /// Where the content written here is.
    pub copy: String,
    pub when: Time,
}

/// What pinning brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Files at and below the path.
    pub files: u64,
    /// Bytes of theirs that are not on this machine yet; they are being fetched (0 after unpinning).
    pub missing_bytes: u64,
}

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What was looked at, and how many of each, in words.
    pub checked: BTreeMap<String, u64>,
    /// One line each, with what was done about it or what to do.
    pub problems: Vec<String>,
}
