//! Names that stay on this machine.

use crate::model::Name;
use serde::{Deserialize, Serialize};

/// The names of lock and scratch files that stay local unless `local_only` says otherwise.
///
/// LibreOffice and MS Office lock files, NFS and FUSE placeholders for removed open files, GLib's and KDE's temporary
/// saves, unfinished downloads, swap and lock files of vim and Emacs.
pub const LOCAL_ONLY_DEFAULT: [&str; 11] = [
    ".~lock.*#",
    "~$*",
    ".nfs*",
    ".fuse_hidden*",
    ".goutputstream-*",
    "*.part",
    "*.crdownload",
    ".*.sw[a-p]",
    ".*.swx",
    ".#*",
    "*.kate-swp",
];

/// A list of shell patterns for one name (never for a path): `*`, `?` and `[a-z]`, `[!x]`; all else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Patterns(Vec<String>);

impl Patterns {
    /// Takes patterns. `Err` names the one that can match no name, and why.
    pub fn new(patterns: Vec<String>) -> Result<Self, String> {
        for pattern in &patterns {
            if pattern.is_empty() || pattern.contains('/') || pattern.contains('\0') {
                return Err(format!(
                    "\"{}\" matches no name; patterns are for names, not paths",
                    pattern.escape_debug()
                ));
            }
            if pattern.bytes().all(|b| b == b'*') {
                return Err(format!("\"{pattern}\" would keep every file from the remote"));
            }
        }
        Ok(Patterns(patterns))
    }

    /// The default list.
    pub fn local_only() -> Self {
        Patterns(LOCAL_ONLY_DEFAULT.map(String::from).to_vec())
    }

    /// Whether `name` matches any of them.
    pub fn matches(&self, name: &Name) -> bool {
        self.0.iter().any(|pattern| fits(pattern.as_bytes(), name.as_bytes()))
    }

    /// The patterns, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether `name` fits `pattern`. Linear in space, quadratic in time at worst: only the last `*` is ever tried again.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            again = Some((p, n));
        } else if let Some(used) = pattern.get(p..).and_then(|rest| one(rest, name[n])) {
            p += used;
            n += 1;
        } else if let Some((star, from)) = again {
            (p, n) = (star, from + 1);
            again = Some((star, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// How many bytes of `pattern` stand for the one byte `b`; `None` where it does not fit.
fn one(pattern: &[u8], b: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => match class(rest, b) {
            Some((fits, used)) => fits.then_some(used + 1),
            // Not closed: a bracket as such.
            None => (b == b'[').then_some(1),
        },
        [first, ..] => (*first == b).then_some(1),
    }
}

/// Whether `b` is in the class that begins `rest` (after the `[`), and its length with the `]`; `None` if it never closes.
fn class(rest: &[u8], b: u8) -> Option<(bool, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut at = start;
    let mut found = false;
    loop {
        match (rest.get(at)?, rest.get(at + 1), rest.get(at + 2)) {
            // A `]` that comes first stands for itself.
            (b']', ..) if at > start => return Some((found != negated, at + 1)),
            (low, Some(b'-'), Some(high)) if *high != b']' => {
                found |= (*low..=*high).contains(&b);
                at += 3;
            }
            (same, ..) => {
                found |= *same == b;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_marks_and_classes_fit_as_in_a_shell() {
        let fits = |pattern: &str, name: &str| super::fits(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in [
            ("*.part", "a.part"),
            ("*.part", ".part"),
            (".~lock.*#", ".~lock.letter.odt#"),
            ("a*b*c", "aXbbXc"),
            ("?", "x"),
            (".*.sw[a-p]", ".a.txt.swp"),
            ("[!a]b", "xb"),
            ("[]x]", "]"),
            ("[a", "[a"),
            ("~$*", "~$report.docx"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.part", "a.parts"),
            ("?", "xy"),
            ("?", ""),
            (".*.sw[a-p]", ".a.swz"),
            ("[!a]b", "ab"),
            ("a*b", "a"),
            ("a", ""),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_in_time() {
        let pattern = "*a".repeat(100);
        assert!(!super::fits(pattern.as_bytes(), &[b'a'; 250][..99]));
        assert!(super::fits(pattern.as_bytes(), &[b'a'; 250]));
    }

    #[test]
    fn patterns_that_match_nothing_or_everything_are_refused() {
        for bad in ["", "a/b", "*", "**"] {
            assert!(Patterns::new(vec![bad.into()]).is_err(), "{bad}");
        }
        assert!(Patterns::new(LOCAL_ONLY_DEFAULT.map(String::from).to_vec()).is_ok());
    }
}
