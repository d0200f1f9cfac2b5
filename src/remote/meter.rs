//! What has been measured of one account: counters, the last error, whether it can be reached. Written by [`super::measure`].

use super::Call;
use crate::error::{Error, Kind};
use crate::sys::Clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Seconds over which the moving rate is taken.
const RATE_SECONDS: u64 = 8;

/// Consecutive failures to reach the provider that mean "offline"; a refused connection counts twice.
const OFFLINE_FROM: u32 = 2;

/// Counters of one account, shared between those who measure and those who show.
pub struct Meter {
    clock: Arc<dyn Clock>,
    calls: [Counter; Call::ALL.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    unreached: AtomicU32,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Counter {
    requests: AtomicU64,
    errors: AtomicU64,
    busy_ms: AtomicU64,
}

#[derive(Default)]
struct Recent {
    /// (second, bytes in, bytes out), at the second modulo the length.
    buckets: [(u64, u64, u64); RATE_SECONDS as usize],
    error: Option<LastError>,
    answered_wall_ns: Option<i64>,
    sign_in: bool,
}

/// Whether the provider can be reached, as recent calls found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No call has ended yet.
    Unknown,
    Online,
    Offline,
    /// Reached, but the credentials are refused.
    SignIn,
}

/// The last call that failed in a way that says something of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub call: Call,
    pub kind: Kind,
    pub message: String,
    /// When, nanoseconds since 1970.
    pub wall_ns: i64,
}

/// Counts of one call since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallCount {
    pub call: Call,
    pub requests: u64,
    /// How many of them failed, `NotFound` and the like included.
    pub errors: u64,
    /// Time spent waiting for answers, milliseconds in all.
    pub busy_ms: u64,
}

/// A meter read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Calls made at least once, in the order of the trait.
    pub calls: Vec<CallCount>,
    /// Bytes of content received, since the start.
    pub bytes_in: u64,
    /// Bytes of content sent, since the start (again for each attempt).
    pub bytes_out: u64,
    /// Moving rates, bytes a second.
    pub bytes_in_per_s: u64,
    pub bytes_out_per_s: u64,
    pub link: Link,
    pub last_error: Option<LastError>,
    /// When the provider last answered, nanoseconds since 1970.
    pub answered_wall_ns: Option<i64>,
}

impl Snapshot {
    /// Requests of every kind, since the start.
    pub fn requests(&self) -> u64 {
        self.calls.iter().map(|count| count.requests).sum()
    }

    /// Failed requests of every kind, since the start.
    pub fn errors(&self) -> u64 {
        self.calls.iter().map(|count| count.errors).sum()
    }
}

