//! The commands that ask one worker for one thing: sync, pin, unpin, check, log.

use super::Hooks;
use super::exit::Exit;
use super::logs::tail;
use super::say::{answer, talk};
use super::target::{Mounts, connect, record};
use crate::config::units::human_bytes;
use crate::config::{self, Drive, Places, Wanted, environment, words};
use crate::control::CheckReport;
use crate::error::{Error, Kind, Result};
use std::fmt::Write;
use std::path::Path;

/// `fourwheel sync`.
pub fn sync(path: &Path, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let (mount, below) = mounts.holding(path)?;
    connect(mount)?.sync(&below).map_err(|error| error.context(format!("sync {}", words::path(path))))?;
    Ok(Exit::Done)
}

/// `fourwheel pin` and `unpin`.
pub fn pin(path: &Path, keep: bool, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let (mount, below) = mounts.holding(path)?;
    let mut client = connect(mount)?;
    let (word, result) = if keep { ("pin", client.pin(&below)) } else { ("unpin", client.unpin(&below)) };
    let shown = words::path(path);
    let pinned = result.map_err(|error| error.context(format!("{word} {shown}")))?;
    let fetch = match pinned.missing_bytes {
        0 => String::new(),
        bytes => format!("; {} are being fetched", human_bytes(bytes)),
    };
    talk(format_args!("{word}ned {shown}, {}{fetch}", words::count(pinned.files, "file")));
    Ok(Exit::Done)
}

/// `fourwheel check`: through the worker where the drive is mounted, else on the state directory itself.
pub fn check(target: Option<&Path>, file: Option<&Path>, hooks: &Hooks, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let mut reports: Vec<(String, CheckReport)> = Vec::new();
    match target {
        None => {
            for mount in mounts.chosen(None)? {
                reports.push((words::path(&mount.mountpoint), connect(mount)?.check()?));
            }
        }
        Some(target) => {
            let report = match mounts.named(target) {
                Ok(mount) => connect(mount)?.check()?,
                Err(error) => (hooks.check)(&unmounted(target, file, places, error)?)?,
            };
            reports.push((words::path(target), report));
        }
    }
    if reports.is_empty() {
        return Err(Error::new(Kind::MountPoint, "nothing is mounted; name a drive: fourwheel check DRIVE"));
    }
    let mut text = String::new();
    let mut problems = 0;
    for (name, report) in &reports {
        let checked: Vec<String> = report.checked.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let verdict = if report.problems.is_empty() { "nothing wrong" } else { "problems found" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {verdict} ({})", checked.join(", "));
        for problem in &report.problems {
            let _ = writeln!(text, "  {}", words::escape(problem));
        }
        problems += report.problems.len();
    }
    answer(&text)?;
    Ok(if problems == 0 { Exit::Done } else { Exit::Damaged })
}

/// `fourwheel log`: reads the file, so that it works when the worker is dead.
pub fn log(target: Option<&Path>, lines: usize, file: Option<&Path>, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let state_dir = match (target, mounts.chosen(None)?.as_slice()) {
        (Some(target), _) => match mounts.named(target) {
            Ok(mount) => record(mount)?.state_dir.clone(),
            Err(error) => unmounted(target, file, places, error)?.state_dir,
        },
        (None, [only]) => record(only)?.state_dir.clone(),
        (None, []) => {
            return Err(Error::new(Kind::MountPoint, "nothing is mounted; name a drive: fourwheel log DRIVE"));
        }
        (None, _) => {
            return Err(Error::new(Kind::MountPoint, "more than one drive is mounted; name one: fourwheel log DIR"));
        }
    };
    let lines = tail(&state_dir.join("log"), lines)?;
    let text: String = lines.iter().map(|line| words::escape(line) + "\n").collect();
    if text.is_empty() {
        talk(format_args!("there is no log in {} yet", words::path(&state_dir)));
    }
    answer(&text)?;
    Ok(Exit::Done)
}

/// The drive that `target` names though it is not mounted. A path gets the error about mounts, not one about names.
fn unmounted(target: &Path, file: Option<&Path>, places: &Places, no_mount: Error) -> Result<Drive> {
    match target.to_str() {
        Some(name) if !name.starts_with(['/', '.', '~']) => {
            let wanted = Wanted { remote: name, config: file, options: &[] };
            config::resolve(&wanted, places, &environment)
        }
        _ => Err(no_mount),
    }
}
