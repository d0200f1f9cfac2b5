//! fourwheel mounts a person's cloud drive as a local directory. `doc` tells how; each room's front door tells the rest.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod model;
pub mod remote;
pub mod sys;
