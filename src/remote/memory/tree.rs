//! The tree itself: paths, ids, versions, conditions. Plain data; every call is one step.

use super::upload::Uploads;
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, Hash, HashKind, Meta, RemotePath, Version};
use crate::remote::feed::Feed;
use crate::remote::{Capabilities, ChangeFeed, Condition, Place};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Everything that one account holds.
pub(super) struct Tree {
    pub capabilities: Capabilities,
    pub hashes: bool,
    pub quota_bytes: Option<u64>,
    pub feed: Feed,
    pub uploads: Uploads,
    nodes: BTreeMap<Key, Node>,
    keys: BTreeMap<u64, Key>,
    next: u64,
}

/// A path as the account compares it: lower case where case does not count. The root is empty.
type Key = String;

/// One file, link or directory.
#[derive(Clone)]
pub(super) struct Node {
    path: RemotePath,
    id: u64,
    pub kind: FileKind,
    /// A link's target, a file's bytes.
    pub content: Bytes,
    version: u64,
    hash: Option<String>,
    meta: Meta,
    server_mtime_ns: i64,
}

/// What a write puts at a place.
pub(super) struct Fresh {
    pub kind: FileKind,
    pub content: Bytes,
    pub meta: Meta,
    pub now_ns: i64,
}

impl Tree {
    /// An account with an empty root.
    pub fn new(capabilities: Capabilities) -> Self {
        let mut tree = Tree {
            capabilities,
            hashes: true,
            quota_bytes: None,
            feed: Feed::new(0),
            uploads: Uploads::default(),
            nodes: BTreeMap::new(),
            keys: BTreeMap::new(),
            next: 1,
        };
        let root = Fresh { kind: FileKind::Directory, content: Bytes::new(), meta: Meta::default(), now_ns: 0 };
        tree.insert(RemotePath::root(), root);
        tree
    }

    /// What is at `place`: by id where ids are stable and one is given, else by path.
    pub fn find(&self, place: &Place) -> Option<&Node> {
        self.nodes.get(&self.key_of(place)?)
    }

    /// As [`Tree::find`]; absence is `NotFound`.
    pub fn get(&self, place: &Place) -> Result<&Node> {
        self.find(place).ok_or_else(|| Error::new(Kind::NotFound, format!("{}: not there", place.path)))
    }

    /// The file at `place`, if it has this version; `Changed` if it has another.
    pub fn get_version(&self, place: &Place, version: &Version) -> Result<&Node> {
        let node = self.get(place)?;
        if node.kind == FileKind::Directory {
            return Err(Error::new(Kind::IsDirectory, format!("{}: is a directory", place.path)));
        }
        if tag(node.version) != *version {
            return Err(Error::new(Kind::Changed, format!("{}: version {version} is gone", place.path)));
        }
        Ok(node)
    }

    /// What a call tells of `node`.
    pub fn entry(&self, node: &Node, listed: bool) -> Entry {
        let directory = node.kind == FileKind::Directory;
        let has_version = !directory || self.capabilities.changes == ChangeFeed::EtagTree;
        Entry {
            kind: node.kind,
            id: self.capabilities.stable_ids.then(|| format!("i{}", node.id)),
            size: if directory { 0 } else { node.content.len() as u64 },
            version: has_version.then(|| tag(node.version)),
            hash: node.hash.clone().map(|hex| Hash { kind: HashKind::Sha256, hex }),
            server_mtime_ns: (!directory).then_some(node.server_mtime_ns),
            meta: (!listed || self.capabilities.meta.in_listing).then(|| node.meta.clone()),
        }
    }

