//! `statfs`: the provider's numbers, as last heard; never asked for here.

use super::Drive;
use crate::model::{QUOTA_FACT, Quota};

/// Shown where the provider gives no quota: 1 PiB.
const UNKNOWN_TOTAL: u64 = 1 << 50;

/// What `df` shows, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    pub total: u64,
    pub free: u64,
    pub files: u64,
}

impl Drive {
    /// The size of the drive.
    pub fn statfs(&self) -> crate::error::Result<Statfs> {
        let (quota, (files, stored)) = self.store().read(|rows| {
            let quota = rows.fact(QUOTA_FACT)?.map(|text| Quota::parse(&text)).unwrap_or_default();
            Ok((quota, rows.totals()?))
        })?;
        let used = quota.used_bytes.unwrap_or(stored);
        let free = quota.available_bytes.unwrap_or(UNKNOWN_TOTAL.saturating_sub(used));
        Ok(Statfs { total: used.saturating_add(free), free, files })
    }
}
