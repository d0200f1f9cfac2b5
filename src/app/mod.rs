//! Puts the parts together and runs them: the keeper's and the worker's side of `fourwheel mount`, and what both answer.

mod check;
mod connect;
mod mounting;
mod parts;
mod pins;
mod service;
mod worker;

pub use mounting::hooks;
pub use parts::{Bound, DATABASE, Ground, Running, Start, power_lost};
pub use pins::Pins;
pub use worker::{is_first, listeners, runtime, serve};
