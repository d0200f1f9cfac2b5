//! Keys and paths: which key a path stands for, and which tree a sorted run of keys is.
//!
//! A bucket knows keys only. Directories are keys that end in `/` (markers, as the S3 console, rclone and s3fs write them),
//! `dir_$folder$` (Hadoop), or merely implied by a key below. What one name cannot show twice gets another:
//! - object `a` beside keys under `a/`: the directory is `a`, the object `a (object)`;
//! - object `a/` that holds bytes: the directory is `a`, the object `a/(directory object)`.
//!
//! Keys that no file system holds (`a//b`, `/a`, segments `.` and `..`, over 255 bytes, with NUL) are left out and counted.

use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Name, RemotePath, Version};
use serde::{Deserialize, Serialize};

/// Names, below the drive's prefix, of objects of our own; never shown, and refused to others.
pub(super) const OWN_PREFIX: &str = ".fourwheel-";
/// An object of our own that is older than this was left behind, and means nothing any more.
pub(super) const OWN_NS_MAX: i64 = 7 * 86_400 * 1_000_000_000;
/// Of the objects that the probe makes.
pub(super) const PROBE_PREFIX: &str = ".fourwheel-probe-";
/// Of the notes that a directory rename is under way.
pub(super) const RENAME_PREFIX: &str = ".fourwheel-rename-";
/// Longest key, bytes of UTF-8 ("Object key naming guidelines").
pub(super) const KEY_BYTES_MAX: usize = 1_024;
const HADOOP_SUFFIX: &str = "_$folder$";
const OBJECT_SUFFIX: &str = " (object)";
const MARKER_NAME: &str = "(directory object)";

/// The part of a bucket that is the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Empty, or ends in `/`.
    prefix: String,
}

impl Layout {
    /// Takes a prefix with or without slashes around it.
    pub fn new(prefix: &str) -> Layout {
        let path = RemotePath::new(prefix);
        Layout { prefix: if path.is_root() { String::new() } else { format!("{}/", path.as_str()) } }
    }

    /// What all keys of the drive begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a file.
    pub fn file(&self, path: &RemotePath) -> String {
        format!("{}{}", self.prefix, path.as_str())
    }

    /// What the keys below a directory begin with, which is also its marker's key; the prefix itself for the root.
    pub fn directory(&self, path: &RemotePath) -> String {
        if path.is_root() { self.prefix.clone() } else { format!("{}{}/", self.prefix, path.as_str()) }
    }

    /// Whether something may be stored at `path`, as a file or a directory. `NameTooLong`, `NameRefused`.
    pub fn check(&self, path: &RemotePath) -> Result<()> {
        for name in path.parts() {
            Name::new(name.as_bytes())?;
        }
        let bytes = self.directory(path).len();
        if bytes > KEY_BYTES_MAX {
            return Err(Error::new(Kind::NameTooLong, format!("a key of {bytes} bytes; S3 has {KEY_BYTES_MAX}")));
        }
        if path.as_str().starts_with(OWN_PREFIX) {
            return Err(Error::new(Kind::NameRefused, format!("names with {OWN_PREFIX} are fourwheel's own here")));
        }
        Ok(())
    }

    /// The key of Hadoop's marker of a directory.
    pub fn hadoop(&self, path: &RemotePath) -> String {
        format!("{}{}{HADOOP_SUFFIX}", self.prefix, path.as_str())
    }

    /// The key that such a made-up path shows, if it is one; a key that is literally so named comes first.
    pub fn suffixed(&self, path: &RemotePath) -> Option<String> {
        let file = self.file(path);
        if path.name() == MARKER_NAME {
            return file.strip_suffix(MARKER_NAME).filter(|key| !key.is_empty()).map(str::to_owned);
        }
        file.strip_suffix(OBJECT_SUFFIX).filter(|plain| !plain.is_empty() && !plain.ends_with('/')).map(str::to_owned)
    }
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    pub key: String,
    pub size: u64,
    /// Without quotes; empty where the server names none.
    pub etag: String,
    /// `LastModified`, nanoseconds since 1970.
    pub modified_ns: Option<i64>,
}

impl Object {
    fn entry(&self) -> Entry {
        Entry {
            kind: FileKind::File,
            id: None,
            size: self.size,
            version: (!self.etag.is_empty()).then(|| Version::new(self.etag.as_str())),
            hash: None,
            server_mtime_ns: self.modified_ns,
            meta: None,
        }
    }
}

