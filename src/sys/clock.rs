//! The time.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Sleeping is tokio's, whose clock a test can pause.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970, UTC; jumps when somebody sets the clock.
    fn wall_ns(&self) -> i64;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
pub struct RealClock;

impl Clock for RealClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
    fn wall_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i64,
            Err(before) => -(before.duration().as_nanos() as i64),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
