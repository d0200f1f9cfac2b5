//! WebDAV (RFC 4918): Nextcloud, ownCloud, Apache, nginx, lighttpd, and whatever else speaks it.
//!
//! Servers differ in what they obey, so a first mount probes them ([`WebDav::connect`]), and what was found out is kept as
//! text ([`WebDav::probe_text`]): later mounts start from that without a request ([`WebDav::from_saved`]), also offline.
//! Facts and their sources: `providers/webdav.md`.
//!
//! | file | what |
//! |---|---|
//! | `address` | paths to URLs, hrefs to paths |
//! | `auth`, `request`, `errors` | signing, sending, and what a refusal means |
//! | `feed`, `wire`, `props`, `dates` | answers in XML |
//! | `meta` | attributes as dead properties |
//! | `probe`, `probing` | what the server can do, and finding it out |
//! | `conditions`, `list`, `read`, `upload`, `chunked`, `change` | the calls |

mod address;
mod auth;
mod change;
mod chunked;
mod conditions;
mod dates;
mod errors;
mod feed;
mod list;
mod meta;
mod names;
mod probe;
mod probing;
mod props;
mod read;
mod request;
mod upload;
mod wire;

use super::{Body, ByteStream, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Entry, Meta, Quota, RemotePath, Version};
use crate::sys::http::{self, HttpOptions};
use crate::sys::{Chance, Clock};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest time for all probes together: some 40 small requests, and a second of waiting for Apache's tags.
const PROBES_MAX: Duration = Duration::from_secs(120);

/// What a server is, where that decides what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flavor {
    Nextcloud,
    OwnCloud,
    /// mod_dav with mod_dav_fs.
    Apache,
    Nginx,
    Lighttpd,
    /// Not known: nothing is taken for granted.
    Other,
}

impl Flavor {
    /// Whether a PUT that is cut leaves the old file whole, and makes no new one (measured, see `upload`).
    pub const fn is_atomic(self) -> bool {
        !matches!(self, Flavor::Other)
    }
}

/// Where and how to sign in.
#[derive(Clone, Default)]
pub struct WebDavOptions {
    /// The collection that is the drive's root, as the server sees itself. Without credentials, query and fragment.
    pub url: String,
    pub user: String,
    /// For Nextcloud and most services an app password.
    pub password: String,
    /// A bearer token instead of user and password.
    pub bearer: Option<String>,
    /// Replaces scheme, host and port of every request (`http://127.0.0.1:8080`); paths and Destination headers stay.
    pub endpoint: Option<String>,
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What the server is, where it cannot be told: [`Flavor::Apache`] for an Apache behind a proxy, for one. A wrong word
    /// here risks fragments when an upload is cut.
    pub flavor: Option<Flavor>,
    /// Nothing is ever written, probes included; every change is `ReadOnly`.
    pub read_only: bool,
}

/// An account on a WebDAV server.
pub struct WebDav {
    link: Arc<request::Link>,
    probed: probe::Probed,
    capabilities: Capabilities,
    chance: Arc<dyn Chance>,
    read_only: bool,
}

