//! What the tests on a real mount stand on: a drive in a directory that vanishes, the real binary, real programs.
//!
//! With `FOURWHEEL_FAKE=1` a drive is a bind mount of its remote's directory, to debug the tests themselves without the
//! program. Such a run never passes as a whole: see [`drive::fake`].
#![allow(dead_code, reason = "each test target uses another part")]
#![allow(clippy::disallowed_methods, reason = "tests live on the real clock and disk")]

pub mod drive;
pub mod netlab;
pub mod posix;
pub mod process;
pub mod program;
pub mod wait;

pub use drive::{Drive, Mount};
pub use program::run;
pub use wait::wait_for;
