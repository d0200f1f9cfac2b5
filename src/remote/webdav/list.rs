//! Asking what is there: PROPFIND (RFC 4918, 9.1) of one resource, of a directory, of a whole tree.

use super::WebDav;
use super::address::{Address, Href};
use super::names;
use super::probe::Probed;
use super::props::Props;
use super::request::{Call, Content, Link};
use super::wire::{self, Response, namespace};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Entry, FileKind, Quota, RemotePath, Version};
use crate::remote::Listing;

/// Stale temporary names that one listing clears away at most; the next listing goes on.
const SWEPT_MAX: usize = 4;

/// What a look found.
#[derive(Debug)]
pub(super) struct Seen {
    pub entry: Entry,
    /// Whether the etag is weak: no condition can be put on it now.
    pub weak: bool,
}

impl Seen {
    pub(super) fn is_directory(&self) -> bool {
        self.entry.kind == FileKind::Directory
    }
}

/// How far a PROPFIND goes (RFC 4918, 10.2). Always said: a missing header means infinity, which servers refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Zero,
    One,
    Infinity,
}

/// The properties asked for; never `allprop`, which costs servers far more.
fn properties() -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:propfind xmlns:D=\"DAV:\" xmlns:o=\"{}\" xmlns:A=\"{}\" xmlns:F=\"{}\"><D:prop>\
         <D:resourcetype/><D:iscollection/><D:getcontentlength/><D:getlastmodified/><D:getetag/>\
         <D:quota-available-bytes/><D:quota-used-bytes/><o:fileid/><o:checksums/>\
         <A:executable/><F:mtime/><F:mode/><F:xattrs/></D:prop></D:propfind>",
        namespace::OC,
        namespace::APACHE,
        namespace::OURS
    )
}

/// Sends a PROPFIND and gives each response to `each`. `None`: nothing is there.
pub(super) async fn propfind(
    link: &Link,
    path: String,
    depth: Depth,
    doing: &str,
    each: impl FnMut(Response),
) -> Result<Option<()>> {
    let depth = match depth {
        Depth::Zero => "0",
        Depth::One => "1",
        Depth::Infinity => "infinity",
    };
    let call = Call::new("PROPFIND", path, doing).with("depth", depth).content(Content::Xml(properties()));
    let response = link.send(&call).await?;
    match response.status().as_u16() {
        207 => {}
        404 | 410 => return Ok(None),
        200..=299 => {
            let text = format!("{doing}: {} is not what WebDAV answers; is the address right?", response.status());
            return Err(Error::new(Kind::Corrupt, text));
        }
        _ => return Err(link.refused(&call, response).await),
    }
    wire::multistatus(Box::pin(response.bytes_stream()), each).await.context(doing)?;
    Ok(Some(()))
}

/// The properties of one resource; `None` where nothing is.
pub(super) async fn props(link: &Link, path: String, doing: &str) -> Result<Option<(String, Props)>> {
    let mut found = None;
    let asked = propfind(link, path, Depth::Zero, doing, |response| {
        if found.is_none() {
            found = Some(response);
        }
    });
    if asked.await?.is_none() {
        return Ok(None);
    }
    let Some(response) = found else {
        return Err(Error::new(Kind::Corrupt, format!("{doing}: an empty multi-status")));
    };
    match response.status {
        None | Some(200..=299) => {}
        Some(404 | 410) => return Ok(None),
        Some(status) => {
            let kind = super::errors::kind("PROPFIND", status, "");
            return Err(Error::new(kind, format!("{doing}: status {status}")));
        }
    }
    if !response.found {
        return Err(Error::new(Kind::Corrupt, format!("{doing}: no property was told")));
    }
    Ok(Some((response.href, response.props)))
}

/// What is at `path`; `None` where nothing is.
pub(super) async fn look(dav: &WebDav, path: &RemotePath) -> Result<Option<Seen>> {
    let doing = format!("look at \"{path}\"");
    let found = match props(&dav.link, dav.link.address.path(path, false), &doing).await {
        Ok(found) => found,
        // Apache says 400 to a path that leads through a file: nothing is there.
        Err(error) if error.kind == Kind::Invalid && leads_through_a_file(dav, path).await? => None,
        Err(error) => return Err(error),
    };
    Ok(found.map(|(_, props)| Seen { entry: props.entry(&dav.probed), weak: props.is_weak() }))
}

