//! Puts the parts together and runs them: one worker for one mounted drive.

mod parts;
mod worker;

pub use parts::{Bound, DATABASE, Ground, Running, Start, pinned, power_lost};
pub use worker::{is_first, listeners, runtime, serve};
