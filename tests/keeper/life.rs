//! How a drive begins, goes wrong and ends.

use crate::Case;
use crate::rig::{Rig, alive, kill, wait_until};
use fourwheel::keeper::exit;
use fourwheel::keeper::mount_point::{self, MountPoint};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    ("sigterm_ends_a_busy_drive_cleanly", sigterm_ends_a_busy_drive_cleanly),
    ("pages_changed_through_mmap_are_written_before_the_end", pages_changed_through_mmap_are_written_before_the_end),
    ("a_worker_that_will_not_stop_is_killed", a_worker_that_will_not_stop_is_killed),
    ("a_hung_worker_does_not_hold_the_end_up", a_hung_worker_does_not_hold_the_end_up),
    ("a_second_sigterm_does_not_wait", a_second_sigterm_does_not_wait),
    ("an_unmount_from_outside_ends_the_keeper", an_unmount_from_outside_ends_the_keeper),
    ("a_killed_keeper_takes_its_worker_along", a_killed_keeper_takes_its_worker_along),
    ("five_deaths_in_a_minute_mean_safe_mode", five_deaths_in_a_minute_mean_safe_mode),
    ("a_worker_that_cannot_live_ends_the_mount", a_worker_that_cannot_live_ends_the_mount),
    ("a_worker_that_died_before_the_handshake_is_replaced", a_worker_that_died_before_the_handshake_is_replaced),
    ("a_refusal_to_start_is_passed_on", a_refusal_to_start_is_passed_on),
    ("a_worker_may_ask_for_its_successor", a_worker_may_ask_for_its_successor),
    ("daemon_mount_returns_when_the_drive_answers", daemon_mount_returns_when_the_drive_answers),
    ("daemon_mount_tells_why_it_could_not_start", daemon_mount_tells_why_it_could_not_start),
    ("daemon_mount_gives_up_in_time", daemon_mount_gives_up_in_time),
];

fn sigterm_ends_a_busy_drive_cleanly() {
    let rig = Rig::new();
    File::create(rig.tree("f")).unwrap();
    let drive = rig.start(&[]);
    let held = File::open(rig.mounted("f")).unwrap();
    kill(drive.keeper(), libc::SIGINT);
    let begun = Instant::now();
    assert_eq!(drive.end().code(), Some(0));
    assert_eq!(rig.control.read("stopped").as_deref(), Some("orphaned=false"));
    assert!(!rig.is_mounted());
    assert_eq!(held.metadata().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    println!("  stopped in {:?}", begun.elapsed());
}

fn pages_changed_through_mmap_are_written_before_the_end() {
    let rig = Rig::new();
    File::create(rig.tree("f")).unwrap().set_len(4096).unwrap();
    let drive = rig.start(&[]);
    let file = File::options().read(true).write(true).open(rig.mounted("f")).unwrap();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of an open file of 4096 bytes, used only while it lasts.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        at.cast::<[u8; 4]>().write(*b"mmap");
        drive.stop();
        libc::munmap(at, 4096);
    }
    assert_eq!(&std::fs::read(rig.tree("f")).unwrap()[..4], b"mmap");
}

fn a_worker_that_will_not_stop_is_killed() {
    let rig = Rig::new();
    rig.control.write("deaf", "");
    let drive = rig.start(&["stop=500"]);
    let held = File::open(&rig.mount_point).unwrap();
    let worker = rig.worker().unwrap().1;
    kill(drive.keeper(), libc::SIGTERM);
    let begun = Instant::now();
    assert_eq!(drive.end().code(), Some(exit::KILLED));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert!(!rig.is_mounted() && !alive(worker));
    drop(held);
}

fn a_hung_worker_does_not_hold_the_end_up() {
    let rig = Rig::new();
    File::create(rig.tree("f")).unwrap().set_len(4096).unwrap();
    let drive = rig.start(&["stop=300"]);
    let file = File::options().read(true).write(true).open(rig.mounted("f")).unwrap();
    let worker = rig.worker().unwrap().1;
    kill(worker, libc::SIGSTOP);
    wait_until("every thread of the worker stands", || stopped(worker));
    let asking = std::thread::spawn(move || file.metadata().map(|_| ()));
    let keeper = drive.keeper();
    kill(keeper, libc::SIGTERM);
    let begun = Instant::now();
    assert_eq!(drive.end().code(), Some(exit::KILLED));
    assert!(asking.join().unwrap().is_err());
    wait_until("nothing of it is left", || !rig.is_mounted());
    println!("  ended after {:?}, with an unmount and a program waiting for the worker", begun.elapsed());
}

/// Whether every thread of a process is stopped (proc(5), the state behind the name's last parenthesis).
fn stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

fn a_second_sigterm_does_not_wait() {
    let rig = Rig::new();
    rig.control.write("deaf", "");
    let drive = rig.start(&["stop=60000"]);
    let held = File::open(&rig.mount_point).unwrap();
    kill(drive.keeper(), libc::SIGTERM);
    wait_until("it is unmounted", || !rig.is_mounted());
    kill(drive.keeper(), libc::SIGTERM);
    assert_eq!(drive.end().code(), Some(exit::KILLED));
    drop(held);
}

fn an_unmount_from_outside_ends_the_keeper() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    assert!(Command::new("umount").arg(&rig.mount_point).status().unwrap().success());
    assert_eq!(drive.end().code(), Some(0));
    assert_eq!(rig.control.read("ended").as_deref(), Some("Ok(())"));
}

