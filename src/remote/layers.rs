//! Puts the layers around a provider in their order.

use super::{Measure, Meter, Remote};
use crate::sys::{Chance, Clock};
use std::sync::Arc;

/// What the layers of one account are made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {}

/// Puts every layer around `remote`, one stack an account; its meter comes along.
pub fn wrap(
    remote: Arc<dyn Remote>,
    clock: Arc<dyn Clock>,
    _chance: Arc<dyn Chance>,
    _settings: &Settings,
) -> (Arc<dyn Remote>, Arc<Meter>) {
    let meter = Arc::new(Meter::new(clock.clone()));
    let measure = Measure::new(remote, meter.clone(), clock);
    (Arc::new(measure), meter)
}
