//! The layer that keeps an account's requests within what the provider bears, through one [`Gate`].

use super::Gate;
use super::gate::{Lane, Permit};
use super::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session,
};
use crate::error::Result;
use crate::model::{Entry, Meta, Quota, Version};
use async_trait::async_trait;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::Arc;

/// A remote whose requests go through a gate. One gate an account: providers throttle accounts, not connections.
pub struct Limit {
    inner: Arc<dyn Remote>,
    gate: Arc<Gate>,
}

impl Limit {
    /// Sends what is for `inner` through `gate`.
    pub fn new(inner: Arc<dyn Remote>, gate: Arc<Gate>) -> Self {
        Limit { inner, gate }
    }

    async fn guard<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.enter(call, work).await.map(|(value, _)| value)
    }

    /// As `guard`; the slot stays taken as long as the permit lives.
    async fn enter<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<(T, Permit)> {
        let lane = if call.moves_content() { Lane::Content } else { Lane::Metadata };
        let permit = self.gate.enter(lane).await?;
        let result = work.await;
        self.gate.learn(&permit, result.as_ref().err());
        result.map(|value| (value, permit))
    }
}

#[async_trait]
impl Remote for Limit {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.guard(Call::Sweep, self.inner.sweep(page)).await
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        self.guard(Call::List, self.inner.list(directory, page)).await
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        // Waits on the server's side for most of its life, so it takes no slot.
        self.gate.pause().await?;
        self.inner.changes(cursor, wait_ms).await
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.guard(Call::Stat, self.inner.stat(place)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let (stream, permit) = self.enter(Call::Read, self.inner.read(place, version, range)).await?;
        Ok(Box::pin(stream.map(move |piece| {
            // The slot is taken until the stream is dropped.
            let _held = &permit;
            piece
        })))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        self.guard(Call::ReadLink, self.inner.read_link(place)).await
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        self.guard(Call::Put, self.inner.put(place, request)).await
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        self.guard(Call::PutLink, self.inner.put_link(place, target, meta)).await
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        self.guard(Call::Begin, self.inner.begin(place, size, meta, condition)).await
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        self.guard(Call::Part, self.inner.part(session, number, body, range)).await
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        self.guard(Call::PartCopy, self.inner.part_copy(session, number, from, version, range)).await
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.guard(Call::Parts, self.inner.parts(session)).await
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Finish, self.inner.finish(session, parts, meta, condition)).await
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.guard(Call::Abort, self.inner.abort(session)).await
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.guard(Call::Mkdir, self.inner.mkdir(place, meta)).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Rename, self.inner.rename(from, to, source, condition)).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.guard(Call::Remove, self.inner.remove(place, directory, condition)).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Copy, self.inner.copy(from, version, to, condition)).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.guard(Call::SetMeta, self.inner.set_meta(place, directory, version, meta)).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.guard(Call::Quota, self.inner.quota()).await
    }
}
