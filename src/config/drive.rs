//! What a drive is made of: its remote, its directories, its settings.

use super::password::Password;
use super::patterns::Patterns;
use super::secret::{self, Secret};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// One drive, complete and checked: what a worker needs, whether it came from a file, from the command line or from rclone.
///
/// Serialized it holds secrets in plain text: only for the hand-over to our own worker ([`Drive::hand_over`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drive {
    /// Its name in messages and in `status`; for a drive given in place, what was typed without its secrets.
    pub name: String,
    pub remote: RemoteSpec,
    /// Absolute. The metadata, the journal, the log and the control socket live here.
    pub state_dir: PathBuf,
    /// Absolute. Neither the state directory nor above it, so that clearing a cache loses nothing.
    pub cache_dir: PathBuf,
    pub settings: Settings,
}

/// Which remote, and how to get in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RemoteSpec {
    /// A model in memory; it ends with the worker.
    Memory,
    Folder(FolderSpec),
    WebDav(WebDavSpec),
    S3(S3Spec),
}

/// A directory of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderSpec {
    /// Absolute.
    pub path: PathBuf,
}

/// A collection on a WebDAV server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebDavSpec {
    /// `http` or `https`, without user information, ending in `/`. Percent-encoded. `endpoint` is already applied.
    pub url: String,
    pub sign_in: SignIn,
    pub http: HttpSpec,
}

/// How to sign in on a WebDAV server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SignIn {
    Nobody,
    /// Basic or Digest, as the server asks.
    User {
        user: String,
        password: Password,
    },
    /// `Authorization: Bearer`.
    Bearer(#[serde(serialize_with = "secret::expose")] Secret),
}

/// A bucket, or a part of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct S3Spec {
    /// Scheme, host and port of the API, without a trailing slash; `None`: Amazon's, by region.
    pub endpoint: Option<String>,
    /// `None`: from the environment or the profile, else `us-east-1`.
    pub region: Option<String>,
    pub bucket: String,
    /// Empty, or a path that ends in `/`.
    pub prefix: String,
    pub credentials: S3Credentials,
    /// `None`: path style when `endpoint` is set, virtual-host style otherwise.
    pub path_style: Option<bool>,
    pub http: HttpSpec,
}

/// Where the keys to a bucket come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum S3Credentials {
    Keys {
        access_key_id: String,
        #[serde(serialize_with = "secret::expose")]
        secret_access_key: Secret,
        #[serde(serialize_with = "secret::expose_option")]
        session_token: Option<Secret>,
    },
    /// A profile of the shared AWS files (`~/.aws/config`, `~/.aws/credentials`).
    Profile(String),
    /// `AWS_ACCESS_KEY_ID` and its siblings, else the profile `AWS_PROFILE` or `default` of the shared AWS files.
    Environment,
}

/// What every HTTP remote has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpSpec {
    /// Scheme, host and port that replace those of all API addresses, without a trailing slash.
    pub endpoint: Option<String>,
    /// A file of PEM certificates that are trusted besides the system's. Absolute.
    pub ca_file: Option<PathBuf>,
}

/// How a drive behaves. Every field has its key, default and reason in [`super::keys::KEYS`].
///
/// A worker of a newer version may be handed the drive by a keeper of an older one: what is missing gets its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Bytes that cache, journal and database may take on disk together.
    pub cache_bytes_max: u64,
    /// Bytes that stay free on the file system of the cache.
    pub cache_bytes_free_min: u64,
    /// How long a file must be closed and quiet before it is uploaded.
    pub write_back: Duration,
    /// How often a change feed is asked.
    pub poll: Duration,
    /// How old a listing in use may be where there is no feed.
    pub refresh: Duration,
    /// Uploads at once, 1 to 64.
    pub uploads: usize,
    pub read_only: bool,
    /// How long the kernel waits for any answer at most.
    pub deadline: Duration,
    /// How long a read may get no byte from the network; at most `deadline`.
    pub read_deadline: Duration,
    pub close: Close,
    /// Names that are never uploaded.
    pub local_only: Patterns,
    /// Whether other users of this machine may enter the mount.
    pub allow_other: bool,
}

/// What `close` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Close {
    /// The bytes are in the journal on this machine.
    Local,
    /// The remote has confirmed them, or the deadline has passed.
    Remote,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cache_bytes_max: 20 << 30,
            cache_bytes_free_min: 1 << 30,
            write_back: Duration::from_secs(2),
            poll: Duration::from_secs(10),
            refresh: Duration::from_secs(10),
            uploads: 8,
            read_only: false,
            deadline: Duration::from_secs(30),
            read_deadline: Duration::from_secs(10),
            close: Close::Local,
            local_only: Patterns::local_only(),
            allow_other: false,
        }
    }
}

impl RemoteSpec {
    /// What the remote is, for messages; without secrets.
    pub fn describe(&self) -> String {
        match self {
            RemoteSpec::Memory => "memory".into(),
            RemoteSpec::Folder(folder) => format!("folder {}", folder.path.display()),
            RemoteSpec::WebDav(dav) => format!("webdav {}", dav.url),
            RemoteSpec::S3(s3) => {
                let at = s3.endpoint.as_deref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
                format!("s3 {}/{}{at}", s3.bucket, s3.prefix)
            }
        }
    }
}
