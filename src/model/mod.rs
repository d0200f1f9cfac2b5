//! The field's words as types. No I/O, no async, no clock.

mod entry;
mod ino;
mod name;
mod path;
mod ranges;
mod version;

pub use entry::{Entry, FileKind, Meta, QUOTA_FACT, Quota};
pub use ino::Ino;
pub use name::Name;
pub use path::RemotePath;
pub use ranges::RangeSet;
pub use version::{Hash, HashKind, Version};
