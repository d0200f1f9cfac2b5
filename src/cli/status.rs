//! status: every mount at a glance, for people and for programs.

use super::exit::Exit;
use super::say::{answer, talk};
use super::target::{Mounts, connect, left_behind};
use crate::config::Places;
use crate::config::units::{human_bytes, human_duration};
use crate::config::words::{count, escape, path};
use crate::control::{Mount, Status, Time};
use crate::error::Result;
use crate::sys::{Clock, RealClock};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// How many of a list's entries people are shown.
const SHOWN_MAX: usize = 10;

/// `fourwheel status`. Fails where a mount could not be asked, after all others were shown.
pub fn status(target: Option<&Path>, as_json: bool, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let (mut answers, mut problems) = (Vec::new(), Vec::new());
    for mount in mounts.chosen(target)? {
        match connect(mount).and_then(|mut client| client.status()) {
            Ok(status) => answers.push(status),
            Err(error) => problems.push((mount, error)),
        }
    }
    let left = if target.is_none() { mounts.left()? } else { Vec::new() };
    if as_json {
        let problem = |(mount, error): &(&Mount, crate::error::Error)| {
            json!({
                "drive": mount.record.as_ref().map(|record| &record.drive),
                "mountpoint": mount.mountpoint.to_string_lossy(),
                "reason": error.message(),
            })
        };
        let problems: Vec<_> = problems.iter().map(problem).collect();
        let unmounted: Vec<_> = left
            .iter()
            .map(|left| json!({ "drive": left.drive, "state_dir": left.state_dir, "pending_files": left.files, "pending_bytes": left.bytes }))
            .collect();
        answer(&format!("{:#}\n", json!({ "mounts": answers, "problems": problems, "unmounted": unmounted })))?;
    } else if answers.is_empty() && problems.is_empty() {
        answer("nothing is mounted\n")?;
    } else {
        let now = RealClock.wall_ns();
        let texts: Vec<String> = answers.iter().map(|status| describe(status, Time(now))).collect();
        answer(&texts.join("\n"))?;
    }
    for (_, error) in &problems {
        talk(error);
    }
    if !as_json {
        for left in &left {
            talk(left_behind(left));
        }
    }
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Failed })
}

/// One mount for people. All names are made safe for a terminal.
fn describe(status: &Status, now: Time) -> String {
    let mut out = String::new();
    let online = if status.online { "online" } else { "offline" };
    let read_only = if status.read_only { ", read-only" } else { "" };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} at {}: {online}{read_only}", escape(&status.drive), escape(&status.mountpoint));
    let mut line = |text: String| {
        let _ = writeln!(out, "  {text}");
    };
    if let Some(reason) = &status.safe_mode {
        line(format!("safe mode, nothing is sent: {}", escape(reason)));
    }
    line(waiting(status));
    for upload in status.uploading.iter().take(SHOWN_MAX) {
        let (done, size) = (human_bytes(upload.done), human_bytes(upload.size));
        line(format!("sending {}: {done} of {size}", escape(&upload.path)));
    }
    for failed in status.failed.iter().take(SHOWN_MAX) {
        line(format!("not saved: {}: {}", escape(&failed.path), escape(&failed.reason)));
    }
    let more = status.failed_files.saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        line(format!("not saved: {more} more; \"fourwheel status --json\" lists them"));
    }
    if status.conflicts > 0 {
        line(format!("{}; \"fourwheel conflicts\" lists them", count(status.conflicts, "conflict")));
    }
    if status.local_only_files > 0 {
        line(format!("kept on this machine for their names (local_only): {}", count(status.local_only_files, "file")));
    }
    let (up, down) = (human_bytes(status.upload_bytes_per_s), human_bytes(status.download_bytes_per_s));
    line(format!("sending {up}/s, receiving {down}/s"));
    let (cache, journal) = (human_bytes(status.cache_bytes), human_bytes(status.journal_bytes));
    line(format!("cache {cache}, waiting files {journal}, of {}", human_bytes(status.cache_bytes_max)));
    if status.sweep.running {
        line(format!("reading the tree: {} entries so far", status.sweep.entries));
    }
    if let Some(saved) = status.last_saved {
        line(format!("last saved {}", ago(saved, now)));
    }
    if let Some(error) = &status.last_error {
        line(format!("last error {}: {}", ago(error.when, now), escape(&error.text)));
    }
    out
}

