//! A password, given or asked for.

use super::secret::{self, Secret};
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a password command may take; enough to type a passphrase into a dialog.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The most that is read from a password command, bytes.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Password {
    Given(#[serde(serialize_with = "secret::expose")] Secret),
    /// A command for `sh -c`; the first line that it prints is the password.
    Command(String),
}

impl Password {
    /// The password. Blocks up to 30 seconds where a command is asked. `Config`: the command failed or printed nothing.
    pub fn get(&self) -> Result<Secret> {
        match self {
            Password::Given(secret) => Ok(secret.clone()),
            Password::Command(command) => ask(command, COMMAND_TIMEOUT),
        }
    }
}

fn ask(command: &str, timeout: Duration) -> Result<Secret> {
    let refuse = |why: String| Error::new(Kind::Config, format!("password_command: {why}"));
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env_remove(super::HAND_OVER)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| refuse(format!("start /bin/sh: {e}")))?;
    let Some(stdout) = child.stdout.take() else { return Err(refuse("its output was not piped".into())) };
    let (to, from) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let result = stdout.take(COMMAND_BYTES_MAX).read_to_end(&mut text).map(|_| text);
        // The receiver is gone after the timeout; nobody wants the answer then.
        let _ = to.send(result);
    });
    let Ok(read) = from.recv_timeout(timeout) else {
        // With all that it started: a pipe held open by one of those would keep the reader waiting.
        if let Ok(group) = i32::try_from(child.id()) {
            // SAFETY: kill(2) touches no memory; the group is the child's own, and the child has not been waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = child.wait();
        return Err(refuse(format!("gave no answer in {} seconds", timeout.as_secs())));
    };
    let text = read.map_err(|e| refuse(format!("read its output: {e}")))?;
    let status = child.wait().map_err(|e| refuse(format!("wait for it: {e}")))?;
    if !status.success() {
        return Err(refuse(format!("ended with {status}; run it by hand to see why")));
    }
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(line) if !line.trim_end_matches('\r').is_empty() => Ok(Secret::new(line.trim_end_matches('\r'))),
        Ok(_) => Err(refuse("printed an empty first line".into())),
        Err(_) => Err(refuse("printed what is not UTF-8".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password_and_failures_are_named() {
        assert_eq!(ask("echo 'a b'; echo more", COMMAND_TIMEOUT).unwrap().expose(), "a b");
        for (command, why) in [("exit 3", "exit status: 3"), ("true", "empty first line"), ("printf '\\377'", "UTF-8")]
        {
            let error = ask(command, COMMAND_TIMEOUT).unwrap_err();
            assert!(error.message().contains(why), "{error}");
        }
        assert!(ask("sleep 60; true", Duration::from_millis(50)).unwrap_err().message().contains("no answer"));
    }
}
