//! fourwheel mounts a person's cloud drive as a local directory. `doc` tells how; each room's front door tells the rest.

pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod drive;
pub mod error;
pub mod events;
pub mod fetch;
pub mod fs;
pub mod journal;
pub mod keeper;
pub mod model;
pub mod remote;
pub mod space;
pub mod store;
pub mod sync;
pub mod sys;

/// See [`fs::buffers`]: a worker that is killed must not fail the request that it was just being handed.
#[global_allocator]
static ALLOCATOR: fs::buffers::TouchingAllocator = fs::buffers::TouchingAllocator;
