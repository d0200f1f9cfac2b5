//! `fallocate`.

use super::{Answer, Drive};
use crate::error::{Error, Kind};
use crate::model::Ino;

impl Drive {
    /// Reserves or gives back a range (fallocate(2)). Modes: 0, KEEP_SIZE, PUNCH_HOLE with KEEP_SIZE, ZERO_RANGE with or
    /// without KEEP_SIZE; others are `Unsupported`.
    pub fn fallocate(&self, ino: Ino, offset: u64, len: u64, mode: i32) -> Answer<()> {
        if let Err(e) = self.writable() {
            return Answer::Now(Err(e));
        }
        let Some(end) = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64) else {
            return Answer::Now(Err(Error::new(Kind::TooLarge, "the range ends behind the largest offset")));
        };
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let zero = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => false,
            libc::FALLOC_FL_PUNCH_HOLE if keep => true,
            libc::FALLOC_FL_ZERO_RANGE => true,
            _ => return Answer::Now(Err(Error::new(Kind::Unsupported, format!("fallocate mode {mode}")))),
        };
        self.with_space(ino, 0, move |staged| {
            let (size, _) = staged.size_and_mtime();
            if zero {
                staged.punch(offset..end)?;
            }
            // Space is promised by the bound at each write; a reservation that other writers cannot use is not kept.
            if !keep && end > size { staged.truncate(end) } else { Ok(()) }
        })
    }
}
