//! What the tests share: sources, connections, short forms of calls.

use crate::servers::{PASSWORD, Server, USER};
use bytes::Bytes;
use fourwheel::error::{Error, Kind, Result};
use fourwheel::model::{Entry, Meta, RemotePath, Version};
use fourwheel::remote::webdav::{WebDav, WebDavOptions};
use fourwheel::remote::{Body, Condition, Place, PutRequest, Remote, Source};
use fourwheel::sys::{RealChance, RealClock};
use futures_util::TryStreamExt;
use std::ops::Range;
use std::sync::Arc;

/// A content in memory; fails from a byte on, where one is named.
pub struct Memory {
    pub bytes: Vec<u8>,
    pub fails_at: Option<u64>,
}

impl Source for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if self.fails_at.is_some_and(|at| range.end > at) {
            return Err(Error::new(Kind::Changed, "the file below changed"));
        }
        Ok(Bytes::copy_from_slice(&self.bytes[range.start as usize..range.end as usize]))
    }
}

pub fn body(bytes: impl Into<Vec<u8>>) -> Body {
    Arc::new(Memory { bytes: bytes.into(), fails_at: None })
}

/// Bytes that differ everywhere, so that a shift shows.
pub fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ seed ^ at as u8).collect()
}

pub fn options(server: &Server) -> WebDavOptions {
    WebDavOptions { url: server.url.clone(), user: USER.into(), password: PASSWORD.into(), ..WebDavOptions::default() }
}

pub async fn connect_with(options: WebDavOptions) -> Result<Arc<WebDav>> {
    WebDav::connect(options, Arc::new(RealClock), Arc::new(RealChance::new())).await
}

pub async fn connect(server: &Server) -> Arc<WebDav> {
    connect_with(options(server)).await.unwrap()
}

pub fn at(path: &str) -> Place {
    Place::at(RemotePath::new(path))
}

pub async fn put(dav: &WebDav, path: &str, bytes: impl Into<Vec<u8>>, condition: Condition) -> Result<Entry> {
    dav.put(&at(path), PutRequest { body: body(bytes), meta: Meta::default(), condition }).await
}

pub async fn read(dav: &WebDav, path: &str, version: &Version, range: Range<u64>) -> Result<Vec<u8>> {
    let chunks: Vec<Bytes> = dav.read(&at(path), version, range).await?.try_collect().await?;
    Ok(chunks.concat())
}

pub async fn names(dav: &WebDav, path: &str) -> Vec<String> {
    let listing = dav.list(&at(path), None).await.unwrap();
    let mut names: Vec<String> = listing.entries.iter().map(|(path, _)| path.name().to_owned()).collect();
    names.sort();
    names
}

#[track_caller]
pub fn version(entry: &Entry) -> Version {
    entry.version.clone().unwrap()
}

#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind
}

/// All names below a directory on disk, but for what servers keep there for themselves.
pub fn on_disk(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != ".DAV");
    names.sort();
    names
}
