//! How many requests an account gets at once. Grows by one a round while all goes well, halves when the provider asks to slow
//! down, and stands still for as long as it asks. Used by [`super::limit`].

use crate::error::{Error, Kind, Result};
use crate::sys::Clock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Requests that may wait for their turn. When it is full more are refused with `Throttled`: whoever sends so many at once has
/// a queue of its own.
const QUEUE_MAX: usize = 4096;

/// The longest pause obeyed in one go; a provider that asks for more is asked again after it.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The bounds of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Requests at once, at first. A connection of 25 MB/s fills a tenth of a link of 250 MB/s.
    pub start: usize,
    /// Requests at once, at most.
    pub max: usize,
    /// Slots that content never takes, so that names and attributes never wait for a transfer.
    pub metadata_reserve: usize,
    /// Longest wait for a pause to end, milliseconds; with a longer one left the call fails at once with `Throttled` and the
    /// time left, and its caller decides.
    pub pause_wait_ms_max: u64,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        LimitPolicy { start: 20, max: 40, metadata_reserve: 3, pause_wait_ms_max: 3_000 }
    }
}

/// Which queue a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Metadata,
    Content,
}

/// The gate of one account.
pub struct Gate {
    clock: Arc<dyn Clock>,
    policy: LimitPolicy,
    state: Mutex<State>,
}

struct State {
    /// Requests at once that the provider seems to bear; grows in fractions.
    limit: f64,
    metadata: usize,
    content: usize,
    /// Raised by each decrease: what was sent before it says nothing new.
    epoch: u64,
    /// No request begins before this; monotonic.
    paused_until: Duration,
    metadata_queue: VecDeque<oneshot::Sender<Permit>>,
    content_queue: VecDeque<oneshot::Sender<Permit>>,
}

/// A slot; given back when dropped.
pub(super) struct Permit {
    /// `None` once it was given back.
    gate: Option<Arc<Gate>>,
    lane: Lane,
    epoch: u64,
}