async fn leads_through_a_file(dav: &WebDav, path: &RemotePath) -> Result<bool> {
    let mut above = path.split();
    while let Some((directory, _)) = above.filter(|(directory, _)| !directory.is_root()) {
        let doing = format!("look at \"{directory}\"");
        match props(&dav.link, dav.link.address.path(&directory, false), &doing).await {
            Ok(Some((_, props))) => return Ok(!props.collection),
            Ok(None) => {}
            Err(error) if error.kind == Kind::Invalid => {}
            Err(error) => return Err(error),
        }
        above = directory.split().map(|(above, _)| (above, ""));
    }
    Ok(false)
}

/// What gathers the responses of a listing.
struct Gather<'a> {
    dav: &'a WebDav,
    directory: &'a RemotePath,
    /// How many names below the directory a response may lie; `usize::MAX` for a whole tree.
    levels: usize,
    entries: Vec<(RemotePath, Entry)>,
    itself: Option<Props>,
    stale: Vec<RemotePath>,
    failure: Option<Error>,
}

impl Gather<'_> {
    fn take(&mut self, response: Response) {
        let place = match Address::place(&response.href, &self.dav.probed.root) {
            Href::Inside(path) => path,
            Href::Refused(why) => {
                tracing::warn!(directory = %self.directory, href = %response.href.escape_debug(), "entry left out: {why}");
                return;
            }
        };
        if let Some(status) = response.status.filter(|status| !(200..300).contains(status)) {
            self.unknown(&place, status);
            return;
        }
        if place == *self.directory {
            self.itself = Some(response.props);
            return;
        }
        let levels = place.parts().count() - self.directory.parts().count().min(place.parts().count());
        if !place.is_within(self.directory) || levels > self.levels {
            tracing::warn!(directory = %self.directory, entry = %place, "entry left out: not in the directory that was asked");
            return;
        }
        if !response.found {
            self.unknown(&place, response.failed.unwrap_or(404));
            return;
        }
        if place.parts().any(names::is_temporary) {
            if names::is_temporary(place.name()) && is_old(&response.props, self.dav.link.clock.wall_ns()) {
                self.stale.push(place);
            }
            return;
        }
        self.entries.push((place, response.props.entry(&self.dav.probed)));
    }

    /// A response without properties. What may pass fails the listing, since absence would look like deletion.
    fn unknown(&mut self, place: &RemotePath, status: u16) {
        match status {
            404 | 410 => {}
            401 | 403 => tracing::warn!(entry = %place, status, "entry left out: the server does not show it"),
            _ => {
                let kind = super::errors::kind("PROPFIND", status, "");
                self.failure =
                    Some(Error::new(kind, format!("list \"{}\": {place} has status {status}", self.directory)));
            }
        }
    }
}

fn is_old(props: &Props, now_ns: i64) -> bool {
    props.modified_ns.is_some_and(|modified| now_ns.saturating_sub(modified) > names::STALE_AFTER_NS)
}

/// The children of `directory`.
pub(super) async fn list(dav: &WebDav, directory: &RemotePath) -> Result<Listing> {
    gather(dav, directory, Depth::One).await
}

