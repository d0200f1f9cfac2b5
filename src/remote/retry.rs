//! The layer that repeats what failed in a way that may pass. The only loop over errors in the program.
//!
//! A read is repeated as it is. A write is repeated only after a look at its target: the answer may be what was lost, not
//! the write. A refusal to serve now (`Throttled`) was no write, so it needs no look. `SignIn`, `Denied` and all else that
//! does not pass by itself are never repeated.

use super::looked::{self, Verdict};
use super::{Body, ByteStream, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session};
use crate::error::{Error, Kind, Result, Retry as Rule};
use crate::model::{Entry, FileKind, Meta, Quota, Version};
use crate::sys::{Chance, Clock};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How much is spent on one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1: none is repeated.
    pub tries: u32,
    /// The wait before the first repeat, milliseconds; doubles with each, and half of it is chance.
    pub base_ms: u64,
    /// The longest such wait, milliseconds. A provider that asks for longer gets longer.
    pub max_ms: u64,
    /// Milliseconds from the first attempt after which none begins. Where the provider asks for a wait beyond that the call
    /// fails at once.
    pub total_ms: u64,
}

impl RetryPolicy {
    /// For a program that waits: one quick repeat, then the error. Quick, since `stat` shall take less than 100 ms without a server.
    pub const FOREGROUND: RetryPolicy = RetryPolicy { tries: 2, base_ms: 50, max_ms: 500, total_ms: 2_000 };
    /// For work that nobody waits for.
    pub const BACKGROUND: RetryPolicy = RetryPolicy { tries: 6, base_ms: 500, max_ms: 30_000, total_ms: 120_000 };
}

/// A remote that repeats what may pass.
#[derive(Clone)]
pub struct Retry {
    inner: Arc<dyn Remote>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    policy: RetryPolicy,
}

/// What is left to spend on one call.
struct Budget {
    retry: Retry,
    began: Duration,
    failed: u32,
}

