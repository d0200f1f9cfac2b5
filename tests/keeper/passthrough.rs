//! Files that the kernel reads and writes by itself, over the death of the worker that set them up.

use crate::Case;
use crate::rig::{Rig, kill, wait_until};
use std::fs::File;
use std::os::unix::fs::FileExt;

pub const CASES: &[Case] = &[
    ("passthrough_files_survive_a_takeover", passthrough_files_survive_a_takeover),
    ("a_dead_workers_backing_id_can_be_closed", a_dead_workers_backing_id_can_be_closed),
    ("a_new_backing_id_beside_an_old_open_is_refused", a_new_backing_id_beside_an_old_open_is_refused),
];

fn open(rig: &Rig) -> std::io::Result<File> {
    File::options().read(true).write(true).open(rig.mounted("through"))
}

fn read(file: &File) -> [u8; 5] {
    let mut data = [0; 5];
    file.read_exact_at(&mut data, 0).unwrap();
    data
}

fn requests(rig: &Rig, kind: &str) -> usize {
    rig.log().iter().filter(|line| line.contains(&format!(" {kind} "))).count()
}

fn rig() -> Rig {
    let rig = Rig::new();
    rig.control.write("passthrough", "");
    rig.control.write("log_all", "");
    std::fs::write(rig.tree("through"), b"first").unwrap();
    rig
}

fn passthrough_files_survive_a_takeover() {
    let rig = rig();
    let drive = rig.start(&["window=0"]);
    let old = open(&rig).unwrap();
    assert_eq!(&read(&old), b"first");
    drive.replace_worker();
    assert_eq!(&read(&old), b"first");
    old.write_all_at(b"later", 0).unwrap();
    // The next worker names the id that its predecessor had registered.
    let new = open(&rig).unwrap();
    assert_eq!(&read(&new), b"later");
    new.write_all_at(b"third", 0).unwrap();
    drive.replace_worker();
    assert_eq!(&read(&old), b"third");
    drop((old, new));
    // With no open left, and the id still registered: as at the start.
    assert_eq!(&read(&open(&rig).unwrap()), b"third");
    assert_eq!((requests(&rig, "read"), requests(&rig, "write")), (0, 0), "{:?}", rig.log());
    println!("  3 opens with one backing id over 3 workers; no READ and no WRITE reached a worker");
    drive.stop();
}

fn a_dead_workers_backing_id_can_be_closed() {
    let rig = rig();
    let drive = rig.start(&["window=0"]);
    let old = open(&rig).unwrap();
    drive.replace_worker();
    kill(rig.worker().unwrap().1, libc::SIGHUP);
    wait_until("the ids are closed", || rig.control.read("closed").is_some());
    // The open that uses it goes on.
    assert_eq!(&read(&old), b"first");
    drop(old);
    assert_eq!(&read(&open(&rig).unwrap()), b"first");
    drive.stop();
}

fn a_new_backing_id_beside_an_old_open_is_refused() {
    let rig = rig();
    let drive = rig.start(&["window=0"]);
    let old = open(&rig).unwrap();
    drive.replace_worker();
    rig.control.write("fresh_ids", "");
    assert_eq!(open(&rig).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(&read(&old), b"first");
    drop(old);
    assert_eq!(&read(&open(&rig).unwrap()), b"first");
    drive.stop();
}
