//! The layer that counts: each request that reaches the provider, its end, and the bytes that moved.

use super::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Meter, Part, Place, PutRequest, Remote, Session,
    Source,
};
use crate::error::Result;
use crate::model::{Entry, Meta, Quota, Version};
use crate::sys::Clock;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::Arc;

/// A remote whose traffic a [`Meter`] counts. Belongs inside of the retry, so that each attempt is counted, and outside of the
/// deadlines, so that those that pass are seen.
pub struct Measure {
    inner: Arc<dyn Remote>,
    meter: Arc<Meter>,
    clock: Arc<dyn Clock>,
}

impl Measure {
    /// Counts what goes through `inner` in `meter`.
    pub fn new(inner: Arc<dyn Remote>, meter: Arc<Meter>, clock: Arc<dyn Clock>) -> Self {
        Measure { inner, meter, clock }
    }

    async fn count<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.meter.began(call);
        let began = self.clock.monotonic();
        let result = work.await;
        let busy_ms = self.clock.monotonic().saturating_sub(began).as_millis() as u64;
        self.meter.ended(call, busy_ms, result.as_ref().err());
        result
    }

    fn counted(&self, body: Body) -> Body {
        Arc::new(Counted { body, meter: self.meter.clone() })
    }
}

/// A body whose reads are bytes sent.
struct Counted {
    body: Body,
    meter: Arc<Meter>,
}

impl Source for Counted {
    fn size(&self) -> u64 {
        self.body.size()
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.body.read(range)?;
        self.meter.sent(bytes.len() as u64);
        Ok(bytes)
    }
}

#[async_trait]
impl Remote for Measure {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.count(Call::Sweep, self.inner.sweep(page)).await
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        self.count(Call::List, self.inner.list(directory, page)).await
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        self.count(Call::Changes, self.inner.changes(cursor, wait_ms)).await
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.count(Call::Stat, self.inner.stat(place)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let stream = self.count(Call::Read, self.inner.read(place, version, range)).await?;
        let meter = self.meter.clone();
        Ok(Box::pin(stream.inspect(move |piece| match piece {
            Ok(bytes) => meter.received(bytes.len() as u64),
            Err(error) => meter.failed(Call::Read, error),
        })))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        self.count(Call::ReadLink, self.inner.read_link(place)).await
    }

    async fn put(&self, place: &Place, mut request: PutRequest) -> Result<Entry> {
        request.body = self.counted(request.body);
        self.count(Call::Put, self.inner.put(place, request)).await
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        self.count(Call::PutLink, self.inner.put_link(place, target, meta)).await
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        self.count(Call::Begin, self.inner.begin(place, size, meta, condition)).await
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        let body = self.counted(body);
        self.count(Call::Part, self.inner.part(session, number, body, range)).await
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        self.count(Call::PartCopy, self.inner.part_copy(session, number, from, version, range)).await
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.count(Call::Parts, self.inner.parts(session)).await
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        self.count(Call::Finish, self.inner.finish(session, parts, meta, condition)).await
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.count(Call::Abort, self.inner.abort(session)).await
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.count(Call::Mkdir, self.inner.mkdir(place, meta)).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.count(Call::Rename, self.inner.rename(from, to, source, condition)).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.count(Call::Remove, self.inner.remove(place, directory, condition)).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.count(Call::Copy, self.inner.copy(from, version, to, condition)).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.count(Call::SetMeta, self.inner.set_meta(place, directory, version, meta)).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.count(Call::Quota, self.inner.quota()).await
    }
}
