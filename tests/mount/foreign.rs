//! What another client does to the remote shows here, and loses nothing.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use crate::support::drive::{Drive, fake};
use crate::support::{posix, wait_for};
use crate::{Cloud, assert_holds, names, noise};

const SOON: Duration = Duration::from_secs(60);

fn quick(cloud: &Cloud) -> Drive {
    Drive::new(cloud.remote().with("poll_s = 1\nrefresh_s = 1"))
}

#[test]
fn what_was_there_is_shown_at_once() {
    let cloud = Cloud::new();
    fs::create_dir(cloud.at("d")).unwrap();
    fs::write(cloud.at("d/f"), noise(200_000, 1)).unwrap();
    let drive = cloud.drive();
    let mount = drive.mount();
    assert_eq!((names(&mount.path()), names(&mount.at("d"))), (vec!["d".to_string()], vec!["f".to_string()]));
    assert_holds(mount.at("d/f"), &noise(200_000, 1));
}

#[test]
fn changes_of_another_client_are_seen() {
    let cloud = Cloud::new();
    fs::write(cloud.at("changes"), "before").unwrap();
    fs::write(cloud.at("goes"), "x").unwrap();
    let drive = quick(&cloud);
    let mount = drive.mount();
    assert_eq!(fs::read(mount.at("changes")).unwrap(), b"before");
    assert!(mount.at("goes").exists() && !mount.at("comes").exists());
    fs::write(cloud.at("changes.new"), "afterwards").unwrap();
    fs::rename(cloud.at("changes.new"), cloud.at("changes")).unwrap();
    fs::remove_file(cloud.at("goes")).unwrap();
    fs::create_dir(cloud.at("comes")).unwrap();
    fs::write(cloud.at("comes/in"), "in").unwrap();
    wait_for(SOON, "the new text", || (fs::read(mount.at("changes")).ok()? == b"afterwards").then_some(()));
    wait_for(SOON, "the removal", || (!mount.at("goes").exists()).then_some(()));
    wait_for(SOON, "the new directory", || (fs::read(mount.at("comes/in")).ok()? == b"in").then_some(()));
    assert_eq!(fs::metadata(mount.at("changes")).unwrap().len(), 10);
}

#[test]
fn an_open_reader_is_not_broken_by_another_clients_change() {
    let cloud = Cloud::new();
    fs::write(cloud.at("f"), "old text").unwrap();
    let drive = quick(&cloud);
    let mount = drive.mount();
    let mut reader = fs::File::open(mount.at("f")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    fs::write(cloud.at("f.new"), "new text, longer").unwrap();
    fs::rename(cloud.at("f.new"), cloud.at("f")).unwrap();
    wait_for(SOON, "the new text", || (fs::read(mount.at("f")).ok()? == b"new text, longer").then_some(()));
    reader.seek(SeekFrom::Start(0)).unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old text");
}

#[test]
fn a_change_on_both_sides_keeps_both() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    fs::write(cloud.at("doc.txt"), "base").unwrap();
    let drive = Drive::new(cloud.remote().with("poll_s = 3600\nrefresh_s = 3600\nwrite_back_s = 3"));
    let mount = drive.mount();
    assert_eq!(fs::read(mount.at("doc.txt")).unwrap(), b"base");
    fs::write(mount.at("doc.txt"), "mine").unwrap();
    fs::write(cloud.at("doc.new"), "theirs").unwrap();
    fs::rename(cloud.at("doc.new"), cloud.at("doc.txt")).unwrap();
    mount.wait_saved();
    assert_eq!(fs::read(cloud.at("doc.txt")).unwrap(), b"theirs");
    let copies: Vec<String> = cloud.names().into_iter().filter(|name| name.contains("conflict")).collect();
    let [copy] = &copies[..] else { panic!("conflict copies on the remote: {copies:?}, all: {:?}", cloud.names()) };
    assert!(copy.starts_with("doc (conflict ") && copy.ends_with(").txt"), "{copy}");
    assert_eq!(fs::read(cloud.at(copy)).unwrap(), b"mine");
    assert_eq!(mount.status()["conflicts"].as_u64(), Some(1));
    let listed = drive.command(&["conflicts"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains(copy.as_str()), "conflicts said {listed:?}");
}

#[test]
fn an_edit_here_wins_over_a_delete_there() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    fs::write(cloud.at("doc.txt"), "base").unwrap();
    let drive = Drive::new(cloud.remote().with("write_back_s = 2"));
    let mount = drive.mount();
    assert_eq!(fs::read(mount.at("doc.txt")).unwrap(), b"base");
    fs::write(mount.at("doc.txt"), "mine").unwrap();
    fs::remove_file(cloud.at("doc.txt")).unwrap();
    mount.wait_saved();
    let kept = cloud.names().into_iter().any(|name| fs::read(cloud.at(name)).unwrap() == b"mine");
    assert!(kept, "on the remote: {:?}", cloud.names());
}

#[test]
fn what_is_pinned_stays_here_also_when_another_client_changes_it() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    fs::create_dir(cloud.at("kept")).unwrap();
    fs::write(cloud.at("kept/f"), noise(300_000, 1)).unwrap();
    let drive = quick(&cloud);
    let mount = drive.mount();
    let cached = |name: &str, bytes: u64| {
        let file = mount.at(name);
        wait_for(SOON, "the pinned bytes", || {
            let told = posix::xattr(&file, "user.fourwheel.cached").ok()?;
            (told == bytes.to_string().as_bytes()).then_some(())
        });
    };
    let pinned = drive.command(&["pin", mount.at("kept").to_str().unwrap()]).output().unwrap();
    assert!(pinned.status.success(), "{pinned:?}");
    cached("kept/f", 300_000);

    fs::write(cloud.at("kept/new"), noise(400_000, 2)).unwrap();
    fs::rename(cloud.at("kept/new"), cloud.at("kept/f")).unwrap();
    fs::write(cloud.at("kept/later"), noise(100_000, 3)).unwrap();
    wait_for(SOON, "the new file", || mount.at("kept/later").exists().then_some(()));
    cached("kept/f", 400_000);
    cached("kept/later", 100_000);
    assert_holds(mount.at("kept/f"), &noise(400_000, 2));
}
