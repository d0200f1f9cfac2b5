//! Puts the layers around a provider in their order.
//!
//! From the caller to the provider: *retry* (each attempt goes through all below), *circuit* (nothing is tried while the
//! provider cannot be reached), *limit* (waits for a slot, outside of any deadline), *measure* (sees the deadlines that pass),
//! *timeout*. All but the retry are one for the account; the retry is there twice, since a program that waits must hear of an error soon.

use super::{
    Circuit, CircuitPolicy, Gate, Limit, LimitPolicy, Measure, Meter, Remote, Retry, RetryPolicy, Timeout,
    TimeoutPolicy,
};
use crate::sys::{Chance, Clock};
use std::sync::Arc;

/// What the layers of one account are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub foreground: RetryPolicy,
    pub background: RetryPolicy,
    pub circuit: CircuitPolicy,
    pub limit: LimitPolicy,
    pub timeout: TimeoutPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            foreground: RetryPolicy::FOREGROUND,
            background: RetryPolicy::BACKGROUND,
            circuit: CircuitPolicy::default(),
            limit: LimitPolicy::default(),
            timeout: TimeoutPolicy::default(),
        }
    }
}

/// One account with its layers.
#[derive(Clone)]
pub struct Stack {
    /// For calls that a program waits for: fails soon.
    pub foreground: Arc<dyn Remote>,
    /// For calls that nobody waits for: tries for long.
    pub background: Arc<dyn Remote>,
    pub meter: Arc<Meter>,
    /// How many requests at once the account is given.
    pub gate: Arc<Gate>,
}

/// Puts every layer around `remote`. One stack an account; its calls need a tokio runtime.
pub fn stack(remote: Arc<dyn Remote>, clock: Arc<dyn Clock>, chance: Arc<dyn Chance>, settings: &Settings) -> Stack {
    let meter = Arc::new(Meter::new(clock.clone()));
    let gate = Arc::new(Gate::new(settings.limit, clock.clone()));
    let timed = Arc::new(Timeout::new(remote, settings.timeout));
    let measured = Arc::new(Measure::new(timed, meter.clone(), clock.clone()));
    let limited = Arc::new(Limit::new(measured, gate.clone()));
    let shared: Arc<dyn Remote> = Arc::new(Circuit::new(limited, clock.clone(), settings.circuit));
    let retry = |policy| Arc::new(Retry::new(shared.clone(), clock.clone(), chance.clone(), policy));
    Stack { foreground: retry(settings.foreground), background: retry(settings.background), meter, gate }
}

/// As [`stack`], for callers with one kind of call: the background's remote, and the meter.
pub fn wrap(
    remote: Arc<dyn Remote>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    settings: &Settings,
) -> (Arc<dyn Remote>, Arc<Meter>) {
    let stack = stack(remote, clock, chance, settings);
    (stack.background, stack.meter)
}