/// A directory's entry; `modified_ns` and the attributes are its marker's, if it has one.
pub(super) fn directory_entry(modified_ns: Option<i64>) -> Entry {
    Entry {
        kind: FileKind::Directory,
        id: None,
        size: 0,
        version: None,
        hash: None,
        server_mtime_ns: modified_ns,
        meta: None,
    }
}

/// What the weaver remembers from one page to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Thread {
    /// The deepest directory that was shown last, as `a/b/`; the listed directory at first.
    directory: String,
    /// Objects whose name may yet turn out to be a directory's: each begins the next one's key.
    waiting: Vec<Object>,
}

impl Thread {
    /// Starts below a directory, `a/b/` or empty.
    pub fn below(directory: &str) -> Thread {
        Thread { directory: directory.to_owned(), waiting: Vec::new() }
    }
}

/// Makes a tree of keys in ascending order of bytes: each directory once, parents before children.
///
/// On a server that does not sort, directories come more than once and the suffix of a clash may be missing; no object is lost.
#[derive(Debug, Default)]
pub(super) struct Weaver {
    pub thread: Thread,
    pub entries: Vec<(RemotePath, Entry)>,
    /// Keys left out on this page.
    pub skipped: Vec<String>,
    /// Directories whose name is an object's too.
    pub clashes: Vec<RemotePath>,
    /// Whether a marker of Hadoop was seen.
    pub hadoop: bool,
}

impl Weaver {
    /// Goes on from an earlier page.
    pub fn new(thread: Thread) -> Weaver {
        Weaver { thread, ..Weaver::default() }
    }

    /// Takes an object; its key is relative to the drive's prefix.
    pub fn object(&mut self, object: Object) {
        self.settle(&object.key);
        if object.key.starts_with(OWN_PREFIX) {
            return;
        }
        let (directory, name) = split(&object.key);
        if name.is_empty() {
            if !self.enter(directory, object.modified_ns) {
                self.skip(object.key);
            } else if object.size > 0 {
                self.show_at(format!("{directory}{MARKER_NAME}"), &object);
            }
        } else if !self.enter(directory, None) || !fits(name) {
            self.skip(object.key);
        } else if let Some(plain) = name.strip_suffix(HADOOP_SUFFIX).filter(|name| object.size == 0 && fits(name)) {
            self.hadoop = true;
            let path = format!("{directory}{plain}");
            self.entries.push((RemotePath::new(&path), directory_entry(object.modified_ns)));
        } else {
            self.thread.waiting.push(object);
        }
    }

    /// Takes a common prefix, which ends in `/`.
    pub fn prefix(&mut self, prefix: &str) {
        self.settle(prefix);
        if prefix.starts_with(OWN_PREFIX) {
            return;
        }
        if prefix.ends_with('/') && !self.enter(prefix, None) {
            self.skip(prefix.to_owned());
        }
    }

    /// Ends the last page.
    pub fn finish(&mut self) {
        for object in std::mem::take(&mut self.thread.waiting) {
            self.show(object);
        }
    }

    /// Decides on waiting objects in the light of the next key.
    fn settle(&mut self, next: &str) {
        for object in std::mem::take(&mut self.thread.waiting) {
            match next.strip_prefix(object.key.as_str()) {
                Some(rest) if rest.starts_with('/') => {
                    self.clashes.push(RemotePath::new(&object.key));
                    self.show_at(format!("{}{OBJECT_SUFFIX}", object.key), &object);
                }
                Some(rest) if rest < "/" => self.thread.waiting.push(object),
                _ => self.show(object),
            }
        }
    }

    fn show(&mut self, object: Object) {
        self.entries.push((RemotePath::new(&object.key), object.entry()));
    }

    fn show_at(&mut self, path: String, object: &Object) {
        if fits(split(&path).1) {
            self.entries.push((RemotePath::new(&path), object.entry()));
        } else {
            self.skip(object.key.clone());
        }
    }

    /// Shows the directories on the way to `directory` (`a/b/` or empty) that were not shown; false where a name cannot be.
    fn enter(&mut self, directory: &str, modified_ns: Option<i64>) -> bool {
        let mut at = 0;
        for (slash, _) in directory.match_indices('/') {
            let upto = &directory[..=slash];
            if !fits(&directory[at..slash]) {
                return false;
            }
            at = slash + 1;
            if self.thread.directory.starts_with(upto) {
                continue;
            }
            let own = if upto == directory { modified_ns } else { None };
            self.entries.push((RemotePath::new(upto), directory_entry(own)));
            self.thread.directory = upto.to_owned();
        }
        true
    }

