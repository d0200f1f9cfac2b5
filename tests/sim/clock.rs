//! Time that passes only while everybody waits.

use fourwheel::sys::Clock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// When every world begins, nanoseconds since 1970.
const BEGIN_NS: i64 = 1_700_000_000_000_000_000;

/// Tokio's paused clock, with a wall clock beside it that somebody may set.
pub struct SimClock {
    start: Instant,
    set_ns: AtomicI64,
}

impl SimClock {
    /// To be made inside of the paused runtime.
    pub fn new() -> SimClock {
        SimClock { start: Instant::now(), set_ns: AtomicI64::new(0) }
    }

    /// Sets the wall clock forwards or back.
    pub fn jump(&self, by_ns: i64) {
        self.set_ns.fetch_add(by_ns, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ns(&self) -> i64 {
        BEGIN_NS + self.monotonic().as_nanos() as i64 + self.set_ns.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
