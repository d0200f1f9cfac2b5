//! Storing whole content, so that a failure leaves the old bytes or the new, never a fragment.
//!
//! Nextcloud, ownCloud, Apache, nginx and lighttpd keep the old file until a PUT is complete (measured), so content goes
//! straight to its name there. WsgiDAV, copyparty, rclone serve and dufs are left with a fragment, or nothing, when a PUT
//! is cut: there, and on servers not known, it goes to a temporary name beside, is measured, and moved over.

use super::WebDav;
use super::list::{self, Seen};
use super::props::Tag;
use super::request::{Call, Content, Link};
use super::{change, conditions, errors, meta, names, read};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Meta, RemotePath, Version};
use crate::remote::{Body, Condition, PutRequest};
use futures_util::StreamExt;
use reqwest::Response;
use reqwest::header::ETAG;
use std::sync::Arc;
use std::time::Duration;

/// From this size on a look before the PUT costs less than sending bytes that are then refused.
const LOOK_FROM_BYTES: u64 = 1 << 20;
/// How long to wait for another tag where tags have whole seconds (nginx, WsgiDAV).
const COARSE_TAG: Duration = Duration::from_millis(1100);
/// The same where tags are as fine as the server's files: Linux stamps those once a tick, 1 to 10 ms.
const FINE_TAG: Duration = Duration::from_millis(20);
/// The largest content that is read back after an edit, bytes: one more round trip, and little else.
const READ_BACK_MAX: u64 = 64 << 10;
/// How often content is sent again for a tag of its own.
const REWRITES_MAX: usize = 2;
/// How long a server may take to notice that an upload was cut; until then it may write what was just removed (rclone).
const CUT_NOTICED: Duration = Duration::from_secs(1);

/// Stores `request` at `path`.
pub(super) async fn put(dav: &WebDav, path: &RemotePath, request: &PutRequest) -> Result<Entry> {
    let doing = format!("store \"{path}\"");
    if dav.probed.flavor.is_atomic() {
        direct(dav, path, request, &doing).await
    } else {
        aside(dav, path, request, &doing).await
    }
}

async fn direct(dav: &WebDav, path: &RemotePath, request: &PutRequest, doing: &str) -> Result<Entry> {
    let size = request.body.size();
    let mut header = conditions::header(dav, &request.condition);
    let mut before = None;
    // With `Any` there is no header: the look tells which version is replaced, since the new one must be another.
    if header.is_none() || dav.probed.coarse_tags || dav.probed.makes_parents || size >= LOOK_FROM_BYTES {
        before = conditions::check(dav, path, &request.condition, doing).await?;
        check_target(dav, path, before.as_ref(), doing).await?;
        if let (Some(seen), Condition::Is(version)) = (&before, &request.condition)
            && seen.weak
            && !conditions::strong(dav, path, version).await?
        {
            return Err(conditions::broken(path, &request.condition, None, doing));
        }
    }
    let (mut waited, mut rewrites) = (false, 0);
    loop {
        let mut call = put_call(dav, path, &request.body, &request.meta, doing);
        call = match &header {
            Some((name, value)) => call.with(name, value.clone()),
            None => call,
        };
        let response = dav.link.send(&call).await?;
        if response.status().as_u16() == 412
            && let Condition::Is(version) = &request.condition
            && !waited
        {
            waited = true;
            errors::page(response).await;
            if conditions::strong(dav, path, version).await? {
                continue;
            }
            let seen = list::look(dav, path).await?;
            return Err(conditions::broken(path, &request.condition, seen.as_ref(), doing));
        }
        if !response.status().is_success() {
            return Err(explain(dav, path, &call, response).await);
        }
        let said = tag_said(&response);
        errors::page(response).await;
        let seen = verify(dav, path, size, said.as_ref(), doing).await?;
        if said.is_none() {
            check_ours(dav, path, &seen, request, doing).await?;
        }
        let replaced = match &request.condition {
            Condition::Is(version) => Some(version),
            _ => list::version_of(before.as_ref()),
        };
        if rewrites < REWRITES_MAX && is_ambiguous(dav, replaced, before.as_ref(), &seen) {
            header = None;
            next_tag(dav, rewrites).await;
            rewrites += 1;
            let now = list::look(dav, path).await?;
            if list::version_of(now.as_ref()) != seen.entry.version.as_ref() {
                let ours = seen.entry.version.map_or(Condition::Absent, Condition::Is);
                return Err(conditions::broken(path, &ours, now.as_ref(), &format!("{doing}: replaced right after")));
            }
            continue;
        }
        return attributes(dav, path, seen, &request.meta).await;
    }
}

/// `Precondition` where what was `seen` after an edit is not what was sent, as far as that is read back.
///
/// Two writers that expect the same version may both be told that they won: Apache looks before it takes the body, and where a
/// server obeys no condition our own look comes before the move. Where the answer states no tag, the loser would take the
/// winner's for its own if the sizes are equal, as they often are. Larger content is told apart by its size alone.
async fn check_ours(dav: &WebDav, path: &RemotePath, seen: &Seen, request: &PutRequest, doing: &str) -> Result<()> {
    if is_ours(dav, path, seen, request, doing).await? {
        return Ok(());
    }
    Err(conditions::broken(path, &request.condition, Some(seen), &format!("{doing}: replaced right after")))
}

