//! Upload sessions: Nextcloud's and ownCloud's chunked upload v2 (nextcloud/documentation, `client_apis/WebDAV/chunking.rst`).
//!
//! A session is a folder below `/remote.php/dav/uploads/USER/`, where parts are put under their numbers; moving its `.file`
//! to the target puts them together. It lives for a day after the last part.

use super::WebDav;
use super::list::{self, Depth};
use super::probe::Probed;
use super::props::quoted;
use super::request::{Call, Content, Link};
use super::{conditions, errors, meta, upload};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Meta, RemotePath};
use crate::remote::{Body, Condition, Part, Session};
use serde::{Deserialize, Serialize};
use std::ops::Range;

const FORMAT: u32 = 1;

/// What is kept of a session.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// The folder's name.
    folder: String,
    /// Where the content goes.
    path: String,
    size: u64,
}

impl Kept {
    fn read(session: &Session) -> Result<Kept> {
        let refuse = |why: &str| Error::new(Kind::NotFound, format!("upload session: {why}; begin again"));
        let kept: Kept = serde_json::from_str(&session.0).map_err(|e| refuse(&e.to_string()))?;
        let plain = !kept.folder.is_empty() && kept.folder.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if kept.format == FORMAT && plain { Ok(kept) } else { Err(refuse("not one of this version")) }
    }

    fn target(&self) -> RemotePath {
        RemotePath::new(&self.path)
    }
}

/// The collection of uploads that belongs to a root below `…/remote.php/dav/files/USER` or `…/remote.php/webdav`.
fn uploads(root: &[String], user: &str) -> Option<Vec<String>> {
    let at = root.iter().position(|part| part == "remote.php")?;
    let (base, rest) = root.split_at(at + 1);
    let user = match rest {
        [dav, files, user, ..] if dav == "dav" && files == "files" => user.as_str(),
        [webdav, ..] if webdav == "webdav" && !user.is_empty() => user,
        _ => return None,
    };
    Some(base.iter().map(String::as_str).chain(["dav", "uploads", user]).map(str::to_owned).collect())
}

/// Finds out whether sessions can be made, by making one.
pub(super) async fn probe(link: &Link, probed: &mut Probed) -> Result<()> {
    let Some(uploads) = uploads(link.address.root(), &probed.user) else { return Ok(()) };
    let uploads = super::address::join(uploads.iter().map(String::as_str), true);
    let folder = format!("{uploads}fourwheel-probe-{}/", link.clock.wall_ns().unsigned_abs());
    let call = Call::new("MKCOL", folder.clone(), "probe chunked uploads");
    let response = link.send(&call).await?;
    if response.status().is_success() {
        probed.uploads = Some(uploads);
        errors::page(response).await;
        upload::remove_quietly(link, folder).await;
    }
    Ok(())
}

fn folder(dav: &WebDav, kept: &Kept) -> Result<String> {
    match &dav.probed.uploads {
        Some(uploads) => Ok(format!("{uploads}{}/", kept.folder)),
        None => Err(Error::new(Kind::Unsupported, "this WebDAV server has no upload sessions")),
    }
}

fn destination(dav: &WebDav, kept: &Kept) -> String {
    dav.link.address.destination(&dav.link.address.path(&kept.target(), false), dav.probed.destination)
}

/// Opens a session.
pub(super) async fn begin(dav: &WebDav, path: &RemotePath, size: u64, condition: &Condition) -> Result<Session> {
    let doing = format!("begin to store \"{path}\"");
    let seen = conditions::check(dav, path, condition, &doing).await?;
    match seen {
        Some(seen) if seen.is_directory() => {
            return Err(Error::new(Kind::IsDirectory, format!("{doing}: a directory is there")));
        }
        Some(_) => {}
        None => upload::check_parent(dav, path, &doing).await?,
    }
    let folder_name = format!("fourwheel-{:016x}{:016x}", dav.chance.next(), dav.chance.next());
    let kept = Kept { format: FORMAT, folder: folder_name, path: path.as_str().to_owned(), size };
    let call = Call::new("MKCOL", folder(dav, &kept)?, &doing)
        .with("destination", destination(dav, &kept))
        .with("oc-total-length", size.to_string());
    let response = dav.link.ask(&call).await?;
    errors::page(response).await;
    let text = serde_json::to_string(&kept).expect("a struct of strings and numbers is always JSON");
    Ok(Session(text))
}

/// Sends one part.
pub(super) async fn part(dav: &WebDav, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
    let kept = Kept::read(session)?;
    let doing = format!("store part {number} of \"{}\"", kept.target());
    let size = range.end - range.start;
    // PUT carries no condition: those belong on the MOVE (owncloud/android issue 2752).
    let call = Call::new("PUT", format!("{}{number:05}", folder(dav, &kept)?), &doing)
        .with("destination", destination(dav, &kept))
        .with("oc-total-length", kept.size.to_string())
        .content(Content::Source(body, range));
    let response = dav.link.send(&call).await?;
    match response.status().as_u16() {
        200..=299 => {}
        404 | 409 => return Err(Error::new(Kind::NotFound, format!("{doing}: the session is gone"))),
        _ => return Err(dav.link.refused(&call, response).await),
    }
    errors::page(response).await;
    Ok(Part { number, size, tag: String::new() })
}

