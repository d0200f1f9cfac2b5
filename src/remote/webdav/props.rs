//! The properties of one resource, and what they say of a file: version, size, times, attributes.

use super::wire::Known;
use super::{dates, meta};
use crate::model::{Entry, FileKind, Hash, HashKind, Version};
use crate::remote::webdav::probe::Probed;

/// Properties as a server gave them; `None` where it did not, or where they make no sense.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Props {
    pub collection: bool,
    pub length: Option<u64>,
    pub modified_ns: Option<i64>,
    /// As sent, with quotes and `W/`.
    pub etag: Option<String>,
    /// Negative numbers of Nextcloud (not computed, unknown, unlimited) are left out.
    pub quota_available: Option<u64>,
    pub quota_used: Option<u64>,
    pub file_id: Option<String>,
    pub checksums: Option<String>,
    pub executable: Option<bool>,
    pub mtime: Option<String>,
    pub mode: Option<String>,
    pub xattrs: Option<String>,
}

impl Props {
    /// Takes a property's text.
    pub(super) fn set(&mut self, property: Known, text: &str) {
        let some = || (!text.is_empty()).then(|| text.to_owned());
        match property {
            // Its element `collection` speaks.
            Known::ResourceType => {}
            Known::IsCollection => self.collection |= matches!(text, "1" | "t" | "T" | "true"),
            Known::Length => self.length = text.parse().ok(),
            Known::Modified => self.modified_ns = dates::parse(text),
            Known::ETag => self.etag = some(),
            Known::QuotaAvailable => self.quota_available = text.parse().ok(),
            Known::QuotaUsed => self.quota_used = text.parse().ok(),
            Known::FileId => self.file_id = some(),
            Known::Checksums => self.checksums = some(),
            Known::Executable => self.executable = some().map(|text| text == "T"),
            Known::Mtime => self.mtime = some(),
            Known::Mode => self.mode = some(),
            Known::Xattrs => self.xattrs = some(),
        }
    }

    /// Adds what another propstat says.
    pub(super) fn merge(&mut self, other: Props) {
        self.collection |= other.collection;
        self.length = other.length.or(self.length);
        self.modified_ns = other.modified_ns.or(self.modified_ns);
        self.quota_available = other.quota_available.or(self.quota_available);
        self.quota_used = other.quota_used.or(self.quota_used);
        self.executable = other.executable.or(self.executable);
        for (ours, theirs) in [
            (&mut self.etag, other.etag),
            (&mut self.file_id, other.file_id),
            (&mut self.checksums, other.checksums),
            (&mut self.mtime, other.mtime),
            (&mut self.mode, other.mode),
            (&mut self.xattrs, other.xattrs),
        ] {
            if theirs.is_some() {
                *ours = theirs;
            }
        }
    }

    /// What tells this content from another: the etag, else size and time; directories have one only where etags
    /// tell of changes below.
    pub(super) fn version(&self, probed: &Probed) -> Option<Version> {
        if self.collection && !probed.tree_tags {
            return None;
        }
        match self.etag.as_deref().and_then(Tag::parse) {
            Some(tag) => Some(tag.version),
            None if self.collection => None,
            None => Some(composed(self.length.unwrap_or(0), self.modified_ns)),
        }
    }

    /// Whether the etag is weak: true of Apache for a second after each write.
    pub(super) fn is_weak(&self) -> bool {
        self.etag.as_deref().and_then(Tag::parse).is_some_and(|tag| tag.weak)
    }

    /// The entry that these properties describe.
    pub(super) fn entry(&self, probed: &Probed) -> Entry {
        let version = self.version(probed);
        Entry {
            kind: if self.collection { FileKind::Directory } else { FileKind::File },
            id: self.file_id.clone().filter(|_| probed.ids),
            size: if self.collection { 0 } else { self.length.unwrap_or(0) },
            meta: Some(meta::read(self, version.as_ref(), probed)),
            version,
            hash: self.checksums.as_deref().filter(|_| probed.hashes_verified()).and_then(hash),
            server_mtime_ns: self.modified_ns,
        }
    }
}

/// An etag taken apart (RFC 9110, 8.8.3).
pub(super) struct Tag {
    /// Without quotes and `W/`: Apache sends the same value weak first, then strong.
    pub version: Version,
    pub weak: bool,
}

impl Tag {
    /// `None` for an empty tag.
    pub(super) fn parse(text: &str) -> Option<Tag> {
        let text = text.trim();
        let (weak, rest) = match text.strip_prefix("W/").or_else(|| text.strip_prefix("w/")) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bare = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(rest);
        (!bare.is_empty()).then(|| Tag { version: Version::new(bare), weak })
    }
}

/// The mark of a version that is no etag. An etag of a real server does not begin so.
const COMPOSED: &str = "~size-";

/// A version for servers that list no etags (copyparty, nginx): size and the time of the last change.
pub(super) fn composed(size: u64, modified_ns: Option<i64>) -> Version {
    Version::new(format!("{COMPOSED}{size}-time-{}", modified_ns.unwrap_or(0)))
}

/// Whether a version is made of size and time.
pub(super) fn is_composed(version: &Version) -> bool {
    version.as_str().starts_with(COMPOSED)
}

/// The version in quotes for If-Match; `None` where it is no etag, or cannot stand in a header.
pub(super) fn quoted(version: &Version) -> Option<String> {
    let text = version.as_str();
    let fits = !is_composed(version) && !text.contains('"') && text.bytes().all(|b| b >= 0x20 && b != 0x7F);
    fits.then(|| format!("\"{text}\""))
}

/// The strongest hash of `SHA1:… MD5:… ADLER32:…`.
fn hash(text: &str) -> Option<Hash> {
    let find = |kind, label: &str, digits| {
        text.split_whitespace().find_map(|word| {
            let (name, hex) = word.split_once(':')?;
            let fits =
                name.eq_ignore_ascii_case(label) && hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| Hash { kind, hex: hex.to_ascii_lowercase() })
        })
    };
    find(HashKind::Sha256, "SHA256", 64)
        .or_else(|| find(HashKind::Sha1, "SHA1", 40))
        .or_else(|| find(HashKind::Md5, "MD5", 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_strong_forms_of_a_tag_are_one_version() {
        for text in ["\"3-abc\"", "W/\"3-abc\"", "3-abc", " w/\"3-abc\" "] {
            assert_eq!(Tag::parse(text).unwrap().version.as_str(), "3-abc", "{text}");
        }
        assert!(Tag::parse("W/\"x\"").unwrap().weak && !Tag::parse("\"x\"").unwrap().weak);
        assert!(Tag::parse("").is_none() && Tag::parse("\"\"").is_none());
    }

    #[test]
    fn only_etags_are_sent_back() {
        assert_eq!(quoted(&Version::new("3-a")).as_deref(), Some("\"3-a\""));
        assert_eq!(quoted(&composed(3, Some(4))), None);
        assert_eq!(quoted(&Version::new("a\"b")), None);
        assert_eq!(quoted(&Version::new("a\nb")), None);
    }

    #[test]
    fn the_strongest_hash_is_taken() {
        let sha1 = "a".repeat(40);
        let text = format!("MD5:{} SHA1:{sha1} ADLER32:1", "b".repeat(32));
        assert_eq!(hash(&text), Some(Hash { kind: HashKind::Sha1, hex: sha1 }));
        assert_eq!(hash("SHA1:zz"), None);
    }
}
