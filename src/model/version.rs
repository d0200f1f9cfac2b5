//! What tells one content of a file from another.

use std::fmt;

/// An opaque tag that a remote gives to one content of one file: equal tags, equal bytes.
///
/// A strong etag without its quotes, a revision id, or what the provider's sheet says stands for one. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub String);

impl Version {
    /// Takes a tag.
    pub fn new(tag: impl Into<String>) -> Self {
        Version(tag.into())
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_default())
    }
}

/// How a content hash was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    Md5,
    Sha1,
    Sha256,
}

/// A content hash that a provider states, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hash {
    pub kind: HashKind,
    pub hex: String,
}
