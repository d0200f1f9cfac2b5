//! Waiting for facts, never for a while.

use std::time::{Duration, Instant};

/// Calls `fact` until it gives something; panics with `what` when `limit` has passed.
#[track_caller]
pub fn wait_for<T>(limit: Duration, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
