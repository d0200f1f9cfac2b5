//! The commands as the documentation lists them, from the definitions that also read the command line.

use super::args::Cli;
use super::exit;
use clap::{Command, CommandFactory};
use std::fmt::Write;

/// The generated part of `doc/cli.md`: each command with its arguments, then the exit codes.
pub fn reference() -> String {
    let mut out = String::new();
    let mut root = Cli::command();
    root.build();
    for command in root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        describe(command, &mut out);
    }
    out + "## Exit codes\n\n" + &exit::table()
}

fn describe(command: &Command, out: &mut String) {
    let inner: Vec<&Command> = command.get_subcommands().filter(|inner| inner.get_name() != "help").collect();
    for inner in &inner {
        describe(inner, out);
    }
    if !inner.is_empty() {
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(out, "### `{usage}`\n\n{about}.\n\n");
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "- `{argument}`: {help}.");
    }
    out.push('\n');
}
