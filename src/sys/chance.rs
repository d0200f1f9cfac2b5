//! Random numbers.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers; not for secrets.
pub trait Chance: Send + Sync {
    /// A number of 64 random bits.
    fn next(&self) -> u64;
}

/// Seeded by the system once, then a counter through SipHash.
pub struct RealChance {
    state: RandomState,
    counter: AtomicU64,
}

impl RealChance {
    /// A freshly seeded source.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
    pub fn new() -> Self {
        RealChance { state: RandomState::new(), counter: AtomicU64::new(0) }
    }
}

impl Default for RealChance {
    fn default() -> Self {
        RealChance::new()
    }
}

impl Chance for RealChance {
    fn next(&self) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(self.counter.fetch_add(1, Ordering::Relaxed));
        hasher.finish()
    }
}
