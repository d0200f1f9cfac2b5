//! Changing the tree: directories, moves, copies, removal, attributes (RFC 4918, 9.2, 9.3, 9.6, 9.8, 9.9).

use super::WebDav;
use super::list::{self, Seen};
use super::props::quoted;
use super::request::{Call, Content};
use super::wire;
use super::{conditions, errors, meta, upload};
use crate::error::{Context, Error, Kind, Result, Retry};
use crate::model::{Entry, Meta, RemotePath, Version};
use crate::remote::Condition;
use reqwest::Response;

/// Makes a directory.
pub(super) async fn mkdir(dav: &WebDav, path: &RemotePath, meta: &Meta) -> Result<Entry> {
    let doing = format!("make directory \"{path}\"");
    if dav.probed.makes_parents {
        upload::check_parent(dav, path, &doing).await?;
    }
    if !dav.probed.conditional_mkdir && list::look(dav, path).await?.is_some() {
        return Err(Error::new(Kind::Exists, format!("{doing}: it is there already")));
    }
    let call = Call::new("MKCOL", dav.link.address.path(path, true), &doing);
    let response = dav.link.send(&call).await?;
    if !response.status().is_success() {
        let error = upload::explain(dav, path, &call, response).await;
        // Where a file or directory is in the way, servers say 405, 409, 400 (Apache for a file) or 301.
        let there = error.kind.retry() == Retry::Never && list::look(dav, path).await?.is_some();
        return Err(if there { Error::new(Kind::Exists, format!("{doing}: it is there already")) } else { error });
    }
    errors::page(response).await;
    match list::look(dav, path).await? {
        Some(seen) if seen.is_directory() => upload::attributes(dav, path, seen, meta).await,
        Some(_) => Err(Error::new(Kind::Exists, format!("{doing}: a file is there"))),
        None => Err(Error::new(Kind::Unavailable, format!("{doing}: it was made, and is not there"))),
    }
}

/// Moves a file or directory; see [`crate::remote::Remote::rename`].
pub(super) async fn rename(
    dav: &WebDav,
    from: &RemotePath,
    to: &RemotePath,
    source: Option<&Version>,
    condition: &Condition,
) -> Result<Entry> {
    let doing = format!("move \"{from}\" to \"{to}\"");
    if to.is_within(from) && to != from {
        return Err(Error::new(Kind::Invalid, format!("{doing}: into itself")));
    }
    let Some(moved) = list::look(dav, from).await? else {
        return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there")));
    };
    let directory = moved.is_directory();
    if let Some(version) = source.filter(|_| !directory)
        && moved.entry.version.as_ref() != Some(version)
    {
        return Err(conditions::broken(from, &Condition::Is(version.clone()), Some(&moved), &doing));
    }
    if from == to {
        return Ok(moved.entry);
    }
    let condition = if directory { &Condition::Absent } else { condition };
    // Where Overwrite: F is obeyed it keeps what is there; all else needs a look.
    if !(*condition == Condition::Absent && dav.probed.keeps_target) {
        let target = conditions::check(dav, to, condition, &doing).await?;
        if target.is_some_and(|target| target.is_directory()) {
            return Err(Error::new(Kind::IsDirectory, format!("{doing}: a directory is there")));
        }
    }
    if dav.probed.makes_parents {
        upload::check_parent(dav, to, &doing).await?;
    }
    move_over(dav, from, to, condition, directory, &doing).await?;
    let Some(seen) = list::look(dav, to).await? else {
        return Err(Error::new(Kind::Unavailable, format!("{doing}: it was moved, and is not there")));
    };
    if seen.is_directory() != directory || seen.entry.size != moved.entry.size {
        return Err(conditions::broken(to, &Condition::Absent, Some(&seen), &doing));
    }
    // A time belongs to a version; where moving gives a new one, it is written anew.
    let wanted = moved.entry.meta.unwrap_or_default();
    upload::attributes(dav, to, seen, &wanted).await
}

/// Sends the MOVE itself. A 412 that comes of a tag being weak is waited out once.
pub(super) async fn move_over(
    dav: &WebDav,
    from: &RemotePath,
    to: &RemotePath,
    condition: &Condition,
    directory: bool,
    doing: &str,
) -> Result<()> {
    transfer(dav, "MOVE", from, to, condition, directory, doing).await
}

