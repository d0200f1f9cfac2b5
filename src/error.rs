//! What can go wrong, as few kinds: one kind has one errno and one retry rule, and both are chosen here and nowhere else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, from the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Asked, and it is not there.
    NotFound,
    /// Something of that name is already there.
    Exists,
    NotEmpty,
    NotDirectory,
    IsDirectory,
    /// The account or the file's mode does not allow it.
    Denied,
    /// The operation itself is not allowed here (hard links, for one).
    NotPermitted,
    /// The provider refuses the credentials: a person must sign in again.
    SignIn,
    /// The provider could not be reached.
    Offline,
    /// A deadline passed without an answer.
    TimedOut,
    /// A signal ended the caller's wait.
    Interrupted,
    /// The provider asks to slow down (429, 503).
    Throttled,
    /// The provider failed in a way that may pass (5xx, locks).
    Unavailable,
    /// The provider's account is full.
    QuotaFull,
    /// The local disk, or the bound set on the cache, is full.
    NoSpace,
    TooLarge,
    /// The provider, or Linux, refuses this name.
    NameRefused,
    NameTooLong,
    Unsupported,
    Invalid,
    /// A condition (If-Match, If-None-Match) did not hold: somebody else was there first.
    Precondition,
    /// The version asked for is no longer served.
    Changed,
    /// Bytes are not what they must be.
    Corrupt,
    ReadOnly,
    /// No extended attribute of that name.
    NoAttribute,
    /// The caller's buffer is too small.
    Range,
    /// A handle or inode that no longer means anything.
    Stale,
    CrossDevice,
    /// The settings, or the command, cannot be used.
    Config,
    /// Another process works with this state directory.
    InUse,
    /// Written by a newer version of fourwheel.
    Newer,
    /// The directory to mount on, or to act on, is not one that can be.
    MountPoint,
    /// The local disk failed.
    Disk,
}

/// When a failed remote call may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Repeating cannot help.
    Never,
    /// It may pass by itself; repeat with back-off.
    Later,
}

impl Kind {
    /// The errno the kernel sees. The only place in the crate that chooses one.
    pub const fn errno(self) -> libc::c_int {
        match self {
            Kind::NotFound => libc::ENOENT,
            Kind::Exists => libc::EEXIST,
            Kind::NotEmpty => libc::ENOTEMPTY,
            Kind::NotDirectory => libc::ENOTDIR,
            Kind::IsDirectory => libc::EISDIR,
            Kind::Denied | Kind::SignIn => libc::EACCES,
            Kind::NotPermitted => libc::EPERM,
            Kind::Offline => libc::ENETUNREACH,
            Kind::TimedOut => libc::ETIMEDOUT,
            Kind::Interrupted => libc::EINTR,
            Kind::Throttled => libc::EAGAIN,
            Kind::Unavailable | Kind::Corrupt | Kind::Disk | Kind::Precondition => libc::EIO,
            Kind::QuotaFull => libc::EDQUOT,
            Kind::NoSpace => libc::ENOSPC,
            Kind::TooLarge => libc::EFBIG,
            Kind::NameRefused | Kind::Invalid | Kind::Config => libc::EINVAL,
            Kind::NameTooLong => libc::ENAMETOOLONG,
            Kind::Unsupported => libc::EOPNOTSUPP,
            Kind::Changed | Kind::Stale => libc::ESTALE,
            Kind::ReadOnly => libc::EROFS,
            Kind::NoAttribute => libc::ENODATA,
            Kind::Range => libc::ERANGE,
            Kind::CrossDevice => libc::EXDEV,
            Kind::InUse => libc::EBUSY,
            Kind::Newer => libc::EPROTO,
            Kind::MountPoint => libc::ENOTDIR,
        }
    }

    /// Whether a remote call that failed so may be repeated.
    pub const fn retry(self) -> Retry {
        match self {
            Kind::Offline | Kind::TimedOut | Kind::Throttled | Kind::Unavailable => Retry::Later,
            _ => Retry::Never,
        }
    }
}

/// A kind, and a message that goes from the task, in the user's nouns, to the cause.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    message: String,
    /// How long the provider asked to wait (`Retry-After`), where it said so.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Makes an error. `message` says what happened, without a trailing full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), retry_after: None }
    }

    /// Adds the provider's wish for how long to wait.
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Puts what was being done in front: `read block 7 of "a.jpg": connection refused`.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The errno of this error's kind.
    pub fn errno(&self) -> libc::c_int {
        self.kind.errno()
    }

    /// The message without the kind.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Converts an error of the local disk; ENOSPC, EDQUOT, ENOENT and the like keep their meaning.
    pub fn disk(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Kind::NoSpace,
            Some(libc::ENOENT) => Kind::NotFound,
            Some(libc::EEXIST) => Kind::Exists,
            Some(libc::ENOTEMPTY) => Kind::NotEmpty,
            Some(libc::EACCES | libc::EPERM) => Kind::Denied,
            Some(libc::EROFS) => Kind::ReadOnly,
            Some(libc::EXDEV) => Kind::CrossDevice,
            Some(libc::EFBIG) => Kind::TooLarge,
            Some(libc::ENAMETOOLONG) => Kind::NameTooLong,
            Some(libc::EINVAL) => Kind::Invalid,
            _ => Kind::Disk,
        };
        Error::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to the error of a result.
pub trait Context<T> {
    /// Puts `doing` in front of the message.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.context(doing))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::disk(doing, &error))
    }
}
