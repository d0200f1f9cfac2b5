//! Keeps what is pinned on this machine: fetched, fetched again when the remote changes it, and spared from eviction.

use crate::cache::Cache;
use crate::error::Result;
use crate::events::Wants;
use crate::fetch::{Fetcher, Sink, Target};
use crate::model::{FileKind, Ino, Version};
use crate::remote::Place;
use crate::store::{Content, Rows, Store, Which};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often pinned files are looked over.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The pins of one drive.
pub struct Pins {
    store: Arc<Store>,
    cache: Arc<Cache>,
    fetcher: Arc<Fetcher>,
    wants: Arc<Wants>,
    changed: Notify,
}

impl Pins {
    /// Starts to keep them on the current runtime.
    pub fn start(store: Arc<Store>, cache: Arc<Cache>, fetcher: Arc<Fetcher>, wants: Arc<Wants>) -> Result<Arc<Pins>> {
        let pins = Arc::new(Pins { store, cache, fetcher, wants, changed: Notify::new() });
        pins.spare()?;
        tokio::spawn(pins.clone().keep());
        Ok(pins)
    }

    /// Tells the cache what must not be evicted; a new pin is fetched at once.
    pub fn changed(&self) -> Result<()> {
        self.spare()?;
        self.changed.notify_one();
        Ok(())
    }

    /// Bytes of these files that are not on this machine.
    pub fn missing_bytes(&self, files: &[Ino]) -> Result<u64> {
        let mut bytes = 0;
        for ino in files {
            if let Some(target) = self.target(*ino)? {
                bytes += missing(&target);
            }
        }
        Ok(bytes)
    }

    /// The inodes that are pinned, and all below pinned directories.
    fn pinned(&self) -> Result<HashSet<Ino>> {
        self.store.read(|rows| at_and_below(rows, rows.pins()?))
    }

    fn spare(&self) -> Result<HashSet<Ino>> {
        let pinned = self.pinned()?;
        self.cache.set_pinned(pinned.clone())?;
        Ok(pinned)
    }

    async fn keep(self: Arc<Self>) {
        // What was found whole, or does not fit: it is looked at again when it is another version.
        let mut settled: HashMap<Ino, Version> = HashMap::new();
        loop {
            let looked = match self.spare() {
                Ok(pinned) => {
                    settled.retain(|ino, _| pinned.contains(ino));
                    self.fetch(&pinned, &mut settled).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                tracing::warn!("keep what is pinned: {error}");
            }
            // No call of ours starts or ends with it.
            let _ = tokio::time::timeout(LOOK_EVERY, self.changed.notified()).await;
        }
    }

    async fn fetch(&self, pinned: &HashSet<Ino>, settled: &mut HashMap<Ino, Version>) -> Result<()> {
        for ino in pinned {
            if !self.wants.is_online() {
                return Ok(());
            }
            let Some(version) = self.version(*ino)? else { continue };
            if settled.get(ino) == Some(&version) {
                continue;
            }
            let Some(target) = self.target(*ino)? else { continue };
            if missing(&target) > 0 {
                let fetched = self.fetcher.bring(&target, 0..target.size).await;
                let path = self.store.read(|rows| rows.path(*ino))?.unwrap_or_default();
                let path = String::from_utf8_lossy(&path);
                if let Err(error) = fetched {
                    tracing::warn!("{path} is pinned and not yet on this machine: {error}");
                    continue;
                }
                if missing(&target) > 0 {
                    tracing::warn!("{path} is pinned and does not fit into the cache as a whole (cache.max_bytes)");
                }
            }
            settled.insert(*ino, target.version);
        }
        Ok(())
    }

    /// Of a clean regular file.
    fn version(&self, ino: Ino) -> Result<Option<Version>> {
        let node = self.store.read(|rows| rows.find_node(ino))?;
        Ok(node.filter(|node| node.kind == FileKind::File).and_then(|node| match node.content {
            Content::Version(version) => Some(version),
            _ => None,
        }))
    }

    /// A clean file, as it is fetched; `None` for what is dirty or has no content.
    fn target(&self, ino: Ino) -> Result<Option<Target>> {
        let found = self
            .store
            .read(|rows| Ok((rows.node(ino)?, rows.remote_path(0, ino)?, rows.view(ino, 0, Which::Remote)?)))?;
        let (node, Some(path), view) = found else { return Ok(None) };
        let Content::Version(version) = node.content else { return Ok(None) };
        let file = self.cache.file(ino, &version, node.size)?;
        let place = Place { path, id: view.and_then(|v| v.id) };
        Ok(Some(Target { ino, version, size: node.size, place, sink: Sink::Cache(file) }))
    }
}

/// These inodes, and all below those that are directories.
pub(super) fn at_and_below(rows: &Rows<'_>, mut next: Vec<Ino>) -> Result<HashSet<Ino>> {
    let mut found = HashSet::new();
    while let Some(ino) = next.pop() {
        if found.insert(ino) {
            let mut after = 0;
            loop {
                let entries = rows.entries(ino, after, 1000)?;
                let Some(last) = entries.last() else { break };
                after = last.cookie;
                next.extend(entries.iter().map(|e| e.ino));
            }
        }
    }
    Ok(found)
}

fn missing(target: &Target) -> u64 {
    match &target.sink {
        Sink::Cache(file) => file.missing(0..target.size).iter().map(|r| r.end - r.start).sum(),
        Sink::Journal(_) => 0,
    }
}
