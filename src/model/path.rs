//! A place on a remote.

use std::fmt;

/// A path on a remote, relative to the drive's root: the provider's own names joined by `/`; the root is empty.
///
/// Names are those that the provider holds (mapped by `remote::names`), so never what a program on the mount typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(String);

impl RemotePath {
    /// The drive's root.
    pub fn root() -> Self {
        RemotePath(String::new())
    }

    /// Takes a path; leading, trailing and doubled slashes are dropped.
    pub fn new(path: &str) -> Self {
        RemotePath(path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
    }

    /// The path of `name` in this directory. `name` holds no `/`.
    pub fn join(&self, name: &str) -> Self {
        if self.0.is_empty() { RemotePath(name.to_owned()) } else { RemotePath(format!("{}/{name}", self.0)) }
    }

    /// The directory that this path is in, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(RemotePath, &str)> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.rsplit_once('/') {
            Some((parent, name)) => (RemotePath(parent.to_owned()), name),
            None => (RemotePath::root(), &self.0),
        })
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// Whether this is the drive's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, outermost first; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// Whether this path is `other` or lies below it.
    pub fn is_within(&self, other: &RemotePath) -> bool {
        other.0.is_empty()
            || self.0 == other.0
            || (self.0.starts_with(&other.0) && self.0.as_bytes().get(other.0.len()) == Some(&b'/'))
    }

    /// The text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemotePath {
    /// Writes `/` and the path, control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/")?;
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_looks_at_whole_parts() {
        let p = RemotePath::new;
        assert!(p("a/b").is_within(&p("a")) && p("a").is_within(&p("a")) && p("a").is_within(&p("")));
        assert!(!p("ab").is_within(&p("a")) && !p("a").is_within(&p("a/b")));
        assert_eq!(p("/a//b/").split(), Some((p("a"), "b")));
        assert_eq!(p("a").split(), Some((p(""), "a")));
    }
}
