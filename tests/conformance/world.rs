//! One account under a law, with the verbs that laws are written in.

use super::Opened;
use bytes::Bytes;
use fourwheel::error::{Error, Kind, Result};
use fourwheel::model::{Entry, FileKind, Meta, RemotePath, Version};
use fourwheel::remote::{Body, Capabilities, Condition, Listing, Place, PutRequest, Remote, Source, body, collect};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// One account under one law.
pub struct World {
    pub remote: Arc<dyn Remote>,
    row: &'static str,
    law: String,
    _keep: Option<Box<dyn Any + Send>>,
}

/// Where `name` is, known by its path alone.
pub fn at(name: &str) -> Place {
    Place::at(RemotePath::new(name))
}

/// `size` bytes that differ from their neighbours, and from those of another `seed`.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A body that ends with an error after `good` of its `size` bytes.
pub fn failing_body(size: u64, good: u64) -> Body {
    struct Failing(u64, u64);
    impl Source for Failing {
        fn size(&self) -> u64 {
            self.0
        }
        fn read(&self, range: Range<u64>) -> Result<Bytes> {
            if range.end > self.1 {
                return Err(Error::new(Kind::Changed, "the source changed"));
            }
            Ok(vec![b'x'; (range.end - range.start) as usize].into())
        }
    }
    Arc::new(Failing(size, good))
}

/// The kind of an error, with the message where it is another.
#[track_caller]
pub fn expect_kind<T: std::fmt::Debug>(result: Result<T>, kinds: &[Kind]) {
    match result {
        Ok(value) => panic!("expected {kinds:?}, got {value:?}"),
        Err(error) => assert!(kinds.contains(&error.kind), "expected {kinds:?}, got {:?}: {error}", error.kind),
    }
}

impl World {
    pub fn new(row: &'static str, law: &str, opened: Opened) -> Self {
        World { remote: opened.remote, row, law: law.to_owned(), _keep: opened.keep }
    }

    pub fn able(&self) -> &Capabilities {
        self.remote.capabilities()
    }

    /// Says loudly that a law, or a part of it, does not apply here.
    pub fn skip(&self, why: &str) {
        eprintln!("SKIPPED {} over {}: {why}", self.law, self.row);
    }

    pub async fn write(&self, name: &str, content: &[u8], condition: Condition) -> Result<Entry> {
        self.write_body(name, body(content.to_vec()), Meta::default(), condition).await
    }

    pub async fn write_body(&self, name: &str, body: Body, meta: Meta, condition: Condition) -> Result<Entry> {
        self.remote.put(&at(name), PutRequest { body, meta, condition }).await
    }

    /// Puts whatever is there.
    pub async fn put(&self, name: &str, content: &[u8]) -> Entry {
        let entry = self.write(name, content, Condition::Any).await.unwrap();
        assert_eq!((entry.kind, entry.size), (FileKind::File, content.len() as u64), "{name}");
        entry
    }

    pub async fn mkdir(&self, name: &str) -> Entry {
        self.remote.mkdir(&at(name), &Meta::default()).await.unwrap()
    }

    pub async fn stat(&self, name: &str) -> Option<Entry> {
        self.remote.stat(&at(name)).await.unwrap()
    }

    pub async fn version(&self, name: &str) -> Version {
        self.stat(name).await.expect(name).version.expect("a file has a version")
    }

    /// Reads a part of what `version` is.
    pub async fn read(&self, name: &str, version: &Version, range: Range<u64>) -> Result<Bytes> {
        collect(self.remote.read(&at(name), version, range).await?).await
    }

    /// The whole content that is there now.
    pub async fn content(&self, name: &str) -> Bytes {
        let entry = self.stat(name).await.expect(name);
        self.read(name, &entry.version.expect("a file has a version"), 0..entry.size).await.unwrap()
    }

    /// Every child of a directory.
    pub async fn list(&self, name: &str) -> Result<BTreeMap<RemotePath, Entry>> {
        let mut all = BTreeMap::new();
        let mut page = None;
        loop {
            let Listing { entries, next, .. } = self.remote.list(&at(name), page).await?;
            for (path, entry) in entries {
                let twice = all.insert(path.clone(), entry).is_some();
                assert!(!twice, "{path} is listed twice");
            }
            match next {
                None => return Ok(all),
                next => page = next,
            }
        }
    }

    /// The names of the children of a directory.
    pub async fn names(&self, name: &str) -> Vec<String> {
        self.list(name).await.unwrap().keys().map(|path| path.name().to_owned()).collect()
    }

    /// The whole tree, directory by directory.
    pub async fn tree(&self) -> BTreeMap<RemotePath, Entry> {
        let (mut all, mut directories) = (BTreeMap::new(), vec![RemotePath::root()]);
        while let Some(directory) = directories.pop() {
            for (path, entry) in self.list(directory.as_str()).await.unwrap() {
                if entry.kind == FileKind::Directory {
                    directories.push(path.clone());
                }
                all.insert(path, entry);
            }
        }
        all
    }

    pub async fn rename(&self, from: &str, to: &str, condition: Condition) -> Result<Entry> {
        self.remote.rename(&at(from), &at(to), None, &condition).await
    }
}
