//! The emulator of Nextcloud and ownCloud, `nextcloud.py`: there is no package of a real one. Needs python3 alone.

use super::{Server, program};
use std::process::Command;

/// Which of the two, and what If-Match on putting chunks together is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the products' own names")]
pub enum Cloud {
    /// If-Match on the MOVE of `.file` speaks of the target.
    Nextcloud,
    /// It speaks of `.file` itself, as SabreDAV has it; so it never holds.
    OldNextcloud,
    /// As that, and hashes are computed by the server.
    OwnCloud,
}

/// Starts one.
pub fn start(cloud: Cloud) -> Option<Server> {
    let python = program("python3")?;
    let (kind, moves) = match cloud {
        Cloud::Nextcloud => ("nextcloud", "target"),
        Cloud::OldNextcloud => ("nextcloud", "source"),
        Cloud::OwnCloud => ("owncloud", "source"),
    };
    Some(Server::start("/remote.php/dav/files/ann/", |_, port| {
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/nextcloud.py"));
        command.arg(port.to_string()).args([kind, moves]);
        command
    }))
}