async fn is_ours(dav: &WebDav, path: &RemotePath, seen: &Seen, request: &PutRequest, doing: &str) -> Result<bool> {
    let size = request.body.size();
    let (Condition::Is(_), Some(version), 1..=READ_BACK_MAX) = (&request.condition, &seen.entry.version, size) else {
        return Ok(true);
    };
    let mut stream = match read::read(dav, path, version, 0..size).await {
        Err(error) if matches!(error.kind, Kind::Changed | Kind::NotFound) => return Ok(false),
        other => other?,
    };
    let sent = request.body.read(0..size)?;
    let mut at = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| error.context(doing))?;
        if sent.get(at..at + piece.len()) != Some(&piece[..]) {
            return Ok(false);
        }
        at += piece.len();
    }
    Ok(at as u64 == size)
}

async fn aside(dav: &WebDav, path: &RemotePath, request: &PutRequest, doing: &str) -> Result<Entry> {
    let before = conditions::check(dav, path, &request.condition, doing).await?;
    check_target(dav, path, before.as_ref(), doing).await?;
    let (parent, _) = path.split().ok_or_else(|| Error::new(Kind::IsDirectory, format!("{doing}: it is the root")))?;
    let temporary = parent.join(&names::temporary(dav.chance.as_ref()));
    let mut leftover = Leftover { link: dav.link.clone(), path: Some(dav.link.address.path(&temporary, false)) };
    // The target's own properties end with it, so what is not given anew is carried over.
    let kept = before.as_ref().and_then(|seen| seen.entry.meta.clone()).unwrap_or_default();
    let wanted = meta::over(&Meta { mtime_ns: None, ..kept }, &request.meta);
    let stored = async {
        let mut rewrites = 0;
        loop {
            let call = put_call(dav, &temporary, &request.body, &wanted, doing);
            let response = dav.link.send(&call).await?;
            if !response.status().is_success() {
                return Err(explain(dav, path, &call, response).await);
            }
            errors::page(response).await;
            let seen = verify(dav, &temporary, request.body.size(), None, doing).await?;
            let replaced = list::version_of(before.as_ref());
            if rewrites == REWRITES_MAX || !is_ambiguous(dav, replaced, before.as_ref(), &seen) {
                attributes(dav, &temporary, seen, &wanted).await?;
                break;
            }
            next_tag(dav, rewrites).await;
            rewrites += 1;
        }
        let now = conditions::check(dav, path, &request.condition, doing).await?;
        check_target(dav, path, now.as_ref(), doing).await?;
        change::move_over(dav, &temporary, path, &request.condition, false, doing).await
    };
    stored.await?;
    leftover.path = None;
    let seen = verify(dav, path, request.body.size(), None, doing).await?;
    check_ours(dav, path, &seen, request, doing).await?;
    attributes(dav, path, seen, &wanted).await
}

/// Whether the tag of what was `stored` may also name other content, and one version must name one content.
///
/// It is that of what was replaced; or, where tags have whole seconds, it was given within the same second as that one: the
/// content before both may have had it, since file systems use inode numbers again at once (WsgiDAV's tag is inode,
/// second and size; nginx's is second and size).
fn is_ambiguous(dav: &WebDav, replaced: Option<&Version>, before: Option<&Seen>, stored: &Seen) -> bool {
    let same_second = || before.is_some_and(|seen| seen.entry.server_mtime_ns == stored.entry.server_mtime_ns);
    replaced.is_some() && (replaced == stored.entry.version.as_ref() || dav.probed.coarse_tags && same_second())
}

/// Waits until the server would give another tag; longer where a short wait did not help.
async fn next_tag(dav: &WebDav, rewrites: usize) {
    tokio::time::sleep(if dav.probed.coarse_tags || rewrites > 0 { COARSE_TAG } else { FINE_TAG }).await;
}

/// A temporary name that is removed, a while later, when its upload fails or is given up.
struct Leftover {
    link: Arc<Link>,
    path: Option<String>,
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let (Some(path), Ok(runtime)) = (self.path.take(), tokio::runtime::Handle::try_current()) {
            let link = self.link.clone();
            runtime.spawn(async move {
                tokio::time::sleep(CUT_NOTICED).await;
                remove_quietly(&link, path).await;
            });
        }
    }
}

/// Removes one of our own names; what stays is swept when it is a day old.
pub(super) async fn remove_quietly(link: &Link, path: String) {
    let call = Call::new("DELETE", path, "remove a temporary name").with("x-nc-skip-trashbin", "true");
    match link.send(&call).await {
        Ok(response) => {
            errors::page(response).await;
        }
        Err(error) => tracing::debug!("{error}"),
    }
}