    /// Nodes below `directory` after the key `after`, in order of keys; with their keys.
    pub fn below<'a>(&'a self, directory: &Node, after: Option<&str>) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let prefix = match self.key(&directory.path) {
            root if root.is_empty() => root,
            key => key + "/",
        };
        let from = match after {
            Some(after) if after > prefix.as_str() => std::ops::Bound::Excluded(after.to_owned()),
            _ => std::ops::Bound::Excluded(prefix.clone()),
        };
        let range = self.nodes.range((from, std::ops::Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(key, node)| (key.as_str(), node))
    }

    /// Whether `condition` holds at `place`.
    pub fn check(&self, place: &Place, condition: &Condition) -> Result<()> {
        let found = self.find(place);
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => found.is_none(),
            Condition::Is(version) => found.is_some_and(|node| tag(node.version) == *version),
        };
        let what = || match found {
            None => "nothing is there".to_owned(),
            Some(node) => format!("version {} is there", node.version),
        };
        if holds { Ok(()) } else { Err(Error::new(Kind::Precondition, format!("{}: {}", place.path, what()))) }
    }

    /// Makes what is at `place` into `fresh`. The caller has checked the condition.
    pub fn write(&mut self, place: &Place, fresh: Fresh) -> Result<Entry> {
        let found = self.find(place).map(|node| (node.path.clone(), node.kind, node.content.len() as u64));
        match &found {
            Some((_, FileKind::Directory, _)) if fresh.kind != FileKind::Directory => {
                return Err(Error::new(Kind::IsDirectory, format!("{}: is a directory", place.path)));
            }
            Some(_) if fresh.kind != FileKind::File => {
                return Err(Error::new(Kind::Exists, format!("{}: exists", place.path)));
            }
            None if self.capabilities.stable_ids && place.id.is_some() => {
                return Err(Error::new(Kind::NotFound, format!("{}: the file of this id is gone", place.path)));
            }
            _ => {}
        }
        let (grown, old) = (fresh.content.len() as u64, found.as_ref().map_or(0, |found| found.2));
        if self.quota_bytes.is_some_and(|quota| self.used_bytes() - old + grown > quota) {
            return Err(Error::new(Kind::QuotaFull, format!("{}: the account is full", place.path)));
        }
        let path = match found {
            Some((path, ..)) => path,
            None => self.prepare(&place.path, fresh.now_ns)?,
        };
        self.insert(path.clone(), fresh);
        self.touch(&path, false);
        Ok(self.entry(&self.nodes[&self.key(&path)], false))
    }

    /// Moves `from` and all below it. The caller has checked the conditions.
    pub fn rename(&mut self, from: &Place, to: &Place, now_ns: i64) -> Result<Entry> {
        let node = self.get(from)?;
        let (old, directory) = (node.path.clone(), node.kind == FileKind::Directory);
        let (old_key, new_key) = (self.key(&old), self.key(&to.path));
        if old.is_root() || (directory && new_key.starts_with(&format!("{old_key}/"))) {
            return Err(Error::new(Kind::Invalid, format!("{}: cannot move into itself", from.path)));
        }
        let target = self.find(to).filter(|_| old_key != new_key).map(|node| node.kind);
        if target.is_some() && (directory || !self.capabilities.rename_replaces) {
            return Err(Error::new(Kind::Exists, format!("{}: exists", to.path)));
        }
        if target == Some(FileKind::Directory) {
            return Err(Error::new(Kind::IsDirectory, format!("{}: is a directory", to.path)));
        }
        let new = self.prepare(&to.path, now_ns)?;
        if target.is_some() {
            self.take(&new_key);
        }
        let inside = format!("{old_key}/");
        let moved = |key: &Key| *key == old_key || key.starts_with(&inside);
        let keys: Vec<Key> = self.nodes.range(old_key.clone()..).map(|(key, _)| key.clone()).filter(moved).collect();
        for mut node in keys.iter().filter_map(|key| self.take(key)).collect::<Vec<_>>() {
            let tail = node.path.as_str()[old.as_str().len()..].to_owned();
            node.path = RemotePath::new(&format!("{}{tail}", new.as_str()));
            self.keep(node);
        }
        self.touch(&old, directory);
        self.touch(&new, directory);
        self.prune(&old);
        Ok(self.entry(&self.nodes[&new_key], false))
    }

    /// Takes a file, or an empty directory, away. The caller has checked the condition.
    pub fn remove(&mut self, place: &Place, directory: bool) -> Result<()> {
        let node = self.get(place)?;
        let refuse = match (node.kind == FileKind::Directory, directory) {
            (true, false) => Some(Kind::IsDirectory),
            (false, true) => Some(Kind::NotDirectory),
            (true, true) if node.path.is_root() => Some(Kind::Invalid),
            (true, true) if self.below(node, None).next().is_some() => Some(Kind::NotEmpty),
            _ => None,
        };
        if let Some(kind) = refuse {
            return Err(Error::new(kind, format!("{}: cannot be removed", place.path)));
        }
        let path = node.path.clone();
        self.take(&self.key(&path));
        self.touch(&path, false);
        self.prune(&path);
        Ok(())
    }

    /// Changes the attributes that are given; the others stay.
    pub fn set_meta(&mut self, place: &Place, meta: &Meta) -> Result<Entry> {
        let key = self.key_of(place).unwrap_or_default();
        let node = self.get(place)?;
        let kept = self.kept(meta, node.kind, Some(&node.meta))?;
        let path = node.path.clone();
        if let Some(node) = self.nodes.get_mut(&key) {
            node.meta = kept;
        }
        self.feed.touch(path.as_str(), false);
        Ok(self.entry(self.get(place)?, false))
    }

    /// Bytes of every file.
    pub fn used_bytes(&self) -> u64 {
        self.nodes.values().map(|node| node.content.len() as u64).sum()
    }

    /// Every node but the root, in order of keys.
    pub fn all(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| !node.path.is_root())
    }

    fn key(&self, path: &RemotePath) -> Key {
        if self.capabilities.case_sensitive { path.as_str().to_owned() } else { path.as_str().to_lowercase() }
    }

    fn key_of(&self, place: &Place) -> Option<Key> {
        match &place.id {
            Some(id) if self.capabilities.stable_ids => {
                self.keys.get(&id.strip_prefix('i')?.parse::<u64>().ok()?).cloned()
            }
            _ => Some(self.key(&place.path)),
        }
    }

    /// Checks the name of something new and that its parent is there; returns the path with the parent as it is spelled.
    fn prepare(&mut self, path: &RemotePath, now_ns: i64) -> Result<RemotePath> {
        check_name(path, &self.capabilities)?;
        let Some((parent, name)) = path.split() else {
            return Err(Error::new(Kind::Exists, "the root is always there"));
        };
        match self.nodes.get(&self.key(&parent)) {
            Some(node) if node.kind == FileKind::Directory => Ok(node.path.join(name)),
            Some(_) => Err(Error::new(Kind::NotDirectory, format!("{parent}: is not a directory"))),
            None if self.capabilities.directories => {
                Err(Error::new(Kind::NotFound, format!("{parent}: no such directory")))
            }
            None => {
                let made = self.prepare(&parent, now_ns)?;
                let (content, meta) = (Bytes::new(), Meta::default());
                self.insert(made.clone(), Fresh { kind: FileKind::Directory, content, meta, now_ns });
                self.touch(&made, false);
                Ok(made.join(name))
            }
        }
    }

    fn insert(&mut self, path: RemotePath, fresh: Fresh) {
        let before = self.nodes.get(&self.key(&path));
        // Content written without its attributes keeps what was there, but for the time.
        let told = fresh.kind == FileKind::Directory || self.capabilities.meta.with_upload;
        let given = if told { fresh.meta } else { Meta::default() };
        let mut meta = self.kept(&given, fresh.kind, before.map(|node| &node.meta)).unwrap_or_default();
        if given.mtime_ns.is_none() || meta.mtime_ns.is_none() {
            meta.mtime_ns = (self.capabilities.meta.mtime_step_ns > 0).then_some(fresh.now_ns);
        }
        let id = before.map(|node| node.id);
        let hash = (self.hashes && fresh.kind == FileKind::File).then(|| hex(&fresh.content));
        let version = self.number();
        let id = id.unwrap_or_else(|| self.number());
        let server_mtime_ns = fresh.now_ns;
        self.keep(Node { path, id, kind: fresh.kind, content: fresh.content, version, hash, meta, server_mtime_ns });
    }

    fn keep(&mut self, node: Node) {
        let key = self.key(&node.path);
        self.keys.insert(node.id, key.clone());
        self.nodes.insert(key, node);
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let node = self.nodes.remove(key)?;
        self.keys.remove(&node.id);
        Some(node)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Logs a change and gives every directory above it a new version.
    fn touch(&mut self, path: &RemotePath, deep: bool) {
        self.feed.touch(path.as_str(), deep);
        let version = self.number();
        let mut at = path.clone();
        while let Some((parent, _)) = at.split() {
            let key = self.key(&parent);
            if let Some(node) = self.nodes.get_mut(&key) {
                node.version = version;
            }
            at = parent;
        }
    }

    /// Where directories do not exist by themselves: those that lost their last child go.
    fn prune(&mut self, path: &RemotePath) {
        let mut at = path.split().map(|(parent, _)| parent).filter(|_| !self.capabilities.directories);
        while let Some(directory) = at.filter(|directory| !directory.is_root()) {
            let key = self.key(&directory);
            if self.nodes.get(&key).is_none_or(|node| self.below(node, None).next().is_some()) {
                return;
            }
            self.take(&key);
            self.touch(&directory, false);
            at = directory.split().map(|(parent, _)| parent);
        }
    }

    /// What this account keeps of `meta`, put over what was `before`.
    pub fn kept(&self, meta: &Meta, kind: FileKind, before: Option<&Meta>) -> Result<Meta> {
        let support = self.capabilities.meta;
        let before = before.cloned().unwrap_or_default();
        if kind == FileKind::Directory && !support.directories {
            return Ok(before);
        }
        let xattrs = meta.xattrs.clone().or(before.xattrs).filter(|_| support.xattr_bytes_max > 0);
        let bytes: usize = xattrs.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > support.xattr_bytes_max {
            return Err(Error::new(Kind::TooLarge, format!("{bytes} bytes of extended attributes")));
        }
        Ok(Meta {
            mtime_ns: meta
                .mtime_ns
                .or(before.mtime_ns)
                .filter(|_| support.mtime_step_ns > 0)
                .map(|ns| ns - ns.rem_euclid(support.mtime_step_ns.max(1))),
            mode: meta.mode.or(before.mode).filter(|_| support.mode),
            xattrs: xattrs.or_else(|| (support.xattr_bytes_max > 0).then(BTreeMap::new)),
        })
    }
}

impl Node {
    /// Where it is.
    pub fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The tag of its content.
    pub fn version(&self) -> Version {
        tag(self.version)
    }
}

fn tag(version: u64) -> Version {
    Version::new(format!("v{version}"))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_name(path: &RemotePath, capabilities: &Capabilities) -> Result<()> {
    let (name, rules) = (path.name(), &capabilities.names);
    if name.len() > rules.name_bytes_max || path.as_str().len() > rules.path_bytes_max {
        return Err(Error::new(Kind::NameTooLong, format!("{path}: name too long")));
    }
    let bad = matches!(name, "." | "..")
        || name.contains('\0')
        || name.contains(|c| rules.forbidden.contains(c))
        || (rules.no_control && name.contains(|c: char| c.is_ascii_control()))
        || (rules.no_trailing_dot_space && name.ends_with(['.', ' ']));
    if bad { Err(Error::new(Kind::NameRefused, format!("{path}: name refused"))) } else { Ok(()) }
}
