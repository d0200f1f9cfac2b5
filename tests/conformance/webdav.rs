//! Accounts on real WebDAV servers: one server of a kind for all laws, a directory of its own for each.

use super::Opened;
use super::servers::nextcloud::{self, Cloud};
use super::servers::{self, PASSWORD, Server, USER, apache, nginx, rclone, wsgidav};
use fourwheel::model::{Meta, RemotePath};
use fourwheel::remote::webdav::{WebDav, WebDavOptions};
use fourwheel::remote::{Place, Remote};
use fourwheel::sys::{RealChance, RealClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::OnceCell;

/// One kind of server, started when the first law asks for it.
pub struct Shared {
    start: fn() -> Option<Server>,
    started: OnceCell<Option<Started>>,
}

/// A server, and what was found out about it, so that not every law probes anew.
struct Started {
    url: String,
    probed: String,
}

pub static APACHE: Shared = Shared { start: || apache::start(apache::Login::Basic), started: OnceCell::const_new() };
pub static NGINX: Shared = Shared { start: nginx::start, started: OnceCell::const_new() };
pub static RCLONE: Shared = Shared { start: rclone::start, started: OnceCell::const_new() };
pub static NEXTCLOUD: Shared = Shared { start: || nextcloud::start(Cloud::Nextcloud), started: OnceCell::const_new() };
pub static OWNCLOUD: Shared = Shared { start: || nextcloud::start(Cloud::OwnCloud), started: OnceCell::const_new() };
pub static WSGIDAV: Shared = Shared { start: wsgidav::start, started: OnceCell::const_new() };

/// mod_dav looks at the conditions, then takes the body, then moves it in place: 2.4.
pub const APACHE_FAULTS: &[(&str, &str)] =
    &[("of_rivals_one_wins", "a change made between its look at the condition and the end of the body is replaced")];

fn options(url: &str) -> WebDavOptions {
    WebDavOptions { url: url.into(), user: USER.into(), password: PASSWORD.into(), ..WebDavOptions::default() }
}

async fn start(shared: &Shared) -> Option<Started> {
    let server = (shared.start)()?;
    let dav = WebDav::connect(options(&server.url), Arc::new(RealClock), Arc::new(RealChance::new())).await.unwrap();
    let url = server.url.clone();
    servers::keep(server);
    Some(Started { url, probed: dav.probe_text() })
}

fn saved(url: &str, probed: &str) -> Arc<WebDav> {
    WebDav::from_saved(options(url), probed, Arc::new(RealClock), Arc::new(RealChance::new())).unwrap()
}

/// Opens an account in a fresh directory.
pub async fn open(shared: &'static Shared) -> Option<Opened> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let started = shared.started.get_or_init(|| start(shared)).await.as_ref()?;
    let name = format!("account-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let url = format!("{}{name}/", started.url);
    // Not behind the server's back: rclone keeps a cache of its directories.
    saved(&started.url, &started.probed).mkdir(&Place::at(RemotePath::new(&name)), &Meta::default()).await.unwrap();
    // What holds for the server holds for its directories; only the root is another.
    let mut probed: serde_json::Value = serde_json::from_str(&started.probed).unwrap();
    probed["url"] = url.clone().into();
    probed["root"].as_array_mut().unwrap().push(name.into());
    Some(Opened { remote: saved(&url, &probed.to_string()), keep: None })
}
