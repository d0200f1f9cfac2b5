//! The layer that stops asking a provider that cannot be reached.
//!
//! After a few failures in a row every call fails at once, so that programs do not wait out a deadline each. Meanwhile the
//! root is looked at every few seconds; the first answer, whatever it says but "unavailable", lets calls through again.

use super::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session,
};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Meta, Quota, RemotePath, Version};
use crate::sys::Clock;
use async_trait::async_trait;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// When to stop asking, and how often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitPolicy {
    /// Consecutive `Offline` and `TimedOut` that mean "cannot be reached".
    pub failures: u32,
    /// Milliseconds between two looks at whether it can be reached again.
    pub probe_ms: u64,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        CircuitPolicy { failures: 3, probe_ms: 3_000 }
    }
}

/// A remote that fails at once while it cannot be reached.
pub struct Circuit {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Remote>,
    clock: Arc<dyn Clock>,
    policy: CircuitPolicy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// While calls fail at once: why, and when the next look is (monotonic).
    open: Option<(String, Duration)>,
}

impl Circuit {
    /// Watches whether `inner` can be reached. Calls need a tokio runtime.
    pub fn new(inner: Arc<dyn Remote>, clock: Arc<dyn Clock>, policy: CircuitPolicy) -> Self {
        Circuit { shared: Arc::new(Shared { inner, clock, policy, state: Mutex::default() }) }
    }

    /// Whether calls fail at once now.
    pub fn is_open(&self) -> bool {
        self.shared.lock().open.is_some()
    }

    async fn guard<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.shared.check().map_err(|error| error.context(call.name()))?;
        let result = work.await;
        self.shared.note(result.as_ref().err());
        result
    }
}

impl Shared {
    /// The error of a call that is not even tried. Its `retry_after` is the time until the next look.
    fn check(&self) -> Result<()> {
        match &self.lock().open {
            None => Ok(()),
            Some((why, next)) => {
                let left = next.saturating_sub(self.clock.monotonic());
                Err(Error::new(Kind::Offline, format!("cannot be reached: {why}")).after(left))
            }
        }
    }

    /// Takes in how a call ended.
    fn note(self: &Arc<Self>, error: Option<&Error>) {
        let mut state = self.lock();
        match error {
            Some(error) if matches!(error.kind, Kind::Offline | Kind::TimedOut) => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= self.policy.failures && state.open.is_none() {
                    tracing::warn!("{} cannot be reached: {error}", self.inner.describe());
                    state.open = Some((error.message().to_owned(), self.next_look()));
                    tokio::spawn(probe(Arc::downgrade(self), self.policy));
                }
            }
            // A call that was on its way when the line broke, and was cut: no answer.
            Some(error) if error.kind == Kind::Unavailable && state.open.is_some() => {}
            // What went wrong on this side says nothing of the provider.
            Some(error) if matches!(error.kind, Kind::Disk | Kind::NoSpace | Kind::Interrupted | Kind::Config) => {}
            _ => {
                state.failures = 0;
                if state.open.take().is_some() {
                    tracing::info!("{} can be reached again", self.inner.describe());
                }
            }
        }
    }

    fn next_look(&self) -> Duration {
        self.clock.monotonic() + Duration::from_millis(self.policy.probe_ms)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks every few seconds until there is an answer, or nobody is left to ask for.
async fn probe(shared: Weak<Shared>, policy: CircuitPolicy) {
    let root = Place::at(RemotePath::root());
    loop {
        tokio::time::sleep(Duration::from_millis(policy.probe_ms)).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.lock().open.is_none() {
            return;
        }
        let result = shared.inner.stat(&root).await;
        shared.note(result.as_ref().err());
        let next = shared.next_look();
        match &mut shared.lock().open {
            None => return,
            Some(open) => open.1 = next,
        }
    }
}

#[async_trait]
impl Remote for Circuit {
    fn capabilities(&self) -> &Capabilities {
        self.shared.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.shared.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        self.guard(Call::Sweep, self.shared.inner.sweep(page)).await
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        self.guard(Call::List, self.shared.inner.list(directory, page)).await
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        self.guard(Call::Changes, self.shared.inner.changes(cursor, wait_ms)).await
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        self.guard(Call::Stat, self.shared.inner.stat(place)).await
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let stream = self.guard(Call::Read, self.shared.inner.read(place, version, range)).await?;
        let shared = self.shared.clone();
        Ok(Box::pin(stream.inspect(move |piece| {
            if let Err(error) = piece {
                shared.note(Some(error));
            }
        })))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        self.guard(Call::ReadLink, self.shared.inner.read_link(place)).await
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        self.guard(Call::Put, self.shared.inner.put(place, request)).await
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        self.guard(Call::PutLink, self.shared.inner.put_link(place, target, meta)).await
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        self.guard(Call::Begin, self.shared.inner.begin(place, size, meta, condition)).await
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        self.guard(Call::Part, self.shared.inner.part(session, number, body, range)).await
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        self.guard(Call::PartCopy, self.shared.inner.part_copy(session, number, from, version, range)).await
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        self.guard(Call::Parts, self.shared.inner.parts(session)).await
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Finish, self.shared.inner.finish(session, parts, meta, condition)).await
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        self.guard(Call::Abort, self.shared.inner.abort(session)).await
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        self.guard(Call::Mkdir, self.shared.inner.mkdir(place, meta)).await
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Rename, self.shared.inner.rename(from, to, source, condition)).await
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        self.guard(Call::Remove, self.shared.inner.remove(place, directory, condition)).await
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        self.guard(Call::Copy, self.shared.inner.copy(from, version, to, condition)).await
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        self.guard(Call::SetMeta, self.shared.inner.set_meta(place, directory, version, meta)).await
    }

    async fn quota(&self) -> Result<Quota> {
        self.guard(Call::Quota, self.shared.inner.quota()).await
    }
}
