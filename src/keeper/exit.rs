//! What the exit codes between keeper and worker mean. The command line's own codes live below [`CANNOT_START`]'s end.

use std::ops::RangeInclusive;

/// The worker ended as it was asked to, or the mount went away: the keeper unmounts and ends with 0.
pub const CLEAN: i32 = 0;

/// The worker cannot start and a second try would fail the same way (bad settings, not signed in, wrong usage). Before any
/// worker was ready the keeper unmounts and passes the code on. Afterwards it counts as a death like any other: the
/// mount is in use, and the settings may be put right.
///
/// 1 is left out because it is what everything else says without thinking; 101 is what a panic gives.
pub const CANNOT_START: RangeInclusive<i32> = 2..=63;

/// The worker asks to be replaced by a fresh one (an upgrade, settings read anew). No death, if it had been ready for
/// [`REPLACE_EVERY`](super::decide::REPLACE_EVERY) at least.
pub const REPLACE_ME: i32 = 85;

/// From the keeper: the worker died too often, in safe mode too. The mount is gone.
pub const GAVE_UP: i32 = 90;

/// From the keeper: asked to stop, but the worker had to be killed, or died, before it said that it was done. What
/// programs wrote is in the journal; the mount is gone.
pub const KILLED: i32 = 91;

/// From the process that waits for a daemon: not ready in time, and stopped.
pub const NOT_READY: i32 = 92;
