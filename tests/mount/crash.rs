//! Kills: of the worker alone no program sees anything; of everything, what was closed arrives after a restart.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::support::drive::fake;
use crate::support::{self, Drive};
use crate::{Cloud, assert_holds, noise, on_a_mount};

#[test]
fn a_killed_worker_is_not_seen_by_programs() {
    on_a_mount(|mount, cloud| {
        let mut file = File::options().read(true).write(true).create_new(true).open(mount.at("open")).unwrap();
        let done = AtomicBool::new(false);
        let files = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut files = 0;
                while !done.load(Relaxed) {
                    fs::write(mount.at(format!("f{files}")), noise(50_000, files)).unwrap();
                    assert_holds(mount.at(format!("f{files}")), &noise(50_000, files));
                    files += 1;
                }
                files
            });
            for round in 0..5u8 {
                file.write_all(&[round; 1000]).unwrap();
                mount.kill_worker();
            }
            done.store(true, Relaxed);
            writer.join().expect("the writer saw no error")
        });
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let expected: Vec<u8> = (0..5u8).flat_map(|round| [round; 1000]).collect();
        assert!(bytes == expected);
        drop(file);
        mount.wait_saved();
        assert_holds(cloud.at("open"), &expected);
        for n in 0..files {
            assert_holds(cloud.at(format!("f{n}")), &noise(50_000, n));
        }
    });
}

#[test]
fn what_was_closed_before_a_crash_arrives_after_it() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    let drive = cloud.drive();
    for round in 0..3 {
        let mount = drive.mount();
        for n in 0..30 {
            fs::write(mount.at(format!("{round}-{n}")), noise(n * 7001, n as u64)).unwrap();
        }
        fs::rename(mount.at(format!("{round}-0")), mount.at(format!("{round}-renamed"))).unwrap();
        fs::remove_file(mount.at(format!("{round}-1"))).unwrap();
        mount.kill_all();
    }
    let mount = drive.mount();
    mount.wait_saved();
    for round in 0..3 {
        for n in 2..30 {
            assert_holds(cloud.at(format!("{round}-{n}")), &noise(n * 7001, n as u64));
        }
        assert_eq!(fs::read(cloud.at(format!("{round}-renamed"))).unwrap(), b"");
        assert!(!cloud.at(format!("{round}-0")).exists() && !cloud.at(format!("{round}-1")).exists());
    }
    let strange = |name: &String| {
        !(0..3).any(|r| (0..30).any(|n| *name == format!("{r}-{n}")) || *name == format!("{r}-renamed"))
    };
    // What a killed upload left unfinished is the folder remote's own, hidden, and goes with a later listing.
    let unfinished = |name: &String| name.starts_with(".~fourwheel-");
    let strange: Vec<String> = cloud.names().into_iter().filter(|n| strange(n) && !unfinished(n)).collect();
    assert!(strange.is_empty(), "on the remote too: {strange:?}");
}

#[test]
fn what_waited_comes_back_when_the_database_is_moved_away() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    let drive = Drive::new(cloud.remote().with("write_back_s = 600"));
    let mount = drive.mount();
    for n in 0..20 {
        fs::write(mount.at(format!("f{n}")), noise(30_000 + n * 7001, n as u64)).unwrap();
    }
    mount.kill_all();
    let state = drive.state_dir().join("fourwheel").join(support::drive::NAME);
    for suffix in ["", "-wal", "-shm"] {
        fs::rename(state.join(format!("drive.db{suffix}")), state.join(format!("old{suffix}"))).unwrap();
    }
    let mount = drive.mount();
    for n in 0..20 {
        assert_holds(mount.at(format!("lost+found/f{n}")), &noise(30_000 + n * 7001, n as u64));
    }
}
