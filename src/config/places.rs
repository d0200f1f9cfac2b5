//! Where things are kept when the config file does not say.

use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment, as a function, so that a test can have its own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's environment; empty values count as not set (XDG Base Directory Specification 0.8, "Environment variables").
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The base directories of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `$XDG_CONFIG_HOME/fourwheel/config.toml`.
    pub config_file: PathBuf,
    /// `$XDG_STATE_HOME/fourwheel`.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/fourwheel`.
    pub cache: PathBuf,
    pub home: PathBuf,
    /// The directory that relative paths of the command line start from.
    pub working: PathBuf,
}

impl Places {
    /// Asks the environment. Relative XDG values are ignored, as the specification says. `Config`: HOME is not set.
    pub fn new(environment: Environment, working: PathBuf) -> Result<Places> {
        let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let Some(home) = absolute("HOME") else {
            return Err(Error::new(
                Kind::Config,
                "the environment variable HOME is not set to a directory; set it, for example HOME=/root",
            ));
        };
        let base = |name: &str, below: &str| absolute(name).unwrap_or_else(|| home.join(below)).join("fourwheel");
        Ok(Places {
            config_file: base("XDG_CONFIG_HOME", ".config").join("config.toml"),
            state: base("XDG_STATE_HOME", ".local/state"),
            cache: base("XDG_CACHE_HOME", ".cache"),
            home,
            working,
        })
    }

    /// Asks the process's environment and working directory.
    pub fn of_process() -> Result<Places> {
        let working = std::env::current_dir().map_err(|e| Error::disk("find the current directory", &e))?;
        // A service has no HOME; the user database knows it then.
        let home = |name: &str| if name == "HOME" { std::env::home_dir().map(PathBuf::into_os_string) } else { None };
        Places::new(&|name| environment(name).or_else(|| home(name)), working)
    }

    /// Makes `path` absolute: `~/` is the home, anything relative starts at `base`. Does not touch the disk.
    pub fn absolute(&self, path: &str, base: &Path) -> PathBuf {
        let joined = match path.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None if path == "~" => self.home.clone(),
            None => base.join(path),
        };
        normal(&joined)
    }
}

/// Takes `.` and doubled slashes out, and `..` as far as that needs no disk (`a/..` goes; right unless `a` is a link).
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_comes_first_unless_it_is_relative() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_STATE_HOME" => Some("/s".into()),
            "XDG_CACHE_HOME" => Some("relative".into()),
            _ => None,
        };
        let places = Places::new(&env, "/w".into()).unwrap();
        assert_eq!(places.state, Path::new("/s/fourwheel"));
        assert_eq!(places.cache, Path::new("/home/u/.cache/fourwheel"));
        assert_eq!(places.config_file, Path::new("/home/u/.config/fourwheel/config.toml"));
        assert_eq!(places.absolute("~/a/./b//c", Path::new("/x")), Path::new("/home/u/a/b/c"));
        assert_eq!(places.absolute("../d", Path::new("/x/y")), Path::new("/x/d"));
        assert_eq!(Places::new(&|_| None, "/w".into()).unwrap_err().kind, Kind::Config);
    }
}
