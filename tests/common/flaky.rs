//! A remote whose calls fail as a plan says: before they have an effect, after it, never ending, or in the middle.

use async_trait::async_trait;
use fourwheel::error::{Error, Result};
use fourwheel::model::{Entry, Meta, Quota, Version};
use fourwheel::remote::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session,
};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Fault {
    None,
    /// It fails and nothing was done.
    Before(Error),
    /// It is done, and the answer is lost. An error of its own is told as it is.
    After(Error),
    /// It is done, and the answer comes so much later.
    #[allow(dead_code, reason = "not every test that includes this waits")]
    Late(Duration),
    /// It never ends, and nothing was done.
    #[allow(dead_code, reason = "not every test that includes this waits")]
    Hang,
    /// A download that ends with an error after so many pieces.
    Break(usize, Error),
}

/// Says what happens to the `n`th call (from 0) of a kind.
pub type Plan = Box<dyn Fn(Call, u64) -> Fault + Send + Sync>;

/// A remote with faults.
pub struct Flaky {
    inner: Arc<dyn Remote>,
    plan: Plan,
    counts: Mutex<BTreeMap<Call, u64>>,
}

impl Flaky {
    pub fn new(inner: Arc<dyn Remote>, plan: impl Fn(Call, u64) -> Fault + Send + Sync + 'static) -> Arc<Flaky> {
        Arc::new(Flaky { inner, plan: Box::new(plan), counts: Mutex::default() })
    }

    /// How often a call was made.
    #[allow(dead_code, reason = "not every test that includes this counts")]
    pub fn count(&self, call: Call) -> u64 {
        self.counts.lock().unwrap().get(&call).copied().unwrap_or(0)
    }

    fn next(&self, call: Call) -> Fault {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(call).or_default();
        *count += 1;
        (self.plan)(call, *count - 1)
    }

    async fn before(&self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Before(error) => Err(error.clone()),
            Fault::Hang => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn after<T>(&self, fault: Fault, result: Result<T>) -> Result<T> {
        match (fault, result) {
            (Fault::After(error), Ok(_)) => Err(error),
            (Fault::Late(time), result) => {
                tokio::time::sleep(time).await;
                result
            }
            (_, result) => result,
        }
    }

    async fn guard<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.next(call);
        self.before(&fault).await?;
        self.after(fault, work.await).await
    }
}

#[async_trait]
impl Remote for Flaky {
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
        self.guard(Call::Changes, self.inner.changes(cursor, wait_ms)).await
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.guard(Call::Stat, self.inner.stat(place)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let at = self.next(Call::Read);
        self.before(&at).await?;
        let stream = self.inner.read(place, version, range).await?;
        let Fault::Break(pieces, error) = at else { return self.after(at, Ok(stream)).await };
        Ok(Box::pin(stream.take(pieces).chain(futures_util::stream::iter([Err(error)]))))
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
