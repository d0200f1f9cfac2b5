//! Processes by their ids: who is whose child, and their end.

use std::path::Path;

/// The children of `pid`, the youngest last.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found: Vec<u32> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .collect();
    found.sort_unstable();
    found
}

/// Sends a signal; a process that has gone is no error.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill has no memory effects; the ids come from processes that this test started.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Whether the process exists and is no zombie.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|text| {
        !matches!(text.rsplit(')').next().and_then(|rest| rest.trim().chars().next()), Some('Z' | 'X'))
    })
}
