//! The control socket: how the command line asks a running mount, and how it finds one.
//!
//! A worker serves `control` in its state directory (mode 0600 in a directory of 0700, peers of the same user or root).
//! One JSON object a line, answered in order; [`wire`] has the layout, [`Service`] the calls, [`Status`] what is shown.
//! [`Record`]s of mounts lie in one directory of the user, so that a mount is found by its path, alive or dead,
//! and beside them what drives [`Left`] unsent when they were unmounted.
//! Nothing here knows the store, the drive or the network.

mod client;
mod left;
mod mounts;
mod note;
mod record;
mod server;
mod service;
mod socket;
mod status;
mod time;
pub mod wire;

pub use client::Client;
pub use left::Left;
pub use mounts::{Mount, Presence, known, mountinfo, within};
pub use record::{Record, records_dir};
pub use server::Server;
pub use service::Service;
pub use status::{CheckReport, Conflict, Failed, LIST_MAX, LastError, Pinned, Saved, Status, Sweep, Upload};
pub use time::Time;
