//! Conditions on what is there: as headers where the server obeys them, by a look where it does not.

use super::WebDav;
use super::list::{self, Seen};
use super::props::quoted;
use crate::error::{Error, Kind, Result};
use crate::model::{RemotePath, Version};
use crate::remote::Condition;
use std::time::Duration;

/// Between two looks at a tag that is still weak.
const STRONG_POLL: Duration = Duration::from_millis(150);
/// Looks before a weak tag is given up. Apache's was strong after 1.04 s (measured).
const STRONG_POLLS_MAX: usize = 20;

/// Whether a condition holds for what a look found.
pub(super) fn holds(condition: &Condition, seen: Option<&Seen>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => seen.is_none(),
        Condition::Is(version) => list::version_of(seen) == Some(version),
    }
}

/// Looks at `path`, and gives what is there if `condition` holds for it, else `Precondition`.
pub(super) async fn check(dav: &WebDav, path: &RemotePath, condition: &Condition, doing: &str) -> Result<Option<Seen>> {
    let seen = list::look(dav, path).await?;
    if holds(condition, seen.as_ref()) { Ok(seen) } else { Err(broken(path, condition, seen.as_ref(), doing)) }
}

/// The error for a condition that does not hold.
pub(super) fn broken(path: &RemotePath, condition: &Condition, seen: Option<&Seen>, doing: &str) -> Error {
    let wanted = match condition {
        Condition::Absent => "nothing".to_owned(),
        Condition::Any => "anything".to_owned(),
        Condition::Is(version) => format!("version {version}"),
    };
    let there = match (seen, list::version_of(seen)) {
        (None, _) => "nothing".to_owned(),
        (Some(_), Some(version)) => format!("version {version}"),
        (Some(_), None) => "a directory".to_owned(),
    };
    Error::new(Kind::Precondition, format!("{doing}: {wanted} was expected at \"{path}\", {there} is there"))
}

/// Waits until the tag of `version` at `path` is strong, so that If-Match can hold. False: another version is there.
///
/// Apache's tags are weak for about a second after a write, and If-Match fails on them even when right.
pub(super) async fn strong(dav: &WebDav, path: &RemotePath, version: &Version) -> Result<bool> {
    for _ in 0..STRONG_POLLS_MAX {
        let seen = list::look(dav, path).await?;
        match seen {
            Some(seen) if seen.entry.version.as_ref() == Some(version) => {
                if !seen.weak {
                    return Ok(true);
                }
            }
            _ => return Ok(false),
        }
        tokio::time::sleep(STRONG_POLL).await;
    }
    Ok(true)
}

/// The If-Match or If-None-Match header of a condition on the request's own target; `None` where the server would not obey.
pub(super) fn header(dav: &WebDav, condition: &Condition) -> Option<(&'static str, String)> {
    match condition {
        Condition::Absent if dav.probed.conditional_create => Some(("if-none-match", "*".to_owned())),
        Condition::Is(version) if dav.probed.conditional_replace => Some(("if-match", quoted(version)?)),
        _ => None,
    }
}