fn waiting(status: &Status) -> String {
    match (status.pending_files, status.failed_files) {
        (0, 0) => "everything is saved".into(),
        (0, failed) => format!("{} cannot be saved; all others are", count(failed, "file")),
        (files, failed) => {
            let failed = if failed == 0 { String::new() } else { format!(", {failed} more cannot be saved") };
            let offline = if status.online { "" } else { " for the remote" };
            let files = count(files, "file");
            format!("waiting{offline}: {files}, {}{failed}", human_bytes(status.pending_bytes))
        }
    }
}

fn ago(then: Time, now: Time) -> String {
    match u64::try_from(now.0 - then.0) {
        Ok(ns) => format!("{} ago", human_duration(Duration::from_nanos(ns))),
        // The clock was set back.
        Err(_) => then.to_string(),
    }
}

/// `fourwheel conflicts`.
pub fn conflicts(target: Option<&Path>, as_json: bool, places: &Places) -> Result<Exit> {
    let mounts = Mounts::find(places.clone())?;
    let mut all = Vec::new();
    for mount in mounts.chosen(target)? {
        let found = connect(mount)?.conflicts()?;
        all.extend(found.into_iter().map(|conflict| (mount.mountpoint.as_path(), conflict)));
    }
    if as_json {
        let rows: Vec<_> = all
            .iter()
            .map(|(mountpoint, conflict)| {
                let mountpoint = mountpoint.to_string_lossy();
                json!({ "mountpoint": mountpoint, "path": conflict.path, "copy": conflict.copy, "when": conflict.when })
            })
            .collect();
        answer(&format!("{:#}\n", json!({ "conflicts": rows })))?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (mountpoint, conflict) in &all {
        let (theirs, ours) = (path(&mountpoint.join(&conflict.path)), path(&mountpoint.join(&conflict.copy)));
        let _ = writeln!(text, "{}  {theirs}\n  written here: {ours}", conflict.when);
    }
    answer(if text.is_empty() { "no conflicts\n" } else { &text })?;
    if !all.is_empty() {
        talk("keep what you need of each copy and delete it; a copy that is gone is a conflict settled");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Failed, LastError, Upload};

    #[test]
    fn people_see_what_waits_and_no_name_steers_their_terminal() {
        let minute = 60_000_000_000;
        let status = Status {
            drive: "work".into(),
            mountpoint: "/home/u/Drive".into(),
            pending_files: 3,
            pending_bytes: 5 << 20,
            failed: vec![Failed { path: "a\u{1b}[2J".into(), reason: "the name is refused".into() }],
            failed_files: 1,
            conflicts: 2,
            uploading: vec![Upload { path: "b/c.iso".into(), done: 1 << 20, size: 4 << 20 }],
            cache_bytes: 1 << 30,
            cache_bytes_max: 20 << 30,
            last_saved: Some(Time(0)),
            last_error: Some(LastError { when: Time(9 * minute), text: "connection refused".into() }),
            ..Status::default()
        };
        let wanted = "work at /home/u/Drive: offline\n  waiting for the remote: 3 files, 5.00 MiB, 1 more cannot be saved\n  sending b/c.iso: 1.00 MiB of 4.00 MiB\n  not saved: a\\u{1b}[2J: the name is refused\n  2 conflicts; \
            \"fourwheel conflicts\" lists them\n  sending 0 B/s, receiving 0 B/s\n  cache 1.00 GiB, waiting files 0 B, of 20.0 \
            GiB\n  last saved 10 min 0 s ago\n  last error 1 min 0 s ago: connection refused\n";
        assert_eq!(describe(&status, Time(10 * minute)), wanted);
        let quiet = Status { online: true, ..Status::default() };
        assert!(describe(&quiet, Time(0)).contains("everything is saved"));
    }
}