fn put_call<'a>(dav: &WebDav, path: &RemotePath, body: &Body, meta: &Meta, doing: &'a str) -> Call<'a> {
    let time = meta.mtime_ns.filter(|_| dav.probed.mtime_with_upload).map(meta::seconds);
    Call::new("PUT", dav.link.address.path(path, false), doing)
        .with_some("x-oc-mtime", time)
        .content(Content::Source(body.clone(), 0..body.size()))
}

/// Refuses a directory as target, and on servers that make missing parents, a missing parent: a late upload must not bring
/// back a directory that was removed.
async fn check_target(dav: &WebDav, path: &RemotePath, before: Option<&Seen>, doing: &str) -> Result<()> {
    match before {
        Some(seen) if seen.is_directory() => {
            Err(Error::new(Kind::IsDirectory, format!("{doing}: a directory is there")))
        }
        None if dav.probed.makes_parents => check_parent(dav, path, doing).await,
        _ => Ok(()),
    }
}

/// `NotFound` where the parent is missing, `NotDirectory` where it is a file.
pub(super) async fn check_parent(dav: &WebDav, path: &RemotePath, doing: &str) -> Result<()> {
    let Some((parent, _)) = path.split() else { return Ok(()) };
    match list::look(dav, &parent).await? {
        Some(seen) if seen.is_directory() => Ok(()),
        Some(_) => Err(Error::new(Kind::NotDirectory, format!("{doing}: \"{parent}\" is a file"))),
        None => Err(Error::new(Kind::NotFound, format!("{doing}: \"{parent}\" is not there"))),
    }
}

/// The error for a refused write to `path`. Servers say 400, 404, 405, 409 or 500 for a missing parent and for a directory in the
/// way (nginx: 500), so a look tells which it is.
pub(super) async fn explain(dav: &WebDav, path: &RemotePath, call: &Call<'_>, response: Response) -> Error {
    let status = response.status().as_u16();
    let error = dav.link.refused(call, response).await;
    if !matches!(status, 400 | 403 | 404 | 405 | 409 | 500) {
        return error;
    }
    match list::look(dav, path).await {
        Ok(Some(seen)) if seen.is_directory() && call.method == "PUT" => {
            return Error::new(Kind::IsDirectory, format!("{}: a directory is there", call.doing));
        }
        Ok(_) => {}
        Err(_) => return error,
    }
    match check_parent(dav, path, call.doing).await {
        Err(missing) if matches!(missing.kind, Kind::NotFound | Kind::NotDirectory) => missing,
        // Our request was right: its body was cut on the way (Apache answers 400 to one that ends early, Go's servers 405).
        _ if matches!(status, 400 | 405) && call.method == "PUT" && !dav.probed.is_cloud() => {
            Error::new(Kind::Unavailable, error.to_string())
        }
        _ => error,
    }
}

/// The version that an answer to a write states (ETag; Nextcloud: OC-ETag); `None` where it is silent (Apache, nginx).
pub(super) fn tag_said(response: &Response) -> Option<Version> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    header("oc-etag").or_else(|| header(ETAG.as_str())).and_then(Tag::parse).map(|tag| tag.version)
}

/// What is at `path` after a write of `size` bytes, compared with what was sent.
pub(super) async fn verify(
    dav: &WebDav,
    path: &RemotePath,
    size: u64,
    said: Option<&Version>,
    doing: &str,
) -> Result<Seen> {
    let Some(seen) = list::look(dav, path).await? else {
        return Err(Error::new(Kind::Unavailable, format!("{doing}: it was taken, and is not there")));
    };
    match (said, &seen.entry.version) {
        (Some(said), Some(there)) if said != there => {
            let condition = Condition::Is(said.clone());
            Err(conditions::broken(path, &condition, Some(&seen), &format!("{doing}: replaced right after")))
        }
        _ if seen.is_directory() || seen.entry.size != size => {
            let text = format!("{doing}: {size} bytes were sent, {} are there", seen.entry.size);
            Err(Error::new(Kind::Corrupt, text))
        }
        _ => Ok(seen),
    }
}

/// Brings the attributes of what was just stored to `wanted`, as far as this server can hold them.
///
/// The content is safe by now: a refusal that no repeat can mend is logged, and the entry tells what is there.
pub(super) async fn attributes(dav: &WebDav, path: &RemotePath, seen: Seen, wanted: &Meta) -> Result<Entry> {
    let directory = seen.is_directory();
    let missing = meta::missing(seen.entry.meta.as_ref(), wanted, &dav.probed);
    let missing = meta::possible(&missing, directory, &dav.probed);
    if missing == Meta::default() {
        return Ok(seen.entry);
    }
    match change::proppatch(dav, path, seen, &missing).await {
        Ok(entry) => Ok(entry),
        Err((seen, error)) if error.kind.retry() == crate::error::Retry::Never => {
            tracing::warn!("attributes not kept: {error}");
            Ok(seen.entry)
        }
        Err((_, error)) => Err(error),
    }
}