async fn gather(dav: &WebDav, directory: &RemotePath, depth: Depth) -> Result<Listing> {
    let doing = format!("list \"{directory}\"");
    let levels = if depth == Depth::Infinity { usize::MAX } else { 1 };
    let mut all =
        Gather { dav, directory, levels, entries: Vec::new(), itself: None, stale: Vec::new(), failure: None };
    let path = dav.link.address.path(directory, true);
    let found = match propfind(&dav.link, path, depth, &doing, |response| all.take(response)).await {
        Ok(found) => found,
        // Apache says 400 to a file's name with a slash.
        Err(error) if error.kind == Kind::Invalid => match look(dav, directory).await? {
            Some(seen) if !seen.is_directory() => {
                return Err(Error::new(Kind::NotDirectory, format!("{doing}: it is a file")));
            }
            _ => return Err(error),
        },
        Err(error) => return Err(error),
    };
    if found.is_none() {
        return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there")));
    }
    if let Some(failure) = all.failure {
        return Err(failure);
    }
    match &all.itself {
        Some(props) if !props.collection => {
            return Err(Error::new(Kind::NotDirectory, format!("{doing}: it is a file")));
        }
        Some(_) => {}
        // Every server lists the directory itself; without it the answer is of something else.
        None => return Err(Error::new(Kind::Corrupt, format!("{doing}: the answer does not speak of it"))),
    }
    let directory = all.itself.and_then(|props| props.version(&dav.probed));
    let (entries, stale) = (all.entries, all.stale);
    dav.clear_stale(stale.into_iter().take(SWEPT_MAX)).await;
    Ok(Listing { entries, next: None, directory })
}

/// One page of the whole tree, where Depth: infinity works. The first page is the root's children; then one page for each
/// directory among them, so that no answer holds the whole tree. The page's name is the JSON list of directories to come.
pub(super) async fn sweep(dav: &WebDav, page: Option<String>) -> Result<Listing> {
    let Some(page) = page else {
        let mut listing = list(dav, &RemotePath::root()).await?;
        let directories = listing.entries.iter().filter(|(_, entry)| entry.kind == FileKind::Directory);
        listing.next = page_name(directories.map(|(path, _)| path.as_str().to_owned()).collect());
        return Ok(listing);
    };
    let mut rest: Vec<String> = serde_json::from_str(&page)
        .map_err(|e| Error::new(Kind::Invalid, format!("sweep: \"{}\" is no page: {e}", page.escape_debug())))?;
    let Some(directory) = rest.pop() else { return Ok(Listing::default()) };
    let swept = gather(dav, &RemotePath::new(&directory), Depth::Infinity).await;
    let mut listing = match swept {
        Ok(listing) => listing,
        // It was removed or became a file since the first page.
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::NotDirectory) => Listing::default(),
        Err(error) => return Err(error),
    };
    listing.directory = None;
    listing.next = page_name(rest);
    Ok(listing)
}

fn page_name(directories: Vec<String>) -> Option<String> {
    if directories.is_empty() { None } else { serde_json::to_string(&directories).ok() }
}

/// Space used and left (RFC 4331), as the root says.
pub(super) async fn quota(dav: &WebDav) -> Result<Quota> {
    let path = dav.link.address.path(&RemotePath::root(), true);
    match props(&dav.link, path, "ask for the quota").await? {
        Some((_, props)) => Ok(Quota { used_bytes: props.quota_used, available_bytes: props.quota_available }),
        None => Err(Error::new(Kind::NotFound, "ask for the quota: the root is not there")),
    }
}

/// The version of `path` now, for messages and comparisons; `None` where nothing is.
pub(super) fn version_of(seen: Option<&Seen>) -> Option<&Version> {
    seen.and_then(|seen| seen.entry.version.as_ref())
}

/// Whether a PROPFIND of Depth: infinity on `path` tells of something two levels below, and not just claims success
/// (SabreDAV answers it as Depth: 1).
pub(super) async fn sees_grandchildren(link: &Link, path: String, probed: &Probed) -> Result<bool> {
    let root = Address::place(&path, link.address.root());
    let mut deepest = 0;
    let asked = propfind(link, path, Depth::Infinity, "probe Depth: infinity", |response| {
        if let (Href::Inside(root), Href::Inside(found)) = (&root, Address::place(&response.href, &probed.root)) {
            deepest = deepest.max(found.parts().count().saturating_sub(root.parts().count()));
        }
    });
    match asked.await {
        Ok(found) => Ok(found.is_some() && deepest >= 2),
        Err(error) if error.kind.retry() == crate::error::Retry::Later => Err(error),
        Err(_) => Ok(false),
    }
}
