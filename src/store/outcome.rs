//! What was answered to a request that must not be done twice.
//!
//! The kernel sends a dead worker's open requests again. Those that change names cannot simply run twice (a second
//! `mkdir` would say EEXIST), so their outcome is kept, in their own transaction, under the request's number.

use crate::model::Ino;
use serde::{Deserialize, Serialize};

/// A request's number, and whether the kernel has sent it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The request's unique number without the mark of a repetition.
    pub request: u64,
    /// Whether it may have been done before.
    pub repeated: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// Done, and this inode was made.
    Made(u64),
}

impl Outcome {
    /// The inode that was made.
    pub fn ino(self) -> Option<Ino> {
        match self {
            Outcome::Done => None,
            Outcome::Made(raw) => Ino::new(raw),
        }
    }
}

/// A remembered failure is not kept: a failed request changed nothing and may run again.
pub type Fault = crate::error::Error;