fn a_killed_keeper_takes_its_worker_along() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    let (generation, worker) = rig.worker().unwrap();
    kill(drive.keeper(), libc::SIGKILL);
    drive.end();
    wait_until("the worker is gone", || !alive(worker));
    assert_eq!(rig.control.read("stopped").as_deref(), Some("orphaned=true"));
    assert_eq!(mount_point::look(&rig.mount_point).unwrap(), MountPoint::Stale);
    assert_eq!(rig.mount_point.read_dir().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    rig.control.remove("worker");
    let mut again = rig.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the next keeper serves", || rig.worker().is_some());
    assert_eq!(generation, 1);
    assert_eq!(mount_point::look(&rig.mount_point).unwrap(), MountPoint::Mounted);
    let mounts = fourwheel::keeper::mountinfo::fourwheel().unwrap();
    assert_eq!(mounts.iter().filter(|entry| entry.mount_point == rig.mount_point).count(), 1);
    kill(again.id() as i32, libc::SIGTERM);
    assert!(again.wait().unwrap().success());
    let said = std::io::read_to_string(again.stderr.take().unwrap()).unwrap();
    assert!(said.contains("removed what a dead drive had left"), "{said}");
}

fn five_deaths_in_a_minute_mean_safe_mode() {
    let rig = Rig::new();
    File::create(rig.tree("f")).unwrap();
    let drive = rig.start(&[]);
    for n in 1..=5 {
        assert_eq!(rig.control.read("safe_mode").as_deref(), Some("None"), "after {} deaths", n - 1);
        drive.crash_worker();
    }
    let reason = rig.control.read("safe_mode").unwrap();
    assert!(reason.contains("5 times within 60 s") && reason.contains("signal 6"), "{reason}");
    assert_eq!(rig.control.read("deaths").as_deref(), Some("5"));
    assert!(rig.mounted("f").exists());
    println!("  {reason}");
    // The way back: a worker that was put right, and lived, asks for a successor.
    wait_until("it lived for a second", {
        let begun = Instant::now();
        move || begun.elapsed() > Duration::from_millis(1200)
    });
    let (generation, pid) = rig.worker().unwrap();
    kill(pid, libc::SIGUSR2);
    drive.worker_after(generation);
    assert_eq!(rig.control.read("safe_mode").as_deref(), Some("None"));
    drive.stop();
}

fn a_worker_that_cannot_live_ends_the_mount() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    rig.control.write("crash", "");
    kill(rig.worker().unwrap().1, libc::SIGKILL);
    let begun = Instant::now();
    // A program that asks meanwhile hangs until the keeper gives up, and no longer.
    let error = std::fs::read_dir(&rig.mount_point).map(|mut entries| entries.next().is_none());
    let waited = begun.elapsed();
    assert_eq!(drive.end().code(), Some(exit::GAVE_UP));
    assert!(!rig.is_mounted());
    println!("  gave up after {:?}; a program waited {waited:?} and got {error:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10));
}

fn a_worker_that_died_before_the_handshake_is_replaced() {
    let rig = Rig::new();
    rig.control.write("crash", "");
    rig.control.write("allow_first", "");
    let child = rig.command(&["window=0"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("three workers died", || {
        rig.control.read("deaths").is_some_and(|deaths| deaths.parse::<u64>().unwrap() >= 3)
    });
    rig.control.remove("crash");
    let drive = crate::rig::Drive { rig: &rig, child };
    let (generation, _) = drive.worker_after(0);
    assert!(generation > 3 && rig.mount_point.read_dir().unwrap().next().is_none());
    drive.stop();
}

fn a_refusal_to_start_is_passed_on() {
    let rig = Rig::new();
    rig.control.write("refuse", "12");
    let output = rig.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(12));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "fourwheel: the password is wrong\n");
    assert!(!rig.is_mounted());
}

fn a_worker_may_ask_for_its_successor() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    wait_until("it lived for a second", {
        let begun = Instant::now();
        move || begun.elapsed() > Duration::from_millis(1200)
    });
    kill(rig.worker().unwrap().1, libc::SIGUSR2);
    drive.worker_after(1);
    assert_eq!(rig.control.read("deaths").as_deref(), Some("0"));
    drive.stop();
}

fn daemon_mount_returns_when_the_drive_answers() {
    let rig = Rig::new();
    File::create(rig.tree("f")).unwrap();
    let begun = Instant::now();
    let output = rig.command(&["daemon=10000"]).output().unwrap();
    println!("  ready in {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(rig.mounted("f").exists());
    let keeper: i32 = rig.control.read("keeper").unwrap().parse().unwrap();
    kill(keeper, libc::SIGTERM);
    wait_until("the daemon is gone", || !alive(keeper));
    assert!(!rig.is_mounted());
    assert_eq!(rig.control.read("stopped").as_deref(), Some("orphaned=false"));
}

fn daemon_mount_tells_why_it_could_not_start() {
    let rig = Rig::new();
    rig.control.write("refuse", "13");
    let output = rig.command(&["daemon=10000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(13));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "fourwheel: the password is wrong\n");
    assert!(!rig.is_mounted());
}

fn daemon_mount_gives_up_in_time() {
    let rig = Rig::new();
    rig.control.write("never_ready", "");
    let output = rig.command(&["daemon=700"]).output().unwrap();
    assert_eq!(output.status.code(), Some(exit::NOT_READY));
    let mut said = std::io::stdout();
    writeln!(said, "  {}", String::from_utf8_lossy(&output.stderr).trim()).unwrap();
    wait_until("the daemon let go", || !rig.is_mounted());
    let keeper: i32 = rig.control.read("keeper").unwrap().parse().unwrap();
    wait_until("the daemon is gone", || !alive(keeper));
}