impl Budget {
    /// Waits before the next attempt; gives the error back where there is none.
    async fn spend(&mut self, error: Error) -> Result<()> {
        let policy = self.retry.policy;
        self.failed += 1;
        if error.kind.retry() == Rule::Never || self.failed >= policy.tries {
            return Err(error);
        }
        let doubled = policy.base_ms.saturating_mul(1 << (self.failed - 1).min(20)).min(policy.max_ms);
        let chance = self.retry.chance.next() % (doubled / 2 + 1);
        let wait = Duration::from_millis(doubled - chance).max(error.retry_after.unwrap_or_default());
        let spent = self.retry.clock.monotonic().saturating_sub(self.began);
        if spent + wait > Duration::from_millis(policy.total_ms) {
            return Err(error);
        }
        tracing::debug!("again in {} ms: {error}", wait.as_millis());
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Repeats a call that changes nothing, or whose repeat changes nothing more.
macro_rules! again {
    ($budget:expr, $work:expr) => {
        loop {
            match $work.await {
                Ok(value) => break Ok(value),
                Err(error) => {
                    if let Err(error) = $budget.spend(error).await {
                        break Err(error);
                    }
                }
            }
        }
    };
}

/// Repeats a write, after `$look` has given a verdict on the one before.
macro_rules! write_again {
    ($budget:expr, $work:expr, $look:expr) => {{
        let mut repeated = false;
        loop {
            let error = match $work.await {
                Ok(value) => break Ok(value),
                // Perhaps refused by what the attempt before has done.
                Err(error) if error.kind.retry() == Rule::Never && repeated => match $look.await {
                    Ok(Verdict::Done(value)) => break Ok(value),
                    _ => break Err(error),
                },
                Err(error) => error,
            };
            if let Err(error) = $budget.spend(error.clone()).await {
                break Err(error);
            }
            if error.kind == Kind::Throttled {
                continue;
            }
            match $look.await {
                Ok(Verdict::Done(value)) => break Ok(value),
                Ok(Verdict::Repeat) => repeated = true,
                Ok(Verdict::Refused(refusal)) => break Err(refusal),
                // Without a look, or with one that shows nothing, the write's own error stands.
                Ok(Verdict::Unknown) | Err(_) => break Err(error),
            }
        }
    }};
}

impl Retry {
    /// Repeats what fails on `inner`, within `policy`.
    pub fn new(inner: Arc<dyn Remote>, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>, policy: RetryPolicy) -> Self {
        Retry { inner, clock, chance, policy }
    }

    fn budget(&self) -> Budget {
        Budget { retry: self.clone(), began: self.clock.monotonic(), failed: 0 }
    }

    /// Looks at a place, on the budget of the write that asks.
    async fn look(&self, budget: &mut Budget, place: &Place) -> Result<Option<Entry>> {
        again!(budget, self.inner.stat(place))
    }

    async fn look_at_put(&self, budget: &mut Budget, place: &Place, request: &PutRequest) -> Result<Verdict<Entry>> {
        let found = self.look(budget, place).await?;
        looked::put(&*self.inner, place, request, found).await
    }

    async fn look_at_link(&self, budget: &mut Budget, place: &Place, target: &[u8]) -> Result<Verdict<Entry>> {
        let Some(entry) = self.look(budget, place).await? else { return Ok(Verdict::Repeat) };
        let ours = entry.kind == FileKind::Symlink && again!(budget, self.inner.read_link(place))? == target;
        Ok(if ours { Verdict::Done(entry) } else { Verdict::Refused(looked::exists(place)) })
    }

    async fn look_at_directory(&self, budget: &mut Budget, place: &Place) -> Result<Verdict<Entry>> {
        Ok(match self.look(budget, place).await? {
            None => Verdict::Repeat,
            // Ours, or another's that came first: a directory of that name is what was asked for.
            Some(entry) if entry.kind == FileKind::Directory => Verdict::Done(entry),
            Some(_) => Verdict::Refused(looked::exists(place)),
        })
    }

    async fn look_at_rename(
        &self,
        budget: &mut Budget,
        (from, to): (&Place, &Place),
        source: Option<&Version>,
        condition: &Condition,
    ) -> Result<Verdict<Entry>> {
        // By path: by its id it would be found wherever it is.
        let old = self.look(budget, &Place::at(from.path.clone())).await?;
        let new = self.look(budget, &Place::at(to.path.clone())).await?;
        Ok(looked::rename(self.inner.capabilities(), (from, to), source, condition, (old, new)))
    }

    async fn look_at_copy(
        &self,
        budget: &mut Budget,
        (from, to): (&Place, &Place),
        version: &Version,
        condition: &Condition,
    ) -> Result<Verdict<Entry>> {
        let found = self.look(budget, to).await?;
        if *condition != Condition::Any && looked::holds(condition, found.as_ref()) {
            return Ok(Verdict::Repeat);
        }
        let source = self.look(budget, from).await?.filter(|entry| entry.version.as_ref() == Some(version));
        Ok(match (source, found) {
            (Some(source), Some(found)) if source.hash.is_some() && source.hash == found.hash => Verdict::Done(found),
            _ if *condition == Condition::Any => Verdict::Repeat,
            _ => Verdict::Unknown,
        })
    }

    /// Whether a session that failed to finish is still there.
    async fn is_open(&self, session: &Session, budget: &mut Budget) -> Result<bool> {
        match again!(budget, self.inner.parts(session)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A download that goes on where it broke off.
struct Reading {
    budget: Budget,
    place: Place,
    version: Version,
    left: Range<u64>,
    stream: Option<ByteStream>,
    ended: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Bytes>, Reading)> {
        loop {
            if self.ended {
                return None;
            }
            let error = match self.piece().await {
                Ok(None) => return None,
                Ok(Some(piece)) => return Some((Ok(piece), self)),
                Err(error) => error,
            };
            self.stream = None;
            if let Err(error) = self.budget.spend(error).await {
                self.ended = true;
                return Some((Err(error), self));
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let opened = self.budget.retry.inner.read(&self.place, &self.version, self.left.clone()).await?;
                self.stream.insert(opened)
            }
        };
        match stream.next().await {
            Some(piece) => {
                let piece = piece?;
                self.left.start = (self.left.start + piece.len() as u64).min(self.left.end);
                // What moves is no failure: the next one has the whole budget again.
                self.budget.failed = 0;
                self.budget.began = self.budget.retry.clock.monotonic();
                Ok(Some(piece))
            }
            None if self.left.is_empty() => Ok(None),
            None => Err(Error::new(Kind::Corrupt, format!("{}: the content ended early", self.place.path))),
        }
    }
}

#[async_trait]
impl Remote for Retry {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        let mut budget = self.budget();
        again!(budget, self.inner.sweep(page.clone()))
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        let mut budget = self.budget();
        again!(budget, self.inner.list(directory, page.clone()))
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        let mut budget = self.budget();
        again!(budget, self.inner.changes(cursor.clone(), wait_ms))
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        let mut budget = self.budget();
        again!(budget, self.inner.stat(place))
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let mut budget = self.budget();
        let stream = again!(budget, self.inner.read(place, version, range.clone()))?;
        let (place, version) = (place.clone(), version.clone());
        let reading = Reading { budget, place, version, left: range, stream: Some(stream), ended: false };
        Ok(Box::pin(futures_util::stream::unfold(reading, Reading::next)))
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        let mut budget = self.budget();
        again!(budget, self.inner.read_link(place))
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(budget, self.inner.put(place, request.clone()), self.look_at_put(&mut budget, place, &request))
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(
            budget,
            self.inner.put_link(place, target, meta.clone()),
            self.look_at_link(&mut budget, place, target)
        )
    }

    /// Repeated as it is: a session that nobody knows of is dropped by the provider in time.
    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        let mut budget = self.budget();
        again!(budget, self.inner.begin(place, size, meta, condition))
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        let mut budget = self.budget();
        again!(budget, self.inner.part(session, number, body.clone(), range.clone()))
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        let mut budget = self.budget();
        again!(budget, self.inner.part_copy(session, number, from, version, range.clone()))
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        let mut budget = self.budget();
        again!(budget, self.inner.parts(session))
    }

    /// A session that is still there after a failure was not finished. Where it is gone, the caller finds out at the target
    /// what became of it.
    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        let mut budget = self.budget();
        loop {
            let error = match self.inner.finish(session, parts, meta, condition).await {
                Ok(entry) => return Ok(entry),
                Err(error) => error,
            };
            budget.spend(error.clone()).await?;
            if error.kind != Kind::Throttled && !self.is_open(session, &mut budget).await? {
                return Err(error.context("the upload session is gone, and may have been finished"));
            }
        }
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        let mut budget = self.budget();
        again!(budget, self.inner.abort(session))
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(budget, self.inner.mkdir(place, meta), self.look_at_directory(&mut budget, place))
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(
            budget,
            self.inner.rename(from, to, source, condition),
            self.look_at_rename(&mut budget, (from, to), source, condition)
        )
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        let mut budget = self.budget();
        write_again!(budget, self.inner.remove(place, directory, condition), async {
            let found = self.look(&mut budget, place).await?;
            Ok::<_, Error>(looked::remove(place, condition, found.as_ref()))
        })
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(
            budget,
            self.inner.copy(from, version, to, condition),
            self.look_at_copy(&mut budget, (from, to), version, condition)
        )
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        let mut budget = self.budget();
        write_again!(budget, self.inner.set_meta(place, directory, version, meta), async {
            let found = self.look(&mut budget, place).await?;
            Ok::<_, Error>(looked::set_meta(self.inner.capabilities(), place, version, meta, found))
        })
    }

    async fn quota(&self) -> Result<Quota> {
        let mut budget = self.budget();
        again!(budget, self.inner.quota())
    }
}
