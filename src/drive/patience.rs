//! How long the reads of one handle may still wait for the remote, together.
//!
//! The kernel asks for the same page twice when its read-ahead failed, and an `open` may have waited before: with a deadline
//! for each request, one read(2) of a program could wait for several of them. So the time is the handle's: it begins when
//! something first waits, and begins anew when bytes come.

use std::time::Duration;

/// A request that comes so soon after the time ran out is the kernel's second try of the same read, and fails like it.
const SAME_READ: Duration = Duration::from_secs(1);

/// Since when one handle waits in vain. Times are the monotonic clock's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    since: Option<Duration>,
}

impl Patience {
    /// Something of this handle waits since `then`.
    pub(super) fn waits(&mut self, then: Duration) {
        self.since.get_or_insert(then);
    }

    /// Bytes came.
    pub(super) fn answered(&mut self) {
        self.since = None;
    }

    /// How long a read that begins `now` may wait, of `limit` in all.
    pub(super) fn left(&mut self, now: Duration, limit: Duration) -> Duration {
        if self.since.is_none_or(|since| now.saturating_sub(since) > limit + SAME_READ) {
            self.since = Some(now);
        }
        let waited = now.saturating_sub(self.since.unwrap_or(now));
        limit.saturating_sub(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_second_try_of_a_failed_read_waits_no_second_time() {
        let mut patience = Patience::default();
        patience.waits(at(0));
        assert_eq!(patience.left(at(2_000), LIMIT), at(8_000));
        assert_eq!(patience.left(at(10_010), LIMIT), at(0));
        assert_eq!(patience.left(at(11_500), LIMIT), LIMIT, "a later read is a new one");
    }

    #[test]
    fn bytes_begin_the_time_anew() {
        let mut patience = Patience::default();
        assert_eq!(patience.left(at(0), LIMIT), LIMIT);
        patience.answered();
        assert_eq!(patience.left(at(9_000), LIMIT), LIMIT);
    }
}
