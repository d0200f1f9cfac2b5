//! Settings: one TOML file, drives given in place, remotes of rclone; all end as a checked [`Drive`].
//!
//! [`resolve`] is the front door: it takes what a person typed after `mount`. [`keys::KEYS`] lists every key. [`StateDir`]
//! is a drive's state directory, locked. Nothing here touches the network; secrets are [`Secret`] and never printed.

mod draft;
mod drive;
mod file;
mod obscure;
mod password;
mod patterns;
mod places;
mod rclone;
mod remote;
mod secret;
mod show;
mod state;
mod values;

pub mod keys;
pub mod units;
pub mod words;

pub use draft::fnv1a;
pub use drive::{Close, Drive, FolderSpec, HttpSpec, RemoteSpec, S3Credentials, S3Spec, Settings, SignIn, WebDavSpec};
pub use file::{ConfigFile, check_name};
pub use password::Password;
pub use patterns::{LOCAL_ONLY_DEFAULT, Patterns};
pub use places::{Environment, Places, environment};
pub use remote::{Wanted, configured, resolve};
pub use secret::Secret;
pub use show::{defaults, reference, settings_of};
pub use state::StateDir;

/// The environment variable by which a drive reaches our own keeper and worker; see [`Drive::hand_over`].
pub const HAND_OVER: &str = "FOURWHEEL_DRIVE";
