//! The layers around a remote: what they repeat, cut, hold back and refuse. Time is tokio's paused clock.

mod circuit;
#[path = "../common/flaky.rs"]
mod flaky;
mod limit;
mod retry;
mod timeout;

use bytes::Bytes;
use flaky::{Fault, Flaky};
use fourwheel::error::{Error, Kind};
use fourwheel::model::{Meta, RemotePath, Version};
use fourwheel::remote::memory::everything;
use fourwheel::remote::{Call, Capabilities, Condition, Memory, Place, PutRequest, Remote, body};
use fourwheel::sys::{Chance, Clock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Tokio's clock, which tests pause.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn wall_ns(&self) -> i64 {
        1_700_000_000_000_000_000 + self.monotonic().as_nanos() as i64
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Counting(AtomicU64);

impl Chance for Counting {
    fn next(&self) -> u64 {
        self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock(Instant::now()))
}

fn chance() -> Arc<dyn Chance> {
    Arc::new(Counting(AtomicU64::new(0)))
}

fn memory(capabilities: Capabilities) -> Arc<Memory> {
    Arc::new(Memory::new(capabilities, clock()))
}

fn full() -> Arc<Memory> {
    memory(everything())
}

fn at(path: &str) -> Place {
    Place::at(RemotePath::new(path))
}

fn error(kind: Kind) -> Error {
    Error::new(kind, "a planned fault")
}

/// A plan that treats the first `n` of one call so, and leaves the rest.
fn first(n: u64, call: Call, fault: Fault) -> impl Fn(Call, u64) -> Fault + Send + Sync + 'static {
    move |asked, count| if asked == call && count < n { fault.clone() } else { Fault::None }
}

fn request(content: impl Into<Bytes>, condition: Condition) -> PutRequest {
    PutRequest { body: body(content), meta: Meta::default(), condition }
}

async fn version(remote: &dyn Remote, path: &str) -> Version {
    remote.stat(&at(path)).await.unwrap().unwrap().version.unwrap()
}
