//! Converts between the kernel (crate `fuser`) and [`crate::drive`]; answers each request exactly once; decides nothing.
//!
//! What the drive knows is answered on the session's thread. What it must wait for runs on the runtime with a deadline, and
//! ends with EINTR when a signal waits for the caller (`interrupt`). Inode numbers come from the store and are never reused,
//! so lookup counts need not be kept: an inode without a name is held until the kernel forgets it.

mod answer;
pub mod buffers;
mod convert;
mod handlers;
mod interrupt;
mod notify;
pub mod session;

pub use notify::{Both, Notices};

use crate::drive::Drive;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the kernel may keep names and attributes. Every change that is not its own is notified.
const TTL: Duration = Duration::from_secs(3600);

/// Deadlines of requests.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Of every request but reads.
    pub request: Duration,
    /// Of reads: for all that the reads of one handle wait without an answer.
    pub read: Duration,
}

/// The file system that the kernel talks to.
pub struct DriveFs {
    drive: Drive,
    runtime: Handle,
    deadlines: Deadlines,
}

impl DriveFs {
    /// Serves `drive` on `runtime`.
    pub fn new(drive: Drive, runtime: Handle, deadlines: Deadlines) -> DriveFs {
        DriveFs { drive, runtime, deadlines }
    }
}
