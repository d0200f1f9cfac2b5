//! After a write whose answer was lost: did it happen? Decides from a look at what is there now. Used by [`super::retry`].
//!
//! Said to have happened is only what is shown to have: the same hash, the same bytes read back, or (where a content is too
//! large for that) size and the very time of change that was sent. In doubt the write's own error stands, and the planner,
//! which looks at everything anyway, finds out.

use super::{Body, Capabilities, Condition, Place, PutRequest, Remote};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, HashKind, Meta, Version};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

/// Contents up to this size are read back where no hash tells, bytes. A lost answer is rare, so some traffic is fine.
const READ_BACK_MAX: u64 = 16 << 20;

/// Bytes taken from a body at once.
const PIECE_BYTES: u64 = 1 << 20;

/// What a look at the target says of a write.
#[derive(Debug)]
pub(super) enum Verdict<T> {
    /// It happened, and this is there now.
    Done(T),
    /// It did not happen and may be repeated.
    Repeat,
    /// It did not happen, and would not now.
    Refused(Error),
    /// Nothing is shown either way.
    Unknown,
}

/// Whether `condition` holds for what is there.
pub(super) fn holds(condition: &Condition, found: Option<&Entry>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => found.is_none(),
        Condition::Is(version) => found.is_some_and(|entry| entry.version.as_ref() == Some(version)),
    }
}

/// Judges a `put`.
pub(super) async fn put(
    remote: &dyn Remote,
    place: &Place,
    request: &PutRequest,
    found: Option<Entry>,
) -> Result<Verdict<Entry>> {
    let PutRequest { body, meta, condition } = request;
    // Nothing was there and nothing is, or the old version still is.
    if *condition != Condition::Any && holds(condition, found.as_ref()) {
        return Ok(Verdict::Repeat);
    }
    let Some(entry) = found else {
        return Ok(if *condition == Condition::Any { Verdict::Repeat } else { Verdict::Refused(first(place)) });
    };
    Ok(match is_content(remote, place, &entry, body, meta).await? {
        // A content without its attributes is half of what was asked for, and the same content may have been there before.
        Some(true) if attributes_agree(remote.capabilities(), meta, &entry) != Some(false) => Verdict::Done(entry),
        Some(_) if *condition == Condition::Any => Verdict::Repeat,
        Some(_) => Verdict::Refused(first(place)),
        None => Verdict::Unknown,
    })
}

/// Judges a `rename` from what is at both ends. `source` is what the caller said of what moves.
///
/// A source that is gone without proof that it is what is at the target is `NotFound`, as the contract has it: a repeat could
/// move what somebody has put at the old place since.
pub(super) fn rename(
    able: &Capabilities,
    (from, to): (&Place, &Place),
    source: Option<&Version>,
    condition: &Condition,
    (at_from, at_to): (Option<Entry>, Option<Entry>),
) -> Verdict<Entry> {
    if !able.case_sensitive && from.path.as_str().to_lowercase() == to.path.as_str().to_lowercase() {
        // Both names find it, moved or not.
        return Verdict::Unknown;
    }
    match (at_from, at_to) {
        (Some(_), at_to) if holds(condition, at_to.as_ref()) => Verdict::Repeat,
        (Some(_), _) => Verdict::Refused(first(to)),
        (None, Some(entry)) if from.id.is_some() && entry.id == from.id => Verdict::Done(entry),
        (None, Some(entry)) if source.is_some() && entry.version.as_ref() == source => Verdict::Done(entry),
        (None, _) => Verdict::Refused(Error::new(Kind::NotFound, format!("{}: not there, perhaps moved", from.path))),
    }
}

/// Judges a `remove`.
pub(super) fn remove(place: &Place, condition: &Condition, found: Option<&Entry>) -> Verdict<()> {
    match found {
        None => Verdict::Done(()),
        Some(_) if holds(condition, found) => Verdict::Repeat,
        Some(_) => Verdict::Refused(first(place)),
    }
}

/// Judges a `set_meta`. `None` in `version`: whatever was there.
pub(super) fn set_meta(
    able: &Capabilities,
    place: &Place,
    version: Option<&Version>,
    meta: &Meta,
    found: Option<Entry>,
) -> Verdict<Entry> {
    match found {
        None => Verdict::Refused(Error::new(Kind::NotFound, format!("{}: not there", place.path))),
        Some(entry) if attributes_agree(able, meta, &entry) == Some(true) => Verdict::Done(entry),
        Some(entry) if version.is_none_or(|version| entry.version.as_ref() == Some(version)) => Verdict::Repeat,
        Some(_) => Verdict::Refused(first(place)),
    }
}

/// Whether the attributes there are those that were sent, as far as this remote keeps them; `None` where it told of none, or
/// keeps none of those sent.
fn attributes_agree(able: &Capabilities, sent: &Meta, entry: &Entry) -> Option<bool> {
    let there = entry.meta.as_ref()?;
    let step = able.meta.mtime_step_ns;
    let time =
        sent.mtime_ns.filter(|_| step > 0).map(|sent| there.mtime_ns.is_some_and(|ns| ns.abs_diff(sent) < step as u64));
    let mode = sent.mode.filter(|_| able.meta.mode).map(|sent| there.mode == Some(sent));
    let xattrs = sent.xattrs.as_ref().filter(|_| able.meta.xattr_bytes_max > 0);
    let xattrs = xattrs.map(|sent| there.xattrs.as_ref() == Some(sent));
    [time, mode, xattrs].into_iter().flatten().reduce(|all, one| all && one)
}

/// Whether `entry` holds the content of `body`; `None` where that cannot be told.
async fn is_content(
    remote: &dyn Remote,
    place: &Place,
    entry: &Entry,
    body: &Body,
    meta: &Meta,
) -> Result<Option<bool>> {
    if entry.kind != FileKind::File || entry.size != body.size() {
        return Ok(Some(false));
    }
    if let Some(hash) = entry.hash.as_ref().filter(|hash| hash.kind == HashKind::Sha256) {
        return Ok(Some(sha256(body)? == hash.hex));
    }
    match &entry.version {
        Some(version) if entry.size <= READ_BACK_MAX => {
            let mut stream = remote.read(place, version, 0..entry.size).await?;
            let mut at = 0;
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                let end = at + piece.len() as u64;
                if end > body.size() || body.read(at..end)? != piece {
                    return Ok(Some(false));
                }
                at = end;
            }
            Ok(Some(at == body.size()))
        }
        _ => {
            let timed = remote.capabilities().meta.with_upload && meta.mtime_ns.is_some();
            let agree = attributes_agree(remote.capabilities(), meta, entry).filter(|_| timed);
            Ok(agree.filter(|agree| *agree))
        }
    }
}

fn sha256(body: &Body) -> Result<String> {
    let (mut hasher, size, mut at) = (Sha256::new(), body.size(), 0);
    while at < size {
        let end = size.min(at + PIECE_BYTES);
        hasher.update(body.read(at..end)?);
        at = end;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The error of a write whose condition no longer holds.
fn first(place: &Place) -> Error {
    Error::new(Kind::Precondition, format!("{}: somebody else was there first", place.path))
}

/// The error of something that is to be made where another thing is.
pub(super) fn exists(place: &Place) -> Error {
    Error::new(Kind::Exists, format!("{}: exists", place.path))
}
