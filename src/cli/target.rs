//! From what a person typed to the mount that is meant.

use crate::config::units::human_bytes;
use crate::config::{Places, words};
use crate::control::{Client, Left, Mount, Presence, Record, known, records_dir, within};
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The mounts of this user, and where paths start.
pub struct Mounts {
    places: Places,
    all: Vec<Mount>,
}

impl Mounts {
    /// Asks the kernel and the records.
    pub fn find(places: Places) -> Result<Mounts> {
        let all = known(&records_dir(&places.state))?;
        Ok(Mounts { places, all })
    }

    /// Those that a command is about: `target` alone where one is given, else all that this user mounted.
    pub fn chosen(&self, target: Option<&Path>) -> Result<Vec<&Mount>> {
        match target {
            Some(target) => Ok(vec![self.named(target)?]),
            None => Ok(self.all.iter().filter(|mount| mount.record.is_some()).collect()),
        }
    }

    /// The mount at the directory `target`, or of the drive of that name. `MountPoint`: there is none.
    pub fn named(&self, target: &Path) -> Result<&Mount> {
        match self.holding(target) {
            Ok((mount, rest)) if rest.as_os_str().is_empty() => Ok(mount),
            Ok((mount, _)) => Err(Error::new(
                Kind::MountPoint,
                format!("{} lies within the mount {}; name that", words::path(target), words::path(&mount.mountpoint)),
            )),
            Err(error) => self.of_drive(target).ok_or(error),
        }
    }

    fn of_drive(&self, name: &Path) -> Option<&Mount> {
        let name = name.to_str()?;
        self.all.iter().find(|mount| mount.record.as_ref().is_some_and(|record| record.drive == name))
    }

    /// The mount that `path` lies in, and the path below it. `MountPoint`: there is none.
    pub fn holding(&self, path: &Path) -> Result<(&Mount, PathBuf)> {
        let lexical = self.places.absolute(&path.to_string_lossy(), &self.places.working);
        // As it stands first: asking the disk could mean asking a mount that does not answer. A path that is not UTF-8 was
        // changed by the lossy conversion and is taken as it is.
        let lexical = if path.to_str().is_some() { lexical } else { self.places.working.join(path) };
        if let Some(found) = within(&self.all, &lexical) {
            return Ok(found);
        }
        let real = lexical.canonicalize().ok();
        real.and_then(|real| within(&self.all, &real)).ok_or_else(|| {
            let path = words::path(path);
            Error::new(
                Kind::MountPoint,
                format!("no drive is mounted at {path}; \"fourwheel status\" lists the mounts"),
            )
        })
    }

    /// What drives keep that are not mounted.
    pub fn left(&self) -> Result<Vec<Left>> {
        Left::all(&self.records())
    }

    /// Where the records are.
    pub fn records(&self) -> PathBuf {
        records_dir(&self.places.state)
    }
}

/// Connects to the worker of `mount`, or says why there is none and what to do.
pub fn connect(mount: &Mount) -> Result<Client> {
    Client::connect(&record(mount)?.socket).map_err(|error| match error.kind {
        Kind::Offline => absent(mount),
        _ => error,
    })
}

/// What is known of the mount.
pub fn record(mount: &Mount) -> Result<&Record> {
    mount.record.as_ref().ok_or_else(|| {
        let at = words::path(&mount.mountpoint);
        Error::new(Kind::Denied, format!("the drive at {at} was mounted by another user; ask as that user"))
    })
}

/// What there is to say of a drive that is not mounted.
pub fn left_behind(left: &Left) -> String {
    format!(
        "the drive {} is not mounted and keeps {}, {}, that the remote does not have; mount it again to have them sent (they \
         are safe in {})",
        words::escape(&left.drive),
        words::count(left.files, "file"),
        human_bytes(left.bytes),
        words::path(&left.state_dir)
    )
}

/// The error for a mount whose worker does not run.
pub fn absent(mount: &Mount) -> Error {
    let at = words::path(&mount.mountpoint);
    let drive = mount.record.as_ref().map_or(String::new(), |record| words::escape(&record.drive));
    let why = match mount.presence {
        Presence::Mounted => format!(
            "the drive {drive} at {at} is mounted, but its process does not answer; \
             \"fourwheel unmount --force {at}\" frees the directory, then mount it again"
        ),
        Presence::Gone => format!(
            "the drive {drive} at {at} is no longer mounted: its process ended without a word. \
             Mount it again: what was written is in its journal (\"fourwheel unmount {at}\" forgets the mount)"
        ),
    };
    Error::new(Kind::Offline, why)
}