impl Meter {
    /// A meter at zero.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Meter {
            clock,
            calls: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            unreached: AtomicU32::new(0),
            recent: Mutex::default(),
        }
    }

    /// Whether the provider can be reached, as recent calls found it.
    pub fn link(&self) -> Link {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        self.link_of(&recent)
    }

    /// Everything at once.
    pub fn snapshot(&self) -> Snapshot {
        let count = |call: Call| {
            let counter = &self.calls[call as usize];
            CallCount {
                call,
                requests: counter.requests.load(Relaxed),
                errors: counter.errors.load(Relaxed),
                busy_ms: counter.busy_ms.load(Relaxed),
            }
        };
        let now = self.clock.monotonic().as_secs();
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = recent.buckets.iter().filter(|(second, ..)| second + RATE_SECONDS > now);
        let (sum_in, sum_out) = fresh.fold((0, 0), |(i, o), bucket| (i + bucket.1, o + bucket.2));
        Snapshot {
            calls: Call::ALL.into_iter().map(count).filter(|count| count.requests > 0).collect(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            bytes_in_per_s: sum_in / RATE_SECONDS,
            bytes_out_per_s: sum_out / RATE_SECONDS,
            link: self.link_of(&recent),
            last_error: recent.error.clone(),
            answered_wall_ns: recent.answered_wall_ns,
        }
    }

    fn link_of(&self, recent: &Recent) -> Link {
        match (self.unreached.load(Relaxed) >= OFFLINE_FROM, recent.answered_wall_ns) {
            (true, _) => Link::Offline,
            _ if recent.sign_in => Link::SignIn,
            (false, Some(_)) => Link::Online,
            (false, None) => Link::Unknown,
        }
    }

    /// Notes a call that begins. It may never end: callers drop what they no longer want.
    pub(super) fn began(&self, call: Call) {
        self.calls[call as usize].requests.fetch_add(1, Relaxed);
    }

    /// Notes a call that ended; `error` is what it ended with.
    pub(super) fn ended(&self, call: Call, busy_ms: u64, error: Option<&Error>) {
        self.calls[call as usize].busy_ms.fetch_add(busy_ms, Relaxed);
        match error {
            Some(error) => self.failed(call, error),
            None => self.answered(false),
        }
    }

    /// Notes an error, also of a stream whose call had succeeded.
    pub(super) fn failed(&self, call: Call, error: &Error) {
        self.calls[call as usize].errors.fetch_add(1, Relaxed);
        match error.kind {
            Kind::Offline => self.unreached.fetch_add(2, Relaxed),
            Kind::TimedOut => self.unreached.fetch_add(1, Relaxed),
            // Errors of this side: they say nothing of the provider.
            Kind::Disk | Kind::NoSpace | Kind::Interrupted | Kind::Config => 0,
            kind => {
                self.answered(kind == Kind::SignIn);
                0
            }
        };
        // Answers that are a matter of course in normal work would hide what went wrong.
        if !matches!(error.kind, Kind::NotFound | Kind::Exists | Kind::NotEmpty | Kind::Precondition | Kind::Changed) {
            let wall_ns = self.clock.wall_ns();
            let message = error.message().to_owned();
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).error =
                Some(LastError { call, kind: error.kind, message, wall_ns });
        }
    }

    pub(super) fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.moved(bytes, 0);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Relaxed);
        self.moved(0, bytes);
    }

    fn answered(&self, sign_in: bool) {
        self.unreached.store(0, Relaxed);
        let wall_ns = self.clock.wall_ns();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.answered_wall_ns = Some(wall_ns);
        recent.sign_in = sign_in;
    }

    fn moved(&self, bytes_in: u64, bytes_out: u64) {
        let second = self.clock.monotonic().as_secs();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = &mut recent.buckets[(second % RATE_SECONDS) as usize];
        if bucket.0 != second {
            *bucket = (second, 0, 0);
        }
        bucket.1 += bytes_in;
        bucket.2 += bytes_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Frozen(AtomicU64);

    impl Clock for Frozen {
        fn wall_ns(&self) -> i64 {
            self.monotonic().as_nanos() as i64
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Relaxed))
        }
    }

    #[test]
    fn the_link_follows_what_recent_calls_found() {
        let meter = Meter::new(Arc::new(Frozen(AtomicU64::new(1))));
        let fail = |kind| {
            meter.began(Call::Stat);
            meter.ended(Call::Stat, 1, Some(&Error::new(kind, "no")));
        };
        assert_eq!(meter.link(), Link::Unknown);
        meter.ended(Call::Stat, 1, None);
        assert_eq!(meter.link(), Link::Online);
        fail(Kind::TimedOut);
        assert_eq!(meter.link(), Link::Online);
        fail(Kind::TimedOut);
        assert_eq!(meter.link(), Link::Offline);
        fail(Kind::NotFound);
        assert_eq!(meter.link(), Link::Online);
        fail(Kind::Offline);
        assert_eq!(meter.link(), Link::Offline);
        fail(Kind::SignIn);
        assert_eq!(meter.link(), Link::SignIn);
        let snapshot = meter.snapshot();
        assert_eq!((snapshot.requests(), snapshot.errors()), (5, 5));
        assert_eq!(snapshot.last_error.map(|e| e.kind), Some(Kind::SignIn));
    }

    #[test]
    fn the_rate_forgets_what_is_long_past() {
        let clock = Arc::new(Frozen(AtomicU64::new(100)));
        let meter = Meter::new(clock.clone());
        meter.received(800);
        meter.sent(80);
        assert_eq!((meter.snapshot().bytes_in_per_s, meter.snapshot().bytes_out_per_s), (100, 10));
        clock.0.store(108, Relaxed);
        assert_eq!((meter.snapshot().bytes_in_per_s, meter.snapshot().bytes_in), (0, 800));
    }
}
