//! config show: the settings as they were understood.

use super::exit::Exit;
use super::say::{answer, talk};
use crate::config::{ConfigFile, Places, Wanted, configured, defaults, environment, resolve, settings_of, words};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `fourwheel config show`. Shows what can be shown, then tells what is wrong with the rest.
pub fn show(config: Option<&Path>, all_keys: bool, drive: Option<&str>, places: &Places) -> Result<Exit> {
    if all_keys {
        answer(&defaults())?;
        return Ok(Exit::Done);
    }
    if let Some(remote) = drive {
        answer(&settings_of(&resolve(&Wanted { remote, config, options: &[] }, places, &environment)?))?;
        return Ok(Exit::Done);
    }
    let path = config.map_or_else(|| places.config_file.clone(), |path| places.working.join(path));
    let file = ConfigFile::read(&path).map_err(|error| {
        Error::new(error.kind, format!("{error}; \"fourwheel config show --defaults\" lists what can stand in it"))
    })?;
    let (mut shown, mut problems) = (vec![format!("# {}\n", words::path(&path))], Vec::new());
    let mut states: BTreeMap<PathBuf, String> = BTreeMap::new();
    for name in file.names() {
        match configured(&file, name, places) {
            Ok(drive) => {
                if let Some(other) = states.insert(drive.state_dir.clone(), name.to_owned()) {
                    let why = format!("the drives \"{other}\" and \"{name}\" have one state_dir; give each its own");
                    problems.push(Error::new(Kind::Config, why));
                }
                shown.push(settings_of(&drive));
            }
            Err(error) => problems.push(error),
        }
    }
    answer(&shown.join("\n"))?;
    for problem in &problems {
        talk(problem);
    }
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Config })
}
