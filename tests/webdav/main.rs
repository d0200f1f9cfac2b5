//! The WebDAV remote over real servers. Each test starts its own; see `tests/servers`.
#![allow(clippy::disallowed_methods, reason = "looks behind a server's back")]

#[path = "../servers/mod.rs"]
mod servers;

mod bench;
mod cloud;
mod laws;
mod probes;
mod redirects;
mod uploads;