impl Gate {
    /// An open gate.
    pub fn new(policy: LimitPolicy, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            limit: policy.start.clamp(1, policy.max.max(1)) as f64,
            metadata: 0,
            content: 0,
            epoch: 0,
            paused_until: Duration::ZERO,
            metadata_queue: VecDeque::new(),
            content_queue: VecDeque::new(),
        };
        Gate { clock, policy, state: Mutex::new(state) }
    }

    /// Requests at once that the account is given now.
    pub fn width(&self) -> usize {
        self.lock().limit as usize
    }

    /// Waits until no pause is asked for. `Throttled`, with the time left, if that is too long.
    pub(super) async fn pause(&self) -> Result<()> {
        loop {
            let left = self.lock().paused_until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            if left > Duration::from_millis(self.policy.pause_wait_ms_max) {
                let why = format!("the provider asked to wait, {} s are left", left.as_secs());
                return Err(Error::new(Kind::Throttled, why).after(left));
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Waits for a slot: first come, first served within a lane.
    pub(super) async fn enter(self: &Arc<Self>, lane: Lane) -> Result<Permit> {
        self.pause().await?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            let queue = match lane {
                Lane::Metadata => &mut state.metadata_queue,
                Lane::Content => &mut state.content_queue,
            };
            if queue.len() >= QUEUE_MAX {
                return Err(Error::new(Kind::Throttled, "too many requests wait for their turn"));
            }
            queue.push_back(sender);
            self.grant(&mut state);
        }
        // The sender goes only with a permit, or with the gate, which this call holds.
        let permit = receiver.await.map_err(|_| Error::new(Kind::Throttled, "the gate was closed"))?;
        self.pause().await?;
        Ok(permit)
    }

    /// Takes in how a request ended.
    pub(super) fn learn(&self, permit: &Permit, error: Option<&Error>) {
        let mut state = self.lock();
        match error {
            Some(error) if error.kind == Kind::Throttled => {
                if let Some(wait) = error.retry_after {
                    let until = self.clock.monotonic() + wait.min(PAUSE_MAX);
                    state.paused_until = state.paused_until.max(until);
                }
                if permit.epoch == state.epoch {
                    state.epoch += 1;
                    state.limit = (state.limit / 2.0).max(1.0);
                    tracing::info!("the provider asks to slow down: {} requests at once", state.limit as usize);
                }
            }
            // Room that is not used says nothing of what the provider bears.
            None if (state.metadata + state.content + 1) as f64 >= state.limit => {
                state.limit = (state.limit + 1.0 / state.limit).min(self.policy.max.max(1) as f64);
            }
            _ => {}
        }
    }

    /// Gives free slots to those who wait.
    fn grant(self: &Arc<Self>, state: &mut State) {
        loop {
            // However narrow the gate: one transfer, and the reserve beside it.
            let content_max = (state.limit as usize).saturating_sub(self.policy.metadata_reserve).max(1);
            let all_max = (state.limit as usize).max(content_max + self.policy.metadata_reserve);
            if state.metadata + state.content >= all_max {
                return;
            }
            let (lane, sender) = match state.metadata_queue.pop_front() {
                Some(sender) => (Lane::Metadata, sender),
                None if state.content < content_max => match state.content_queue.pop_front() {
                    Some(sender) => (Lane::Content, sender),
                    None => return,
                },
                None => return,
            };
            let permit = Permit { gate: Some(self.clone()), lane, epoch: state.epoch };
            match sender.send(permit) {
                Ok(()) => *state.busy(lane) += 1,
                // Whoever waited has gone; the permit must not be given back to a gate that never counted it.
                Err(mut unused) => unused.gate = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn busy(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Metadata => &mut self.metadata,
            Lane::Content => &mut self.content,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let mut state = gate.lock();
            *state.busy(self.lane) -= 1;
            gate.grant(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RealClock;
    use std::task::{Context, Poll, Waker};

    fn gate(start: usize, metadata_reserve: usize) -> Arc<Gate> {
        let policy = LimitPolicy { start, metadata_reserve, ..LimitPolicy::default() };
        Arc::new(Gate::new(policy, Arc::new(RealClock)))
    }

    /// Asks for a slot; the permit if there is one at once.
    fn try_enter(gate: &Arc<Gate>, lane: Lane) -> Option<Permit> {
        match std::pin::pin!(gate.enter(lane)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => permit.ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn transfers_leave_the_reserve_to_metadata() {
        let gate = gate(5, 2);
        let transfers: Vec<_> = (0..10).filter_map(|_| try_enter(&gate, Lane::Content)).collect();
        let stats: Vec<_> = (0..10).filter_map(|_| try_enter(&gate, Lane::Metadata)).collect();
        assert_eq!((transfers.len(), stats.len()), (3, 2));
        drop(transfers);
        // Those who stopped waiting take no slot.
        assert!(try_enter(&gate, Lane::Content).is_some());
        drop(stats);
        let stats: Vec<_> = (0..10).filter_map(|_| try_enter(&gate, Lane::Metadata)).collect();
        assert_eq!(stats.len(), 5);
    }

    #[tokio::test]
    async fn who_waits_gets_the_slot_that_is_given_back() {
        let gate = gate(2, 1);
        let first = gate.enter(Lane::Content).await.unwrap();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(Lane::Content).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn one_burst_of_refusals_halves_the_gate_once() {
        let gate = gate(16, 1);
        let throttled = Error::new(Kind::Throttled, "slow down");
        let mut permits = Vec::new();
        for _ in 0..8 {
            permits.push(gate.enter(Lane::Metadata).await.unwrap());
        }
        for permit in &permits {
            gate.learn(permit, Some(&throttled));
        }
        assert_eq!(gate.width(), 8);
        drop(permits);
        let mut permits = Vec::new();
        for _ in 0..8 {
            permits.push(gate.enter(Lane::Metadata).await.unwrap());
        }
        for _ in 0..10 {
            permits.iter().for_each(|permit| gate.learn(permit, None));
        }
        // Grows while it is filled; eight at once say nothing of ten.
        assert_eq!(gate.width(), 9);
    }

    #[tokio::test]
    async fn a_long_pause_is_told_and_a_short_one_waited_for() {
        let gate = gate(4, 1);
        let permit = gate.enter(Lane::Content).await.unwrap();
        let slow = |ms| Error::new(Kind::Throttled, "slow down").after(Duration::from_millis(ms));
        gate.learn(&permit, Some(&slow(30)));
        let began = RealClock.monotonic();
        gate.enter(Lane::Metadata).await.unwrap();
        assert!(RealClock.monotonic() - began >= Duration::from_millis(25));
        gate.learn(&permit, Some(&slow(60_000)));
        let error = gate.enter(Lane::Metadata).await.map(drop).unwrap_err();
        assert!(error.kind == Kind::Throttled && error.retry_after.unwrap() > Duration::from_secs(50));
    }
}
