//! Puts the parts together and runs them: one worker for one mounted drive.

mod parts;

pub use parts::{Bound, DATABASE, Ground, Running, Start, pinned, power_lost};
