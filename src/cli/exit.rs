//! Exit codes: a contract with scripts, chosen here and nowhere else.

use crate::error::{Error, Kind};
use std::fmt::Write;

/// How a command ended. The numbers never change their meaning; `doc/cli.md` lists them.
///
/// Codes 2 to 63 tell the keeper that starting the worker again would fail the same way; 64 and above are the keeper's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotSaved = 3,
    Timeout = 4,
    Config = 5,
    MountPoint = 6,
    RemoteRefused = 7,
    InUse = 8,
    Newer = 9,
    Damaged = 10,
    RemoteUnreachable = 11,
    Machine = 12,
}

impl Exit {
    /// All, in the order of their numbers.
    pub const ALL: [Exit; 13] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotSaved,
        Exit::Timeout,
        Exit::Config,
        Exit::MountPoint,
        Exit::RemoteRefused,
        Exit::InUse,
        Exit::Newer,
        Exit::Damaged,
        Exit::RemoteUnreachable,
        Exit::Machine,
    ];

    /// The number for the shell.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in one line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done; for wait: everything is saved",
            Exit::Failed => "failed; the message says why",
            Exit::Usage => "the command line is wrong",
            Exit::NotSaved => "some files could not be saved; their names are on stderr",
            Exit::Timeout => "the time given by --timeout passed before everything was saved",
            Exit::Config => "the config file, the drive's name or a setting is wrong",
            Exit::MountPoint => "the directory cannot be mounted on, no drive is mounted there, or programs use it",
            Exit::RemoteRefused => "the remote refused: wrong address, unknown bucket or folder, or sign-in failed",
            Exit::InUse => "another process works with the drive's state directory",
            Exit::Newer => "the state directory was written by a newer version",
            Exit::Damaged => "the state directory is damaged, or check found something",
            Exit::RemoteUnreachable => "the remote cannot be reached now, and the drive was never mounted before",
            Exit::Machine => "something on this machine keeps the drive from starting: disk, rights, memory",
        }
    }

    /// The end that an error of a command stands for.
    pub const fn of(kind: Kind) -> Exit {
        match kind {
            Kind::Config => Exit::Config,
            Kind::MountPoint => Exit::MountPoint,
            Kind::InUse => Exit::InUse,
            Kind::Newer => Exit::Newer,
            Kind::Corrupt => Exit::Damaged,
            _ => Exit::Failed,
        }
    }

    /// The end that an error at the start of a worker stands for: never [`Exit::Failed`], which the keeper takes for a death.
    pub const fn of_start(error: &Error) -> Exit {
        match error.kind {
            Kind::SignIn
            | Kind::Denied
            | Kind::NotPermitted
            | Kind::NotFound
            | Kind::NotDirectory
            | Kind::Unsupported => Exit::RemoteRefused,
            Kind::Offline | Kind::TimedOut | Kind::Throttled | Kind::Unavailable => Exit::RemoteUnreachable,
            kind => match Exit::of(kind) {
                Exit::Failed => Exit::Machine,
                other => other,
            },
        }
    }
}

/// The codes that the keeper adds, with their meaning.
pub const KEEPERS: [(u8, &str); 3] = [
    (90, "the drive's worker died too often; the mount is gone, what was written is in the journal"),
    (91, "the worker had to be killed when the drive was stopped; what was written is in the journal"),
    (92, "mount --daemon: the drive did not answer in time and was stopped"),
];

/// The list for `--help`.
pub fn help() -> String {
    let mut out = String::from("Exit codes:\n");
    for (code, meaning) in codes() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {code:>2}  {meaning}");
    }
    out
}

/// The table for `doc/cli.md`.
pub fn table() -> String {
    let mut out = String::from("| code | meaning |\n|---|---|\n");
    for (code, meaning) in codes() {
        let _ = writeln!(out, "| {code} | {meaning} |");
    }
    out
}

fn codes() -> impl Iterator<Item = (u8, &'static str)> {
    Exit::ALL.into_iter().map(|exit| (exit.code(), exit.meaning())).chain(KEEPERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_cannot_start_never_looks_like_a_death() {
        for kind in [Kind::Disk, Kind::Offline, Kind::SignIn, Kind::Config, Kind::NoSpace, Kind::Invalid, Kind::InUse] {
            let code = Exit::of_start(&Error::new(kind, "x")).code();
            assert!((2..64).contains(&code), "{kind:?}");
        }
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() + 1 == pair[1].code()));
    }
}
