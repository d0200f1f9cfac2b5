//! The command line: reads what was typed, asks config, keeper or worker, prints the answer, ends with a code.
//!
//! Answers go to stdout, talk to stderr ([`say`]); exit codes are in [`Exit`] and nowhere else. What mounts and serves is
//! given by the app as [`Hooks`], so that nothing here knows the kernel, the store or a remote.

mod acts;
mod args;
mod exit;
pub mod logs;
mod mount;
mod reference;
pub mod say;
mod show;
mod status;
mod target;
mod wait;

pub use exit::Exit;
pub use mount::{KeepJob, WorkerJob};
pub use reference::reference;

use crate::config::{Drive, Places};
use crate::control::CheckReport;
use crate::error::Result;
use args::{Cli, Command, ConfigCommand};
use clap::Parser;
use std::path::Path;
use std::time::Duration;

/// What the command line cannot do itself.
pub struct Hooks {
    /// Mounts and keeps the drive alive. Returns the code for the shell: in the foreground when the drive has ended, as a
    /// daemon when it answers. The process has one thread, and the environment to pass on to the worker.
    pub keep: fn(KeepJob) -> Result<i32>,
    /// Serves the mount, from the state directory's lock to the orderly end. Logs to a file from where it knows which.
    pub worker: fn(WorkerJob) -> Result<()>,
    /// Looks over the state of a drive that is not mounted.
    pub check: fn(&Drive) -> Result<CheckReport>,
    /// Takes a mount away whose processes do not answer.
    pub unmount: fn(&Path) -> Result<()>,
}

/// Runs the command that the process was started with; returns the code for the shell.
pub fn run(hooks: &Hooks) -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, the rest to stderr with 2. Nobody to read it is no error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.code().into() } else { 0 };
        }
    };
    let is_worker = matches!(cli.command, Command::Worker { .. });
    // The keeper has no log, and the worker's is in a directory that it has to open first.
    if !matches!(cli.command, Command::Keep(_) | Command::Worker { .. }) {
        logs::to_stderr();
    }
    match dispatch(cli.command, cli.config.as_deref(), hooks) {
        Ok(code) => code,
        Err(error) => {
            // The keeper says what its worker died of, once.
            if !is_worker || std::env::var_os(crate::config::HAND_OVER).is_none() {
                say::talk(&error);
            }
            let exit = if is_worker { Exit::of_start(&error) } else { Exit::of(error.kind) };
            exit.code().into()
        }
    }
}

fn dispatch(command: Command, config: Option<&Path>, hooks: &Hooks) -> Result<i32> {
    let places = Places::of_process()?;
    let exit = match command {
        Command::Mount(args) => mount::mount(args, config, &places)?,
        Command::Unmount { dir, force } => mount::unmount(&dir, force, hooks, &places)?,
        Command::Status { json, dir } => status::status(dir.as_deref(), json, &places)?,
        Command::Wait { timeout, dir, .. } => wait::wait(dir.as_deref(), timeout, &places)?,
        Command::Sync { path } => acts::sync(&path, &places)?,
        Command::Conflicts { json, dir } => status::conflicts(dir.as_deref(), json, &places)?,
        Command::Pin { path } => acts::pin(&path, true, &places)?,
        Command::Unpin { path } => acts::pin(&path, false, &places)?,
        Command::Check { drive } => acts::check(drive.as_deref(), config, hooks, &places)?,
        Command::Log { lines, drive } => acts::log(drive.as_deref(), lines, config, &places)?,
        Command::Config(ConfigCommand::Show { defaults, drive }) => {
            show::show(config, defaults, drive.as_deref(), &places)?
        }
        Command::Keep(args) => return mount::keep(args, hooks),
        Command::Worker { dir } => {
            mount::worker(dir, hooks, &places)?;
            Exit::Done
        }
    };
    Ok(exit.code().into())
}

/// Waits. Only commands of a person may: a blocked thread of a worker is a blocked drive.
#[allow(clippy::disallowed_methods, reason = "a command has one thread and nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
