//! `statfs`: the provider's numbers, as last heard; never asked for here.

use super::Drive;
use crate::model::Quota;

/// Shown where the provider gives no quota: 1 PiB.
const UNKNOWN_TOTAL: u64 = 1 << 50;

/// What `df` shows, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    pub total: u64,
    pub free: u64,
    pub files: u64,
}

/// The key of the fact under which `sync` keeps the quota: `used available`, `-` for what is unknown.
pub const QUOTA_FACT: &str = "quota";

/// The text of that fact.
pub fn quota_text(quota: &Quota) -> String {
    let one = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    format!("{} {}", one(quota.used_bytes), one(quota.available_bytes))
}

fn quota_of(text: &str) -> Quota {
    let mut parts = text.split(' ').map(|part| part.parse::<u64>().ok());
    Quota { used_bytes: parts.next().flatten(), available_bytes: parts.next().flatten() }
}

impl Drive {
    /// The size of the drive.
    pub fn statfs(&self) -> crate::error::Result<Statfs> {
        let (quota, (files, stored)) = self.store().read(|rows| {
            let quota = rows.fact(QUOTA_FACT)?.map(|text| quota_of(&text)).unwrap_or_default();
            Ok((quota, rows.totals()?))
        })?;
        let used = quota.used_bytes.unwrap_or(stored);
        let free = quota.available_bytes.unwrap_or(UNKNOWN_TOTAL.saturating_sub(used));
        Ok(Statfs { total: used.saturating_add(free), free, files })
    }
}
