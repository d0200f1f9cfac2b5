//! Names of the mount and names of the remote, and the names of conflict copies.

use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Name};
use crate::remote::names::{decode, encode, is_link_name, link_name};
use crate::remote::{Capabilities, NameRules};

/// How an entry of the remote is shown.
pub(super) struct Shown {
    pub(super) name: Name,
    pub(super) kind: FileKind,
}

/// The mapping for one remote.
pub(super) struct Names {
    rules: NameRules,
    links: bool,
    host: String,
}

const LINK_SUFFIX: &str = ".rclonelink";

impl Names {
    pub(super) fn new(capabilities: &Capabilities, host: &str) -> Names {
        let host = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(40).collect();
        Names { rules: capabilities.names.clone(), links: capabilities.symlinks, host }
    }

    /// The name and kind that the mount shows for an entry `raw` of the remote. Always a name that Linux takes.
    pub(super) fn shown(&self, raw: &str, kind: FileKind) -> Shown {
        let (raw, kind) = match raw.strip_suffix(LINK_SUFFIX) {
            Some(stem) if !self.links && kind != FileKind::Directory && is_link_name(raw) && !stem.is_empty() => {
                (stem, FileKind::Symlink)
            }
            _ => (raw, kind),
        };
        let name = Name::new(&decode(raw, &self.rules)).unwrap_or_else(|_| {
            let safe: String = raw.chars().filter(|c| *c != '/' && *c != '\0').take(60).collect();
            let text = format!("unnamed {safe}");
            Name::new(text.as_bytes()).unwrap_or_else(|_| unreachable_name())
        });
        Shown { name, kind }
    }

    /// The remote's name for a name of the mount. `NameTooLong`, `NameRefused`.
    pub(super) fn raw(&self, name: &Name, kind: FileKind) -> Result<String> {
        let raw = encode(name.as_bytes(), &self.rules)?;
        let raw = if kind == FileKind::Symlink && !self.links { link_name(&raw) } else { raw };
        if raw.len() > self.rules.name_bytes_max {
            return Err(Error::new(Kind::NameTooLong, format!("\"{name}\" is too long for this remote")));
        }
        Ok(raw)
    }

    /// `name (conflict HOST DATE).ext`, or with a number where that is taken. DATE is UTC, to the second.
    pub(super) fn conflict_name(
        &self,
        name: &Name,
        now_ns: i64,
        mut taken: impl FnMut(&Name) -> Result<bool>,
    ) -> Result<Name> {
        let date = date_text(now_ns);
        for n in 1..1000 {
            let mark = match n {
                1 => format!(" (conflict {} {date})", self.host),
                n => format!(" (conflict {} {date} {n})", self.host),
            };
            let aside = with_mark(name, &mark)?;
            if !taken(&aside)? {
                return Ok(aside);
            }
        }
        Err(Error::new(Kind::Exists, format!("too many conflict copies of \"{name}\"")))
    }

    /// `name (2).ext`.
    pub(super) fn numbered(&self, name: &Name, n: u32) -> Result<Name> {
        with_mark(name, &format!(" ({n})"))
    }
}

fn unreachable_name() -> Name {
    Name::new(b"unnamed").unwrap_or_else(|_| std::process::abort())
}

/// Puts `mark` before the extension, shortening the stem so that the whole fits.
fn with_mark(name: &Name, mark: &str) -> Result<Name> {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && bytes.len() - at <= 16);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let room = crate::model::Name::bytes_max().saturating_sub(mark.len() + extension.len());
    let mut cut = stem.len().min(room);
    while cut < stem.len() && cut > 0 && stem[cut] & 0xC0 == 0x80 {
        cut -= 1;
    }
    Name::new(&[&stem[..cut], mark.as_bytes(), extension].concat())
}

/// `2026-11-24 22-15-03`, UTC.
fn date_text(now_ns: i64) -> String {
    let seconds = now_ns.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Civil date from days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}-{:02}-{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_marks() {
        assert_eq!(date_text(1_795_560_903_000_000_000), "2026-11-24 22-55-03");
        assert_eq!(date_text(951_782_400_000_000_000), "2000-02-29 00-00-00");
        let name = |s: &str| Name::new(s.as_bytes()).unwrap();
        assert_eq!(with_mark(&name("a.tar.gz"), " (2)").unwrap(), name("a.tar (2).gz"));
        assert_eq!(with_mark(&name(".bashrc"), " (2)").unwrap(), name(".bashrc (2)"));
        assert_eq!(with_mark(&name(&"ä".repeat(127)), " (2)").unwrap().as_bytes().len(), 254);
    }
}
