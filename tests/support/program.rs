//! Real programs, run with a clean environment and a limit.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Longest run of one program; a hung mount then fails one test, not the whole suite.
const LIMIT_S: &str = "240";

/// A program that starts in `folder` with an environment that no machine's settings reach.
pub fn program<S: AsRef<OsStr>>(folder: &Path, name: &str, arguments: &[S]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_S, name]).args(arguments).current_dir(folder);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (key, value) in [
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C.UTF-8"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_COMMITTER_NAME", "A"),
        ("GIT_COMMITTER_EMAIL", "a@example.org"),
    ] {
        command.env(key, value);
    }
    command
}

/// Runs a program to its end and gives its output; panics with everything it said when it fails.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(folder: &Path, name: &str, arguments: &[S]) -> String {
    let output = attempt(folder, name, arguments);
    let shown: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    assert!(
        output.status.success(),
        "{name} {} ended with {}\n{}{}",
        shown.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end, whatever it says.
#[track_caller]
pub fn attempt<S: AsRef<OsStr>>(folder: &Path, name: &str, arguments: &[S]) -> Output {
    program(folder, name, arguments).output().unwrap_or_else(|e| panic!("start {name}: {e}; scripts/setup installs it"))
}

/// Runs a shell script, `$1` and on are `arguments`.
#[track_caller]
pub fn shell<S: AsRef<OsStr>>(folder: &Path, script: &str, arguments: &[S]) -> String {
    let mut words: Vec<&OsStr> = ["-euc", script, "sh"].into_iter().map(OsStr::new).collect();
    words.extend(arguments.iter().map(AsRef::as_ref));
    run(folder, "sh", &words)
}