/// Which parts the server holds.
pub(super) async fn parts(dav: &WebDav, session: &Session) -> Result<Vec<Part>> {
    let kept = Kept::read(session)?;
    let doing = format!("ask for the parts of \"{}\"", kept.target());
    let mut found = Vec::new();
    let asked = list::propfind(&dav.link, folder(dav, &kept)?, Depth::One, &doing, |response| {
        let name = super::address::href_segments(&response.href).ok().and_then(|parts| parts.last().cloned());
        let number = name.and_then(|name| name.parse::<u32>().ok());
        if let (Some(number), Some(size)) = (number.filter(|number| *number > 0), response.props.length) {
            found.push(Part { number, size, tag: String::new() });
        }
    });
    if asked.await?.is_none() {
        return Err(Error::new(Kind::NotFound, format!("{doing}: the session is gone")));
    }
    found.sort_by_key(|part| part.number);
    Ok(found)
}

/// Puts the parts together at the target.
///
/// A look comes just before. Servers disagree on how the MOVE is to be bound to the target's version: newer Nextcloud reads
/// If-Match on it, others apply that to `.file` and answer 412 (owncloud/core issue 25682), and obey a tagged If as
/// ownCloud's desktop client sends it. So after a 412 with an unchanged target the next way is tried.
pub(super) async fn finish(
    dav: &WebDav,
    session: &Session,
    parts: &[Part],
    meta: &Meta,
    condition: &Condition,
) -> Result<Entry> {
    let kept = Kept::read(session)?;
    let (path, doing) = (kept.target(), format!("put together \"{}\"", kept.target()));
    let total: u64 = parts.iter().map(|part| part.size).sum();
    if total != kept.size || !parts.iter().zip(1..).all(|(part, number)| part.number == number) {
        return Err(Error::new(Kind::Invalid, format!("{doing}: the parts are not the whole")));
    }
    let to = destination(dav, &kept);
    let mut ways: Vec<Option<(&'static str, String)>> = match condition {
        Condition::Any => vec![],
        Condition::Absent => vec![Some(("if-none-match", "*".to_owned()))],
        Condition::Is(version) => match quoted(version) {
            Some(tag) => vec![Some(("if-match", tag.clone())), Some(("if", format!("<{to}> ([{tag}])")))],
            None => vec![],
        },
    };
    ways.push(None);
    let last = ways.len() - 1;
    for (at, way) in ways.into_iter().enumerate() {
        let seen = conditions::check(dav, &path, condition, &doing).await?;
        if seen.is_some_and(|seen| seen.is_directory()) {
            return Err(Error::new(Kind::IsDirectory, format!("{doing}: a directory is there")));
        }
        let mut call = Call::new("MOVE", format!("{}.file", folder(dav, &kept)?), &doing)
            .with("destination", to.clone())
            .with("overwrite", if *condition == Condition::Absent { "F" } else { "T" })
            .with("oc-total-length", kept.size.to_string())
            .with_some("x-oc-mtime", meta.mtime_ns.map(meta::seconds));
        if let Some((name, value)) = way {
            call = call.with(name, value);
        }
        let response = dav.link.send(&call).await?;
        match response.status().as_u16() {
            200..=299 => {
                let said = upload::tag_said(&response);
                errors::page(response).await;
                let seen = upload::verify(dav, &path, kept.size, said.as_ref(), &doing).await?;
                return upload::attributes(dav, &path, seen, meta).await;
            }
            412 if at < last => {
                errors::page(response).await;
            }
            404 => return Err(Error::new(Kind::NotFound, format!("{doing}: the session is gone"))),
            _ => return Err(dav.link.refused(&call, response).await),
        }
    }
    Err(Error::new(Kind::Precondition, format!("{doing}: the server refuses")))
}

/// Drops a session.
pub(super) async fn abort(dav: &WebDav, session: &Session) -> Result<()> {
    let Ok(kept) = Kept::read(session) else { return Ok(()) };
    let doing = format!("drop the upload of \"{}\"", kept.target());
    let call = Call::new("DELETE", folder(dav, &kept)?, &doing);
    let response = dav.link.send(&call).await?;
    match response.status().as_u16() {
        200..=299 | 404 => {
            errors::page(response).await;
            Ok(())
        }
        _ => Err(dav.link.refused(&call, response).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &str) -> Vec<String> {
        path.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn uploads_are_beside_files() {
        let found = |path, user| uploads(&root(path), user).map(|parts| parts.join("/"));
        assert_eq!(found("nc/remote.php/dav/files/ann/sub", "x").as_deref(), Some("nc/remote.php/dav/uploads/ann"));
        assert_eq!(found("remote.php/webdav", "bob").as_deref(), Some("remote.php/dav/uploads/bob"));
        assert_eq!(found("dav/files/ann", "ann"), None);
    }

    #[test]
    fn a_session_text_leads_nowhere_else() {
        for text in ["", "{}", "{\"format\":1,\"folder\":\"../files\",\"path\":\"a\",\"size\":1}"] {
            assert_eq!(Kept::read(&Session(text.into())).err().map(|e| e.kind), Some(Kind::NotFound), "{text}");
        }
    }
}
