//! fourwheel mounts a person's cloud drive as a local directory. `doc` tells how; each room's front door tells the rest.

pub mod error;
pub mod fs;
pub mod keeper;
pub mod model;
pub mod remote;
pub mod sys;

/// See [`fs::buffers`]: a worker that is killed must not fail the request that it was just being handed.
#[global_allocator]
static ALLOCATOR: fs::buffers::TouchingAllocator = fs::buffers::TouchingAllocator;
