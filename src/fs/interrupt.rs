//! Whether somebody who waits is to be ended or interrupted by a signal.
//!
//! `fuser` 0.18 refuses FUSE_INTERRUPT, so a request that waits looks at its caller instead: signals that are pending, not
//! blocked and not ignored (proc(5), `/proc/TID/status`: SigPnd, ShdPnd, SigBlk, SigIgn).

use std::time::Duration;

/// How often a waiting request looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until a signal is pending for the thread `tid`, or the thread is gone.
pub(super) async fn interrupted(tid: u32) {
    // Requests of the kernel itself (read-ahead, write-back) have no caller.
    if tid == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match status(tid) {
            Some(status) if !is_interrupted(&status) => {}
            _ => return,
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "procfs is no disk")]
fn status(tid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{tid}/status")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_interrupted(status: &str) -> bool {
    let set = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    // SIGCHLD, SIGCONT, SIGURG and SIGWINCH are ignored by default and interrupt nobody who did not ask for them.
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let harmless = harmless.iter().fold(0, |bits, signal| bits | 1u64 << (signal - 1)) & !set("SigCgt:");
    (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & !set("SigIgn:") & !harmless != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_ignored_and_harmless_signals_interrupt_nobody() {
        let status = |pnd: &str, blk: &str, ign: &str, cgt: &str| {
            format!(
                "Name:\tcat\nSigPnd:\t{pnd}\nShdPnd:\t0000000000000000\nSigBlk:\t{blk}\nSigIgn:\t{ign}\nSigCgt:\t{cgt}\n"
            )
        };
        let (none, int, child) = ("0000000000000000", "0000000000000002", "0000000000010000");
        assert!(is_interrupted(&status(int, none, none, none)));
        assert!(!is_interrupted(&status(int, int, none, none)));
        assert!(!is_interrupted(&status(int, none, int, none)));
        assert!(!is_interrupted(&status(child, none, none, none)));
        assert!(is_interrupted(&status(child, none, none, child)));
    }
}
