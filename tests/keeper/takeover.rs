//! Programs at work while their worker is killed.

use crate::Case;
use crate::rig::{Dice, Rig, kill, wait_until};
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    ("every_kind_of_request_is_answered_by_the_next_worker", every_kind_of_request_is_answered_by_the_next_worker),
    ("forgets_are_lost_with_the_worker_that_read_them", forgets_are_lost_with_the_worker_that_read_them),
    ("unlinked_open_files_live_on", unlinked_open_files_live_on),
    ("invalidations_reach_the_kernel_after_a_takeover", invalidations_reach_the_kernel_after_a_takeover),
    ("the_buffers_of_the_session_are_touched", the_buffers_of_the_session_are_touched),
    ("hashing_and_copying_pass_24_kills", hashing_and_copying_pass_24_kills),
    ("random_reads_and_writes_pass_50_kills_in_6_seconds", random_reads_and_writes_pass_50_kills_in_6_seconds),
];

fn read(path: std::path::PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn write(path: std::path::PathBuf, data: &[u8]) {
    std::fs::write(path, data).unwrap();
}

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

type Step = (&'static str, fn(&Rig));

/// One step for each kind of request; it panics when the program would see anything unusual.
const STEPS: &[Step] = &[
    ("lookup", |rig| assert!(rig.mounted("old").symlink_metadata().unwrap().is_file())),
    ("getattr", |rig| assert_eq!(File::open(rig.mounted("old")).unwrap().metadata().unwrap().len(), 3)),
    ("open", |rig| assert_eq!(read(rig.mounted("old")), b"old")),
    ("read", |rig| assert_eq!(read(rig.mounted("direct")), b"direct")),
    ("write", |rig| {
        let file = File::options().append(true).open(rig.mounted("old")).unwrap();
        assert_eq!((&file).write(b"+more").unwrap(), 5);
        drop(file);
        assert_eq!(read(rig.tree("old")), b"old+more");
    }),
    ("create", |rig| drop(File::create_new(rig.mounted("new")).unwrap())),
    ("mkdir", |rig| DirBuilder::new().create(rig.mounted("dir")).unwrap()),
    ("symlink", |rig| std::os::unix::fs::symlink("old", rig.mounted("link")).unwrap()),
    ("readlink", |rig| assert_eq!(std::fs::read_link(rig.mounted("link")).unwrap().as_os_str(), "old")),
    ("rename", |rig| {
        std::fs::rename(rig.mounted("new"), rig.mounted("newer")).unwrap();
        assert!(rig.tree("newer").exists() && !rig.tree("new").exists());
    }),
    ("unlink", |rig| std::fs::remove_file(rig.mounted("newer")).unwrap()),
    ("rmdir", |rig| std::fs::remove_dir(rig.mounted("dir")).unwrap()),
    ("setattr", |rig| {
        File::options().write(true).open(rig.mounted("old")).unwrap().set_len(3).unwrap();
        assert_eq!(rig.tree("old").metadata().unwrap().len(), 3);
    }),
    ("flush", |rig| drop(File::open(rig.mounted("old")).unwrap())),
    ("fsync", |rig| File::options().write(true).open(rig.mounted("old")).unwrap().sync_all().unwrap()),
    ("release", |rig| drop(File::open(rig.mounted("old")).unwrap())),
    ("opendir", |rig| assert!(rig.mount_point.read_dir().is_ok())),
    ("readdir", |rig| assert!(rig.mount_point.read_dir().unwrap().count() >= 3)),
    ("releasedir", |rig| drop(rig.mount_point.read_dir().unwrap())),
    ("statfs", |rig| assert!(Command::new("stat").arg("-f").arg(&rig.mount_point).output().unwrap().status.success())),
];

fn every_kind_of_request_is_answered_by_the_next_worker() {
    for when in ["before", "after"] {
        let rig = Rig::new();
        write(rig.tree("old"), b"old");
        write(rig.tree("direct"), b"direct");
        let drive = rig.start(&["window=0"]);
        for (name, step) in STEPS {
            let (generation, _) = rig.worker().unwrap();
            rig.control.remove("log");
            rig.control.write("die", &format!("{name} {when}"));
            step(&rig);
            drive.worker_after(generation);
            // RELEASE is answered after close(2) has returned.
            wait_until("the request came again", || rig.log().contains(&format!("{} {name} again", generation + 1)));
            let done = rig.log().contains(&format!("{generation} {name} done"));
            assert_eq!(done, when == "after", "{name}");
        }
        drive.stop();
        println!("  dying {when} the work: {} kinds of requests, each answered once more, none failed", STEPS.len());
    }
}

fn forgets_are_lost_with_the_worker_that_read_them() {
    let rig = Rig::new();
    write(rig.tree("f"), b"x");
    let drive = rig.start(&["window=0"]);
    assert_eq!(read(rig.mounted("f")), b"x");
    let (generation, _) = rig.worker().unwrap();
    rig.control.write("die", "forget before");
    rig.control.write("log_all", "");
    write("/proc/sys/vm/drop_caches".into(), b"2");
    drive.worker_after(generation);
    assert_eq!(read(rig.mounted("f")), b"x");
    let log = rig.log();
    assert!(log.contains(&format!("{generation} forget new")), "{log:?}");
    assert!(!log.iter().any(|line| line.ends_with("forget again")), "{log:?}");
    drive.stop();
}

fn unlinked_open_files_live_on() {
    let rig = Rig::new();
    write(rig.tree("direct"), b"still here");
    let drive = rig.start(&["window=0"]);
    let file = File::options().read(true).write(true).open(rig.mounted("direct")).unwrap();
    std::fs::remove_file(rig.mounted("direct")).unwrap();
    drive.replace_worker();
    let mut text = String::new();
    (&file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    file.write_all_at(b"STILL", 0).unwrap();
    drop(file);
    drive.stop();
}

fn invalidations_reach_the_kernel_after_a_takeover() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new();
    write(rig.tree("keep"), b"first");
    let drive = rig.start(&["window=0"]);
    drive.replace_worker();
    let file = File::open(rig.mounted("keep")).unwrap();
    let at_start = |file: &File| {
        let mut buffer = [0; 5];
        file.read_exact_at(&mut buffer, 0).unwrap();
        buffer
    };
    assert_eq!(&at_start(&file), b"first");
    write(rig.tree("keep"), b"other");
    assert_eq!(&at_start(&file), b"first", "the kernel's cache should still hold it, or this test shows nothing");
    rig.control.write("inval", &rig.tree("keep").metadata().unwrap().ino().to_string());
    kill(rig.worker().unwrap().1, libc::SIGUSR1);
    wait_until("the notification was sent", || rig.control.read("inval_result").is_some());
    assert_eq!(rig.control.read("inval_result").unwrap(), "Ok(())");
    assert_eq!(&at_start(&file), b"other");
    drop(file);
    drive.stop();
}

/// The protection of `fs::buffers` holds: each of the three threads has its mebibyte before the first request.
fn the_buffers_of_the_session_are_touched() {
    let rig = Rig::new();
    let drive = rig.start(&[]);
    let read = || std::io::read_to_string(File::open(format!("/proc/{}/status", rig.worker().unwrap().1)).unwrap());
    let mut kib = 0;
    wait_until("3 MiB of buffers are there", || {
        let status = read().unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        kib = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        kib > 3 * 1024
    });
    println!("  anonymous memory of the worker: {kib} KiB");
    drive.stop();
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn hashing_and_copying_pass_24_kills() {
    let rig = Rig::new();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let block: Vec<u8> = (0..1 << 20).map(|_| dice.roll(256) as u8).collect();
    let file = File::create(rig.tree("big")).unwrap();
    for n in 0..200u64 {
        file.write_all_at(&block, n << 20).unwrap();
        file.write_all_at(&n.to_le_bytes(), n << 20).unwrap();
    }
    rig.control.write("slow_us", "6000");
    let drive = rig.start(&["window=0"]);
    let original = sha256(&rig.tree("big"));
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            for n in 0..24 {
                pause(60 + 20 * (n % 7));
                drive.replace_worker();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let hasher = scope.spawn(|| sha256(&rig.mounted("big")));
            copy(&rig.tree("big"), &rig.mounted("copy"));
            assert_eq!(hasher.join().unwrap(), original);
            assert_eq!(sha256(&rig.tree("copy")), original);
            rounds += 1;
        }
        killer.join().unwrap();
    });
    let again = rig.log().iter().filter(|line| line.ends_with("again")).count();
    println!(
        "  24 kills under {rounds} rounds of sha256sum and dd in {:.1?}, {again} requests sent again",
        begun.elapsed()
    );
    assert!(again > 0, "no kill met an open request");
    drive.stop();
}

fn copy(from: &Path, to: &Path) {
    let output = Command::new("dd")
        .args(["bs=1M", "conv=fsync", "status=none"])
        .arg(format!("if={}", from.display()))
        .arg(format!("of={}", to.display()))
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "dd: {}", String::from_utf8_lossy(&output.stderr));
}