async fn transfer(
    dav: &WebDav,
    method: &'static str,
    from: &RemotePath,
    to: &RemotePath,
    condition: &Condition,
    directory: bool,
    doing: &str,
) -> Result<()> {
    let address = &dav.link.address;
    let destination = address.destination(&address.path(to, directory), dav.probed.destination);
    let overwrite = if *condition == Condition::Absent { "F" } else { "T" };
    let tagged = match condition {
        Condition::Is(version) if dav.probed.tagged_conditions => {
            quoted(version).map(|tag| format!("<{destination}> ([{tag}])"))
        }
        _ => None,
    };
    let mut waited = false;
    loop {
        let call = Call::new(method, address.path(from, directory), doing)
            .with("destination", destination.clone())
            .with("overwrite", overwrite)
            .with("depth", if directory || method == "MOVE" { "infinity" } else { "0" })
            .with_some("if", tagged.clone());
        let response = dav.link.send(&call).await?;
        if response.status().as_u16() == 412
            && let Condition::Is(version) = condition
            && !waited
            && tagged.is_some()
        {
            waited = true;
            errors::page(response).await;
            if conditions::strong(dav, to, version).await? {
                continue;
            }
            return Err(Error::new(Kind::Precondition, format!("{doing}: another version is at the target")));
        }
        if matches!(response.status().as_u16(), 403 | 404 | 409 | 500) {
            // A missing parent at the target, or the source gone.
            return Err(explain(dav, from, to, &call, response).await);
        }
        return whole(dav, &call, response).await;
    }
}

async fn explain(dav: &WebDav, from: &RemotePath, to: &RemotePath, call: &Call<'_>, response: Response) -> Error {
    let error = upload::explain(dav, to, call, response).await;
    match list::look(dav, from).await {
        Ok(None) => Error::new(Kind::NotFound, format!("{}: it is not there", call.doing)),
        _ => error,
    }
}

/// Takes the answer of a request on a tree: 207 tells of parts that failed (RFC 4918, 9.6.1).
async fn whole(dav: &WebDav, call: &Call<'_>, response: Response) -> Result<()> {
    if response.status().as_u16() == 207 {
        let mut failed = None;
        let each = |part: wire::Response| {
            if let Some(status) = part.status.or(part.failed).filter(|status| *status >= 300) {
                failed.get_or_insert((status, part.href));
            }
        };
        wire::multistatus(Box::pin(response.bytes_stream()), each).await.context(call.doing)?;
        return match failed {
            Some((status, href)) => {
                let text = format!("{}: done in part only, status {status} at {}", call.doing, href.escape_debug());
                Err(Error::new(errors::kind(call.method, status, ""), text))
            }
            None => Ok(()),
        };
    }
    if !response.status().is_success() {
        return Err(dav.link.refused(call, response).await);
    }
    errors::page(response).await;
    Ok(())
}

/// Copies a file on the server.
pub(super) async fn copy(
    dav: &WebDav,
    from: &RemotePath,
    version: &Version,
    to: &RemotePath,
    condition: &Condition,
) -> Result<Entry> {
    let doing = format!("copy \"{from}\" to \"{to}\"");
    let copied = match list::look(dav, from).await? {
        Some(seen) if seen.entry.version.as_ref() == Some(version) => seen,
        Some(_) => return Err(Error::new(Kind::Changed, format!("{doing}: that version is no longer there"))),
        None => return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there"))),
    };
    let target = conditions::check(dav, to, condition, &doing).await?;
    if copied.is_directory() || target.is_some_and(|target| target.is_directory()) {
        return Err(Error::new(Kind::IsDirectory, format!("{doing}: a directory is there")));
    }
    if dav.probed.makes_parents {
        upload::check_parent(dav, to, &doing).await?;
    }
    transfer(dav, "COPY", from, to, condition, false, &doing).await?;
    let seen = upload::verify(dav, to, copied.entry.size, None, &doing).await?;
    upload::attributes(dav, to, seen, &copied.entry.meta.unwrap_or_default()).await
}

/// Removes a file, or a directory that is empty. A server removes all that is below, so a look comes first.
pub(super) async fn remove(dav: &WebDav, path: &RemotePath, directory: bool, condition: &Condition) -> Result<()> {
    let doing = format!("remove \"{path}\"");
    let address = &dav.link.address;
    if *condition == Condition::Absent {
        return Err(Error::new(Kind::Invalid, format!("{doing}: it cannot be absent")));
    }
    if directory {
        if !list::list(dav, path).await?.entries.is_empty() {
            return Err(Error::new(Kind::NotEmpty, format!("{doing}: it is not empty")));
        }
        let call = Call::new("DELETE", address.path(path, true), &doing);
        let response = dav.link.send(&call).await?;
        return whole(dav, &call, response).await;
    }
    let header = conditions::header(dav, condition).filter(|_| dav.probed.conditional_remove);
    if header.is_none() {
        match conditions::check(dav, path, condition, &doing).await? {
            Some(seen) if seen.is_directory() => {
                return Err(Error::new(Kind::IsDirectory, format!("{doing}: it is a directory")));
            }
            Some(_) => {}
            None => return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there"))),
        }
    }
    let mut waited = false;
    loop {
        let mut call = Call::new("DELETE", address.path(path, false), &doing);
        call = match &header {
            Some((name, value)) => call.with(name, value.clone()),
            None => call,
        };
        let response = dav.link.send(&call).await?;
        if response.status().as_u16() == 412
            && let Condition::Is(version) = condition
            && !waited
        {
            waited = true;
            errors::page(response).await;
            if conditions::strong(dav, path, version).await? {
                continue;
            }
            let seen = list::look(dav, path).await?;
            return Err(match seen {
                None => Error::new(Kind::NotFound, format!("{doing}: it is not there")),
                seen => conditions::broken(path, condition, seen.as_ref(), &doing),
            });
        }
        return whole(dav, &call, response).await;
    }
}

