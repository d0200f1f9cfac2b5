//! Verbs that the tests are written in.

use crate::servers::{ALL, Kind, Server};
use fourwheel::error::Result;
use fourwheel::model::{Entry, FileKind, Meta, RemotePath, Version};
use fourwheel::remote::s3::S3Remote;
use fourwheel::remote::{Body, Condition, Listing, Place, PutRequest, Remote, body, collect};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Runs `test` over a fresh bucket of each of `kinds` that is installed.
pub fn over<F, Fut>(kinds: &[Kind], test: F)
where
    F: Fn(Arc<Server>, Arc<S3Remote>) -> Fut,
    Fut: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for kind in ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let Some(server) = Server::shared(kind) else { continue };
            eprintln!("-- over {kind:?}");
            let remote = server.remote().await.unwrap();
            test(server.clone(), remote).await;
            drop(server);
        }
    });
}

pub fn at(path: &str) -> Place {
    Place::at(RemotePath::new(path))
}

/// `size` bytes that differ from those of another `seed`.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        })
        .collect()
}

pub async fn put(remote: &dyn Remote, path: &str, content: &[u8], condition: Condition) -> Result<Entry> {
    put_with(remote, path, content, Meta::default(), condition).await
}

pub async fn put_with(
    remote: &dyn Remote,
    path: &str,
    content: &[u8],
    meta: Meta,
    condition: Condition,
) -> Result<Entry> {
    let body: Body = body(content.to_vec());
    remote.put(&at(path), PutRequest { body, meta, condition }).await
}

pub async fn read(remote: &dyn Remote, path: &str, version: &Version, range: Range<u64>) -> Result<Vec<u8>> {
    Ok(collect(remote.read(&at(path), version, range).await?).await?.to_vec())
}

/// The content that is there now.
pub async fn content(remote: &dyn Remote, path: &str) -> Vec<u8> {
    let entry = remote.stat(&at(path)).await.unwrap().unwrap_or_else(|| panic!("{path} is absent"));
    read(remote, path, &entry.version.unwrap(), 0..entry.size).await.unwrap()
}

/// A whole sweep as `path` or `path/`; each entry once.
pub async fn sweep(remote: &dyn Remote) -> BTreeMap<String, Entry> {
    let mut all = BTreeMap::new();
    let mut page = None;
    loop {
        let Listing { entries, next, .. } = remote.sweep(page).await.unwrap();
        note(&mut all, entries);
        match next {
            None => return all,
            next => page = next,
        }
    }
}

/// A whole listing of one directory.
pub async fn list(remote: &dyn Remote, path: &str) -> Result<BTreeMap<String, Entry>> {
    let mut all = BTreeMap::new();
    let mut page = None;
    loop {
        let Listing { entries, next, .. } = remote.list(&at(path), page).await?;
        note(&mut all, entries);
        match next {
            None => return Ok(all),
            next => page = next,
        }
    }
}

fn note(all: &mut BTreeMap<String, Entry>, entries: Vec<(RemotePath, Entry)>) {
    for (path, entry) in entries {
        let slash = if entry.kind == FileKind::Directory { "/" } else { "" };
        let text = format!("{}{slash}", path.as_str());
        assert!(all.insert(text.clone(), entry).is_none(), "{text} twice");
    }
}

/// The keys of a listing.
pub fn names(all: &BTreeMap<String, Entry>) -> Vec<&str> {
    all.keys().map(String::as_str).collect()
}
