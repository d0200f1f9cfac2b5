//! Names of our own on a server: uploads and probes that are not finished. Never listed, never a user's.

use crate::error::{Error, Kind, Result};
use crate::model::RemotePath;
use crate::remote::NameRules;
use crate::sys::Chance;

const PREFIX: &str = ".~fw-";
const DIGITS: usize = 16;

/// Age from which a temporary name belongs to nobody any more: a day.
pub(super) const STALE_AFTER_NS: i64 = 24 * 3600 * 1_000_000_000;

/// A fresh name beside the file that it will become.
pub(super) fn temporary(chance: &dyn Chance) -> String {
    format!("{PREFIX}{:016x}", chance.next())
}

/// Whether `name` is one of ours.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Refuses what cannot be a file's path here. `NameRefused`, `NameTooLong`.
pub(super) fn check(path: &RemotePath, rules: &NameRules) -> Result<()> {
    let refuse = |kind, why: &str| Err(Error::new(kind, format!("\"{path}\": {why}")));
    if path.as_str().len() > rules.path_bytes_max {
        return refuse(Kind::NameTooLong, "the path is too long for this server");
    }
    for name in path.parts() {
        if name.len() > rules.name_bytes_max {
            return refuse(Kind::NameTooLong, "a name is too long for this server");
        }
        if matches!(name, "." | "..") || name.contains('\0') {
            return refuse(Kind::NameRefused, "not a file name");
        }
        if is_temporary(name) {
            return refuse(Kind::NameRefused, "names like this are used for uploads on their way");
        }
        if rules.no_leading_dot && name.starts_with('.') {
            return refuse(Kind::NameRefused, "this server does not list names that begin with a full stop");
        }
        if name.contains(|c: char| rules.forbidden.contains(c)) {
            return refuse(Kind::NameRefused, "a character that this server refuses");
        }
        if rules.no_control && name.contains(|c: char| c < ' ' || c == '\x7F') {
            return refuse(Kind::NameRefused, "a control character, which this server refuses");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RealChance;

    #[test]
    fn our_names_are_known_and_no_others() {
        assert!(is_temporary(&temporary(&RealChance::new())));
        for other in [".~fw-", ".~fw-0123456789abcdeF", ".~fw-0123456789abcdef0", "x.~fw-0123456789abcdef", ".~lock.a#"]
        {
            assert!(!is_temporary(other), "{other}");
        }
    }
}
