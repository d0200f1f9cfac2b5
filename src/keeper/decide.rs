//! What follows from the end of a worker. Pure: no process, no clock.

use super::exit;
use std::time::Duration;

/// A worker that asks to be replaced sooner than this after its start counts as one that died: it would loop.
pub const REPLACE_EVERY: Duration = Duration::from_secs(1);
/// How many deaths are remembered; more than this cannot be asked for.
pub const DEATHS_MAX: u32 = 64;
/// The first pause before a worker in safe mode is started again; doubled with each death.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// When deaths are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many deaths, 1 to [`DEATHS_MAX`] ...
    pub deaths: u32,
    /// ... within this time: safe mode; as many again in safe mode: the end.
    pub window: Duration,
}

impl Default for Policy {
    /// Five in a minute.
    fn default() -> Self {
        Policy { deaths: 5, window: Duration::from_secs(60) }
    }
}

/// What the keeper does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Unmount and end with this code.
    Finish(i32),
    /// Start a worker after a pause; look at [`History::safe`] for its mode.
    Start(Duration),
}

/// What is known of the last worker when it ended.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub ended: Ended,
    /// Since an arbitrary moment.
    pub now: Duration,
    /// Since the worker's start.
    pub lived: Duration,
    /// Whether it said that it is ready.
    pub was_ready: bool,
    /// Whether any worker of this mount ever was.
    pub ever_ready: bool,
}

/// The deaths so far. Fixed size: the keeper allocates nothing once it runs.
#[derive(Clone, Debug)]
pub struct History {
    times: [Duration; DEATHS_MAX as usize],
    count: usize,
    safe: bool,
    in_safe: u32,
}

impl History {
    pub const fn new() -> Self {
        History { times: [Duration::ZERO; DEATHS_MAX as usize], count: 0, safe: false, in_safe: 0 }
    }

    /// Whether the next worker starts in safe mode.
    pub fn safe(&self) -> bool {
        self.safe
    }

    /// Takes the end of a worker in, and says what follows.
    pub fn next(&mut self, policy: &Policy, facts: &Facts) -> Next {
        match facts.ended {
            Ended::Code(exit::CLEAN) => return Next::Finish(exit::CLEAN),
            Ended::Code(code) if exit::CANNOT_START.contains(&code) && !facts.ever_ready => return Next::Finish(code),
            Ended::Code(exit::REPLACE_ME) if facts.was_ready && facts.lived >= REPLACE_EVERY => {
                // The worker may have been put right: safe mode is over, and earlier deaths are forgotten.
                *self = History::new();
                return Next::Start(Duration::ZERO);
            }
            // Killed from outside, by a person or for lack of memory, while it worked: no fault that a safe mode would cure.
            Ended::Signal(libc::SIGKILL) if facts.was_ready => return Next::Start(Duration::ZERO),
            _ => {}
        }
        if self.safe && facts.lived > policy.window {
            self.in_safe = 0;
        }
        self.times[self.count % self.times.len()] = facts.now;
        self.count += 1;
        if self.safe {
            self.in_safe += 1;
            if self.in_safe >= policy.deaths {
                return Next::Finish(exit::GAVE_UP);
            }
            return Next::Start(pause(self.in_safe));
        }
        if !self.too_many(policy, facts.now) {
            return Next::Start(Duration::ZERO);
        }
        self.safe = true;
        Next::Start(pause(0))
    }

    fn too_many(&self, policy: &Policy, now: Duration) -> bool {
        let deaths = policy.deaths.clamp(1, DEATHS_MAX) as usize;
        if self.count < deaths {
            return false;
        }
        let oldest = self.times[(self.count - deaths) % self.times.len()];
        now.saturating_sub(oldest) < policy.window
    }
}

impl Default for History {
    fn default() -> Self {
        History::new()
    }
}

fn pause(deaths: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << deaths.min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died(at_ms: u64) -> Facts {
        Facts {
            ended: Ended::Signal(libc::SIGSEGV),
            now: Duration::from_millis(at_ms),
            lived: Duration::from_millis(1),
            was_ready: true,
            ever_ready: true,
        }
    }

    #[test]
    fn four_deaths_are_replaced_at_once_and_the_fifth_in_a_minute_means_safe_mode() {
        let (policy, mut history) = (Policy::default(), History::new());
        for at in [0, 10_000, 20_000, 30_000] {
            assert_eq!(history.next(&policy, &died(at)), Next::Start(Duration::ZERO));
            assert!(!history.safe());
        }
        assert_eq!(history.next(&policy, &died(59_999)), Next::Start(PAUSE_FIRST));
        assert!(history.safe());
    }

    #[test]
    fn slow_deaths_go_on_for_ever_without_safe_mode() {
        let (policy, mut history) = (Policy::default(), History::new());
        for n in 0..1000 {
            assert_eq!(history.next(&policy, &died(n * 15_001)), Next::Start(Duration::ZERO));
        }
        assert!(!history.safe());
    }

    #[test]
    fn deaths_in_safe_mode_wait_longer_each_time_and_end_in_giving_up() {
        let (policy, mut history) = (Policy::default(), History::new());
        let mut seen = vec![];
        let code = loop {
            match history.next(&policy, &died(0)) {
                Next::Finish(code) => break code,
                Next::Start(pause) => seen.push(pause.as_millis()),
            }
        };
        assert_eq!((code, seen), (exit::GAVE_UP, vec![0, 0, 0, 0, 100, 200, 400, 800, 1600]));
    }

    #[test]
    fn a_refusal_ends_the_mount_only_before_anything_was_ready() {
        for code in exit::CANNOT_START {
            let mut facts = Facts { ended: Ended::Code(code), was_ready: false, ever_ready: false, ..died(0) };
            assert_eq!(History::new().next(&Policy::default(), &facts), Next::Finish(code));
            facts.ever_ready = true;
            assert_eq!(History::new().next(&Policy::default(), &facts), Next::Start(Duration::ZERO));
        }
        for code in [1, 64, 101, 127, 255] {
            let facts = Facts { ended: Ended::Code(code), was_ready: false, ever_ready: false, ..died(0) };
            assert_eq!(History::new().next(&Policy::default(), &facts), Next::Start(Duration::ZERO), "{code}");
        }
    }

    #[test]
    fn a_worker_that_asks_to_be_replaced_is_no_death_unless_it_does_so_in_a_loop() {
        let (policy, mut history) = (Policy::default(), History::new());
        let asks = Facts { ended: Ended::Code(exit::REPLACE_ME), lived: Duration::from_secs(2), ..died(0) };
        for _ in 0..100 {
            assert_eq!(history.next(&policy, &asks), Next::Start(Duration::ZERO));
        }
        let loops = Facts { lived: Duration::from_millis(3), ..asks };
        for _ in 0..5 {
            history.next(&policy, &loops);
        }
        assert!(history.safe());
        assert_eq!(history.next(&policy, &asks), Next::Start(Duration::ZERO));
        assert!(!history.safe(), "a worker that lived and asked for a successor leaves safe mode");
    }
}
