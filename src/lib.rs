//! fourwheel mounts a person's cloud drive as a local directory. `doc` tells how; each room's front door tells the rest.

pub mod error;
pub mod fs;
pub mod keeper;
pub mod model;
pub mod remote;
pub mod sys;