    fn skip(&mut self, key: String) {
        self.skipped.push(key);
    }
}

fn split(key: &str) -> (&str, &str) {
    match key.rfind('/') {
        Some(slash) => key.split_at(slash + 1),
        None => ("", key),
    }
}

fn fits(name: &str) -> bool {
    Name::new(name.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: u64) -> Object {
        Object { key: key.into(), size, etag: "e".into(), modified_ns: None }
    }

    /// Weaves `keys` in pages of `page` and writes each entry as `path` or `path/`.
    fn woven(keys: &[(&str, u64)], page: usize) -> (Vec<String>, Vec<String>) {
        let mut sorted = keys.to_vec();
        sorted.sort();
        let (mut thread, mut shown, mut skipped) = (Thread::default(), vec![], vec![]);
        for chunk in sorted.chunks(page) {
            let mut weaver = Weaver::new(serde_json::from_str(&serde_json::to_string(&thread).unwrap()).unwrap());
            chunk.iter().for_each(|(key, size)| weaver.object(object(key, *size)));
            thread = weaver.thread;
            shown.extend(weaver.entries);
            skipped.extend(weaver.skipped);
        }
        let mut weaver = Weaver::new(thread);
        weaver.finish();
        shown.extend(weaver.entries);
        let text = |(path, entry): (RemotePath, Entry)| {
            format!("{}{}", path.as_str(), if entry.kind == FileKind::Directory { "/" } else { "" })
        };
        (shown.into_iter().map(text).collect(), skipped)
    }

    #[test]
    fn directories_are_shown_once_however_the_pages_fall() {
        let keys =
            [("a/b/c", 1), ("a/b/d", 1), ("a/e", 1), ("f/", 0), ("f/g", 1), ("h", 1), ("a0", 1), ("a-", 1), ("a", 1)];
        let mut expected = ["a (object)", "a-", "a/", "a/b/", "a/b/c", "a/b/d", "a/e", "a0", "f/", "f/g", "h"];
        expected.sort();
        for page in 1..=keys.len() {
            let (mut shown, skipped) = woven(&keys, page);
            shown.sort();
            assert_eq!(shown, expected, "pages of {page}");
            assert!(skipped.is_empty());
        }
    }

    #[test]
    fn what_no_file_system_holds_is_left_out() {
        let long = "x".repeat(256);
        let keys = ["/a", "a//b", "b/./c", "b/../c", "..", "c/\0", &long];
        let (shown, skipped) = woven(&keys.map(|key| (key, 1)), 3);
        assert_eq!(shown, ["a/", "b/", "c/"]);
        assert_eq!(skipped.len(), keys.len());
    }

    #[test]
    fn markers_of_all_kinds_are_directories_and_bytes_under_one_are_kept() {
        let keys = [("a/", 0), ("b/", 5), ("c_$folder$", 0), ("d_$folder$", 5), (".fourwheel-probe-x", 1), ("", 0)];
        let (mut shown, _) = woven(&keys, 10);
        shown.sort();
        assert_eq!(shown, ["a/", "b/", "b/(directory object)", "c/", "d_$folder$"]);
    }

    #[test]
    fn what_cannot_be_stored_is_refused_before_it_is_sent() {
        let layout = Layout::new("p");
        let kind = |path: &str| layout.check(&RemotePath::new(path)).err().map(|error| error.kind);
        assert_eq!((kind("a/b"), kind(&"x".repeat(255))), (None, None));
        assert_eq!(
            (kind(&"x".repeat(256)), kind(&"x/".repeat(512))),
            (Some(Kind::NameTooLong), Some(Kind::NameTooLong))
        );
        assert_eq!((kind("a/.."), kind(".fourwheel-x")), (Some(Kind::NameRefused), Some(Kind::NameRefused)));
        assert_eq!(kind("a/.fourwheel-x"), None);
    }

    #[test]
    fn suffixes_lead_back_to_the_key() {
        let layout = Layout::new("/p/");
        let of = |path: &str| layout.suffixed(&RemotePath::new(path));
        assert_eq!(of("x/a (object)").as_deref(), Some("p/x/a"));
        assert_eq!(of("x/a/(directory object)").as_deref(), Some("p/x/a/"));
        assert_eq!((of("x/a"), of("x/ (object)")), (None, None));
        assert_eq!(layout.directory(&RemotePath::root()), "p/");
        assert_eq!(Layout::new("").directory(&RemotePath::root()), "");
    }
}
