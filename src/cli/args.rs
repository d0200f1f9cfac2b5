//! The command line: what there is to type. What it does is in the other files.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Mounts a cloud drive as a local directory; nothing that was acknowledged is ever lost.
#[derive(Debug, Parser)]
#[command(name = "fourwheel", version, after_help = super::exit::help(), max_term_width = 100)]
pub struct Cli {
    /// The config file, instead of ~/.config/fourwheel/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mounts a drive on a directory, until it is unmounted or the command is ended
    Mount(MountArgs),
    /// Ends a mount that nobody uses; what waits is sent for some seconds, the rest stays safe in the state directory
    #[command(visible_alias = "umount")]
    Unmount {
        /// The mount point, or the drive's name
        dir: PathBuf,
        /// Takes the mount away even if programs use it, or its own processes do not answer
        #[arg(long)]
        force: bool,
    },
    /// Shows the mounts: what waits, what failed, rates, cache
    Status {
        /// Prints one JSON object for programs
        #[arg(long)]
        json: bool,
        /// One mount only: its mount point or the drive's name
        dir: Option<PathBuf>,
    },
    /// Waits until the remote has everything: "may I switch off?"
    Wait {
        /// Waits until every file is saved on the remote (the only thing to wait for now)
        #[arg(long, required = true)]
        saved: bool,
        /// Gives up after so many seconds, with exit code 4
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        timeout: Option<std::time::Duration>,
        /// One mount only: its mount point or the drive's name
        dir: Option<PathBuf>,
    },
    /// Sends a file or folder now and looks for changes on the remote; returns when both are done
    Sync {
        /// A path on a mount
        path: PathBuf,
    },
    /// Lists files that were changed here and on the remote; both versions are kept
    Conflicts {
        /// Prints one JSON object for programs
        #[arg(long)]
        json: bool,
        /// One mount only: its mount point or the drive's name
        dir: Option<PathBuf>,
    },
    /// Keeps a file or folder on this machine, also for offline use
    Pin {
        /// A path on a mount
        path: PathBuf,
    },
    /// Takes a pin back
    Unpin {
        /// A path on a mount
        path: PathBuf,
    },
    /// Looks a drive's state and cache over for damage
    Check {
        /// The drive's name or its mount point; all mounts if left out
        drive: Option<PathBuf>,
    },
    /// Prints the end of a drive's log
    Log {
        /// How many lines
        #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50)]
        lines: usize,
        /// The drive's name or its mount point; may be left out while one drive is mounted
        drive: Option<PathBuf>,
    },
    /// Shows the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Owns a mount; started by mount
    #[command(hide = true)]
    Keep(KeepArgs),
    /// Serves a mount; started by the keeper
    #[command(hide = true)]
    Worker { dir: PathBuf },
}

#[derive(Debug, Args)]
pub struct MountArgs {
    /// NAME[:PATH] of the config file, rclone:NAME[:PATH], or in place: folder:/path, webdav:https://USER:PASSWORD@HOST/PATH/, s3:BUCKET/PREFIX
    #[arg(value_name = "REMOTE[:PATH]")]
    pub remote: String,
    /// An empty directory
    pub dir: PathBuf,
    /// Goes into the background once the mount answers
    #[arg(long)]
    pub daemon: bool,
    /// Settings that win over the config file: KEY=VALUE, ro, rw; separated by commas
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Refuses every change
    #[arg(long)]
    pub read_only: bool,
    /// Lets other users of this machine enter the mount
    #[arg(long)]
    pub allow_other: bool,
    /// Mounts over a directory that is not empty and hides what is in it
    #[arg(long)]
    pub non_empty: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints the drives with all their settings; secrets as ***
    Show {
        /// Prints every key with its unit and default instead
        #[arg(long, conflicts_with = "drive")]
        defaults: bool,
        /// One drive only
        drive: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct KeepArgs {
    pub dir: PathBuf,
    #[arg(long)]
    pub daemon: bool,
    #[arg(long)]
    pub non_empty: bool,
}

impl KeepArgs {
    /// The words that make these arguments again.
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["keep".into()];
        if self.daemon {
            words.push("--daemon".into());
        }
        if self.non_empty {
            words.push("--non-empty".into());
        }
        // A mount point may begin with a dash.
        words.push("--".into());
        words.push(self.dir.clone().into());
        words
    }
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    crate::config::units::parse_seconds(text)
}