impl WebDav {
    /// Signs in and finds out what the server does, by a directory of our own that is removed again; for at most two
    /// minutes. Clears away our own temporary names in the root that are older than a day.
    ///
    /// `Config`: the options cannot be used. `SignIn`, `Offline`, `TimedOut`, and what else may pass. `NotFound`,
    /// `NotDirectory`: `url` is no collection. `Corrupt`: what answers is not WebDAV. `Unsupported`: it cannot move files.
    pub async fn connect(
        options: WebDavOptions,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Arc<WebDav>> {
        let link = Arc::new(link(&options, clock)?);
        let read_only = options.read_only;
        let probing = async {
            let mut probed = probing::identify(&link, options.flavor).await?;
            (probed.url, probed.user) = (options.url.clone(), options.user.clone());
            if !read_only {
                probing::probe(&link, chance.as_ref(), &mut probed).await?;
            }
            Ok::<_, Error>(probed)
        };
        let probed = match tokio::time::timeout(PROBES_MAX, probing).await {
            Ok(probed) => probed?,
            Err(_) => {
                return Err(Error::new(Kind::TimedOut, format!("connect to {}: no end of it", link.address.own())));
            }
        };
        let dav = WebDav { link, capabilities: probed.capabilities(), probed, chance, read_only };
        // The listing itself clears away what is stale.
        list::list(&dav, &RemotePath::root()).await.context("connect")?;
        Ok(Arc::new(dav))
    }

    /// Starts from what [`WebDav::probe_text`] gave, without a request.
    ///
    /// `Config`: the options cannot be used, or `saved` is of another account or version: connect anew then.
    pub fn from_saved(
        options: WebDavOptions,
        saved: &str,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Arc<WebDav>> {
        let probed = probe::Probed::from_text(saved, &options.url, &options.user)?;
        let link = Arc::new(link(&options, clock)?);
        Ok(Arc::new(WebDav { link, capabilities: probed.capabilities(), probed, chance, read_only: options.read_only }))
    }

    /// What was found out about the server, to keep beside the account. Holds no secret. Of a read-only connection it says
    /// the worst of the server, so it is not worth keeping.
    pub fn probe_text(&self) -> String {
        self.probed.to_text()
    }

    /// Whether the server still says it is what was probed; when not, [`WebDav::connect`] anew at the next chance.
    pub async fn is_same_server(&self) -> Result<bool> {
        let now = probing::identify(&self.link, None).await?;
        Ok(now.server == self.probed.server)
    }

    /// What the server is.
    pub fn flavor(&self) -> Flavor {
        self.probed.flavor
    }

    fn may_write(&self, path: &RemotePath) -> Result<()> {
        if self.read_only {
            return Err(Error::new(Kind::ReadOnly, format!("\"{path}\": the drive is read-only")));
        }
        names::check(path, &self.capabilities.names)
    }

    /// Removes temporary names that nobody waits for any more.
    async fn clear_stale(&self, stale: impl Iterator<Item = RemotePath>) {
        for path in stale.filter(|_| !self.read_only) {
            tracing::info!(name = %path, "removing what an upload left behind more than a day ago");
            upload::remove_quietly(&self.link, self.link.address.path(&path, false)).await;
        }
    }
}

fn link(options: &WebDavOptions, clock: Arc<dyn Clock>) -> Result<request::Link> {
    let address = address::Address::new(&options.url, options.endpoint.as_deref())?;
    let secret = match (&options.bearer, options.user.is_empty()) {
        (Some(_), false) => {
            return Err(Error::new(Kind::Config, "both a bearer token and a user are set; leave one out"));
        }
        (Some(token), true) => auth::Secret::Bearer(token.clone()),
        (None, false) => auth::Secret::Password { user: options.user.clone(), password: options.password.clone() },
        (None, true) => auth::Secret::None,
    };
    let client = http::client(&HttpOptions { ca_file: options.ca_file.clone(), follow_redirects: false })?;
    let auth = auth::Auth::new(secret, address.is_plain());
    Ok(request::Link::new(client, address, auth, clock))
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::new(Kind::Unsupported, format!("WebDAV has no {what}")))
}

#[async_trait]
impl Remote for WebDav {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn describe(&self) -> String {
        let root = self.link.address.path(&RemotePath::root(), true);
        format!("webdav {}{root}", self.link.address.own())
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        if self.probed.deep {
            list::sweep(self, page).await
        } else {
            unsupported("listing of the whole tree on this server")
        }
    }

    async fn list(&self, directory: &Place, _page: Option<String>) -> Result<Listing> {
        list::list(self, &directory.path).await
    }

    async fn changes(&self, _cursor: Option<String>, _wait_ms: u64) -> Result<Changes> {
        unsupported("change feed")
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        if place.path.parts().any(names::is_temporary) {
            return Ok(None);
        }
        Ok(list::look(self, &place.path).await?.map(|seen| seen.entry))
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        read::read(self, &place.path, version, range).await
    }

    async fn read_link(&self, _place: &Place) -> Result<Vec<u8>> {
        unsupported("symbolic links")
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        self.may_write(&place.path)?;
        upload::put(self, &place.path, &request).await
    }

    async fn put_link(&self, _place: &Place, _target: &[u8], _meta: Meta) -> Result<Entry> {
        unsupported("symbolic links")
    }

    async fn begin(&self, place: &Place, size: u64, _meta: &Meta, condition: &Condition) -> Result<Session> {
        self.may_write(&place.path)?;
        chunked::begin(self, &place.path, size, condition).await
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        chunked::part(self, session, number, body, range).await
    }

    async fn part_copy(
        &self,
        _session: &Session,
        _number: u32,
        _from: &Place,
        _version: &Version,
        _range: Range<u64>,
    ) -> Result<Part> {
        unsupported("copies of parts")
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        chunked::parts(self, session).await
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        chunked::finish(self, session, parts, meta, condition).await
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        chunked::abort(self, session).await
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.may_write(&place.path)?;
        change::mkdir(self, &place.path, meta).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.may_write(&from.path)?;
        self.may_write(&to.path)?;
        change::rename(self, &from.path, &to.path, source, condition).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.may_write(&place.path)?;
        if place.path.is_root() {
            return Err(Error::new(Kind::Invalid, "the drive's root cannot be removed"));
        }
        change::remove(self, &place.path, directory, condition).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.may_write(&to.path)?;
        if !self.probed.copy {
            return unsupported("copies on this server");
        }
        change::copy(self, &from.path, version, &to.path, condition).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.may_write(&place.path)?;
        change::set_meta(self, &place.path, directory, version, meta).await
    }

    async fn quota(&self) -> Result<Quota> {
        list::quota(self).await
    }
}
