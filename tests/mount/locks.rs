//! Locks between processes: flock, and fcntl as Python and SQLite use it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::on_a_mount;

/// A process that takes a lock, says `locked`, and keeps it until its stdin ends.
struct Holder(Child);

impl Holder {
    fn start(script: &str, path: &Path) -> Holder {
        let keep = "\nprint('locked', flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", &format!("import fcntl, os, sys\n{script}{keep}")])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it speaks");
        assert_eq!(line, "locked\n");
        Holder(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("our child").success());
    }
}

/// Tries a lock without waiting, in another process.
fn free(script: &str, path: &Path) -> bool {
    let status = Command::new("python3")
        .args(["-c", &format!("import fcntl, os, sys\n{script}")])
        .arg(path)
        .stderr(Stdio::null())
        .status()
        .expect("python3 is installed");
    status.success()
}

#[test]
fn flock_excludes_another_process() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("lock"), "").unwrap();
        let try_it = "f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
        let holder = Holder::start(try_it, &mount.at("lock"));
        assert!(!free(try_it, &mount.at("lock")));
        holder.end();
        assert!(free(try_it, &mount.at("lock")));
    });
}

#[test]
fn fcntl_locks_exclude_where_ranges_meet() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("lock"), [0; 100]).unwrap();
        let range = |kind: &str, start: u32| {
            format!("f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.{kind} | fcntl.LOCK_NB, 10, {start})")
        };
        let holder = Holder::start(&range("LOCK_EX", 20), &mount.at("lock"));
        assert!(!free(&range("LOCK_EX", 15), &mount.at("lock")));
        assert!(!free(&range("LOCK_SH", 29), &mount.at("lock")));
        assert!(free(&range("LOCK_EX", 30), &mount.at("lock")));
        holder.end();
        let holder = Holder::start(&range("LOCK_SH", 0), &mount.at("lock"));
        assert!(free(&range("LOCK_SH", 0), &mount.at("lock").with_file_name("lock")));
        holder.end();
        assert!(free(&range("LOCK_EX", 20), &mount.at("lock")));
    });
}

#[test]
fn a_waiting_lock_is_given_when_the_holder_dies() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("lock"), "").unwrap();
        let mut holder = Holder::start("f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX)", &mount.at("lock"));
        let mut waiter = Command::new("python3")
            .args(["-c", "import fcntl, sys\nf = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX)"])
            .arg(mount.at("lock"))
            .spawn()
            .unwrap();
        holder.0.kill().unwrap();
        holder.0.wait().unwrap();
        assert!(waiter.wait().unwrap().success());
    });
}