/// Changes attributes alone.
pub(super) async fn set_meta(
    dav: &WebDav,
    path: &RemotePath,
    directory: bool,
    version: Option<&Version>,
    wanted: &Meta,
) -> Result<Entry> {
    let doing = format!("set attributes of \"{path}\"");
    let support = dav.capabilities.meta;
    if !(if directory { support.directories } else { support.alone }) {
        return Err(Error::new(Kind::Unsupported, format!("{doing}: this server keeps none")));
    }
    let Some(seen) = list::look(dav, path).await? else {
        return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there")));
    };
    match (seen.is_directory(), directory) {
        (true, false) => return Err(Error::new(Kind::IsDirectory, format!("{doing}: it is a directory"))),
        (false, true) => return Err(Error::new(Kind::NotDirectory, format!("{doing}: it is a file"))),
        _ => {}
    }
    if let Some(version) = version.filter(|_| !directory)
        && seen.entry.version.as_ref() != Some(version)
    {
        return Err(conditions::broken(path, &Condition::Is(version.clone()), Some(&seen), &doing));
    }
    let possible = meta::possible(wanted, directory, &dav.probed);
    let missing = meta::missing(seen.entry.meta.as_ref(), &possible, &dav.probed);
    if missing == Meta::default() {
        return Ok(seen.entry);
    }
    change_or_error(proppatch(dav, path, seen, &missing).await)
}

fn change_or_error(result: std::result::Result<Entry, (Box<Seen>, Error)>) -> Result<Entry> {
    result.map_err(|(_, error)| error)
}

/// Sets `meta` on what was `seen`, natively and as properties; gives back `seen` with an error.
pub(super) async fn proppatch(
    dav: &WebDav,
    path: &RemotePath,
    mut seen: Seen,
    meta: &Meta,
) -> std::result::Result<Entry, (Box<Seen>, Error)> {
    let directory = seen.is_directory();
    if let Some(mtime_ns) = meta.mtime_ns.filter(|_| dav.probed.mtime_alone && !directory) {
        if let Err(error) = send_update(dav, path, directory, meta::update_native_time(mtime_ns)).await {
            return Err((Box::new(seen), error));
        }
        // The time is part of the etag, or of the version, on some servers.
        match list::look(dav, path).await {
            Ok(Some(now)) if now.entry.size == seen.entry.size => seen = now,
            Ok(_) => {
                let error =
                    Error::new(Kind::Precondition, format!("set attributes of \"{path}\": it changed meanwhile"));
                return Err((Box::new(seen), error));
            }
            Err(error) => return Err((Box::new(seen), error)),
        }
    }
    if !dav.probed.has_properties() {
        return Ok(seen.entry);
    }
    let body = meta::update(meta, seen.entry.version.as_ref(), directory, &dav.probed);
    if body.len() > dav.probed.property_bytes + meta::UPDATE_BYTES {
        let text = format!("set attributes of \"{path}\": more than this server keeps");
        return Err((Box::new(seen), Error::new(Kind::TooLarge, text)));
    }
    match send_update(dav, path, directory, body).await {
        Ok(()) => {
            let have = seen.entry.meta.take().unwrap_or_default();
            seen.entry.meta = Some(meta::over(&have, meta));
            Ok(seen.entry)
        }
        Err(error) => Err((Box::new(seen), error)),
    }
}

async fn send_update(dav: &WebDav, path: &RemotePath, directory: bool, body: String) -> Result<()> {
    let doing = format!("set attributes of \"{path}\"");
    let call = Call::new("PROPPATCH", dav.link.address.path(path, directory), &doing).content(Content::Xml(body));
    let response = dav.link.send(&call).await?;
    whole(dav, &call, response).await
}
