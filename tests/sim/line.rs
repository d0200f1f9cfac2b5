//! The line to the account: late, out of order, failing before or after the effect, doing a thing twice, down, and cut by the
//! worker's death, after which a call that was sent may still have its effect.

use crate::life::Life;
use crate::rig::Rng;
use async_trait::async_trait;
use fourwheel::error::{Error, Kind, Result};
use fourwheel::model::{Entry, Meta, Quota, Version};
use fourwheel::remote::{
    Body, ByteStream, Call, Capabilities, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session,
};
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What outlives a worker: how bad the line is, and the dice.
pub struct Weather {
    pub rng: Mutex<Rng>,
    /// Whether calls fail at all.
    pub bad: AtomicBool,
    /// Whether none gets through.
    pub down: AtomicBool,
}

/// The line as one worker sees it.
pub struct Line {
    inner: Arc<dyn Remote>,
    weather: Arc<Weather>,
    life: Arc<Life>,
}

enum End {
    Answer,
    Lost(Error),
    Broken(usize, Error),
}

struct Fate {
    twice: bool,
    later: Duration,
    end: End,
}

fn error(kind: Kind) -> Error {
    Error::new(kind, "the line is bad")
}

impl Line {
    pub fn new(inner: Arc<dyn Remote>, weather: Arc<Weather>, life: Arc<Life>) -> Arc<Line> {
        Arc::new(Line { inner, weather, life })
    }

    fn roll(&self, n: u64) -> u64 {
        self.weather.rng.lock().unwrap_or_else(PoisonError::into_inner).next(n)
    }

    /// The way to the account. An error: it did not arrive.
    async fn there(&self, call: Call) -> Result<Fate> {
        self.dead().await;
        let bad = self.weather.bad.load(Ordering::Relaxed) && call != Call::Changes;
        let slow = if bad && self.roll(8) == 0 { 3000 } else { 30 };
        let (sooner, later) = (self.roll(slow), self.roll(slow));
        let sent = self.life.step().is_ok();
        tokio::time::sleep(Duration::from_millis(1 + sooner)).await;
        if !sent || (self.life.is_over() && self.roll(2) == 0) {
            std::future::pending::<()>().await;
        }
        if self.weather.down.load(Ordering::Relaxed) {
            return Err(error(Kind::Offline));
        }
        let mut fate = Fate { twice: false, later: Duration::from_millis(1 + later), end: End::Answer };
        if bad {
            match self.roll(100) {
                0..8 => return Err(error(Kind::Offline)),
                8..12 => {
                    let mut refused = error(Kind::Throttled);
                    refused.retry_after = Some(Duration::from_secs(1));
                    return Err(refused);
                }
                12..28 => fate.end = End::Lost(error(Kind::Unavailable)),
                28..31 => fate.twice = true,
                31..35 => fate.end = End::Broken(self.roll(2) as usize, error(Kind::Unavailable)),
                _ => {}
            }
        }
        Ok(fate)
    }

    /// The way back.
    async fn back<T>(&self, fate: Fate, result: Result<T>) -> Result<T> {
        // An error as the step that the worker does not outlive: it never hears of it.
        let _ = self.life.step();
        tokio::time::sleep(fate.later).await;
        self.dead().await;
        match (fate.end, result) {
            (End::Lost(lost), Ok(_)) => Err(lost),
            (_, result) => result,
        }
    }

    async fn dead(&self) {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

/// Sends a call there and back; what it is made of is evaluated once more when it is done twice.
macro_rules! call {
    ($line:ident, $call:ident, $work:expr) => {{
        let fate = $line.there(Call::$call).await?;
        let mut result = $work.await;
        if fate.twice {
            result = $work.await;
        }
        tracing::debug!("{} of {}: {:?}", stringify!($call), stringify!($work), result.as_ref().map(drop));
        $line.back(fate, result).await
    }};
}

#[async_trait]
impl Remote for Line {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn sweep(&self, page: Option<String>) -> Result<Listing> {
        call!(self, Sweep, self.inner.sweep(page.clone()))
    }

    async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
        call!(self, List, self.inner.list(directory, page.clone()))
    }

    async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
        call!(self, Changes, self.inner.changes(cursor.clone(), wait_ms))
    }

    async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        call!(self, Stat, self.inner.stat(place))
    }

    async fn read(&self, place: &Place, version: &Version, range: Range<u64>) -> Result<ByteStream> {
        let fate = self.there(Call::Read).await?;
        let stream = self.inner.read(place, version, range).await?;
        if let End::Broken(pieces, error) = fate.end {
            return Ok(Box::pin(stream.take(pieces).chain(futures_util::stream::iter([Err(error)]))));
        }
        self.back(fate, Ok(stream)).await
    }

    async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
        call!(self, ReadLink, self.inner.read_link(place))
    }

    async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
        tracing::debug!("put {} bytes at {} if {:?}", request.body.size(), place.path, request.condition);
        call!(self, Put, self.inner.put(place, request.clone()))
    }

    async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
        call!(self, PutLink, self.inner.put_link(place, target, meta.clone()))
    }

    async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
        call!(self, Begin, self.inner.begin(place, size, meta, condition))
    }

    async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
        call!(self, Part, self.inner.part(session, number, body.clone(), range.clone()))
    }

    async fn part_copy(
        &self,
        session: &Session,
        number: u32,
        from: &Place,
        version: &Version,
        range: Range<u64>,
    ) -> Result<Part> {
        call!(self, PartCopy, self.inner.part_copy(session, number, from, version, range.clone()))
    }

    async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
        call!(self, Parts, self.inner.parts(session))
    }

    async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
        call!(self, Finish, self.inner.finish(session, parts, meta, condition))
    }

    async fn abort(&self, session: &Session) -> Result<()> {
        call!(self, Abort, self.inner.abort(session))
    }

    async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
        call!(self, Mkdir, self.inner.mkdir(place, meta))
    }

    async fn rename(&self, from: &Place, to: &Place, source: Option<&Version>, condition: &Condition) -> Result<Entry> {
        call!(self, Rename, self.inner.rename(from, to, source, condition))
    }

    async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
        call!(self, Remove, self.inner.remove(place, directory, condition))
    }

    async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
        call!(self, Copy, self.inner.copy(from, version, to, condition))
    }

    async fn set_meta(&self, place: &Place, directory: bool, version: Option<&Version>, meta: &Meta) -> Result<Entry> {
        call!(self, SetMeta, self.inner.set_meta(place, directory, version, meta))
    }

    async fn quota(&self) -> Result<Quota> {
        call!(self, Quota, self.inner.quota())
    }
}
