//! Converts between fuser and the drive, answers exactly once, decides nothing.

pub mod buffers;
pub mod session;