fn random_reads_and_writes_pass_50_kills_in_6_seconds() {
    const BLOCKS: u64 = 1024;
    let rig = Rig::new();
    for thread in 0..2 {
        File::create(rig.tree(&format!("direct{thread}"))).unwrap().set_len(BLOCKS * 4096).unwrap();
    }
    rig.control.write("slow_us", "300");
    let drive = rig.start(&["window=0"]);
    let until = Instant::now() + Duration::from_secs(6);
    let (kills, totals) = std::thread::scope(|scope| {
        let programs: Vec<_> = (0..2u64)
            .map(|thread| {
                let path = rig.mounted(&format!("direct{thread}"));
                scope.spawn(move || random_program(&path, thread, until))
            })
            .collect();
        let mut kills = 0;
        while Instant::now() < until {
            pause(if kills < 50 { 112 } else { 20 });
            if kills < 50 {
                drive.replace_worker();
                kills += 1;
            }
        }
        (kills, programs.into_iter().map(|program| program.join().unwrap()).collect::<Vec<_>>())
    });
    let calls: u64 = totals.iter().map(|total| total.0).sum();
    let mut slowest: Vec<Duration> = totals.into_iter().flat_map(|total| total.1).collect();
    slowest.sort_unstable();
    slowest.reverse();
    let again = rig.log().iter().filter(|line| line.ends_with("again")).count();
    println!(
        "  {kills} kills under {calls} calls of 4 KiB, {again} sent again, 0 wrong; slowest {:?}, 10th {:?}, 50th {:?}",
        slowest[0], slowest[9], slowest[49]
    );
    assert!(kills >= 40, "only {kills} kills");
    drive.stop();
}

/// Reads and writes blocks at random and compares; the number of calls and how long each took.
fn random_program(path: &Path, thread: u64, until: Instant) -> (u64, Vec<Duration>) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut dice = Dice(0x1234_5678 + thread);
    let mut model = vec![0u8; 1024];
    let mut times = vec![];
    while Instant::now() < until {
        let block = dice.roll(1024);
        let begun = Instant::now();
        if dice.roll(2) == 0 {
            let value = dice.roll(256) as u8;
            assert_eq!(file.write_at(&[value; 4096], block * 4096).unwrap(), 4096);
            model[block as usize] = value;
        } else {
            let mut data = [0; 4096];
            assert_eq!(file.read_at(&mut data, block * 4096).unwrap(), 4096);
            assert!(data.iter().all(|byte| *byte == model[block as usize]), "block {block} of {path:?}");
        }
        times.push(begun.elapsed());
    }
    (times.len() as u64, times)
}
