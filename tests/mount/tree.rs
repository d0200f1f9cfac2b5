//! Directories, links, attributes, and moving them about.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::support::posix::{self, errno};
use crate::{Cloud, names, on_a_mount};

#[test]
fn directories_follow_the_rules() {
    on_a_mount(|mount, cloud| {
        fs::create_dir_all(mount.at("a/b/c")).unwrap();
        fs::write(mount.at("a/f"), "x").unwrap();
        assert_eq!(errno(fs::create_dir(mount.at("a"))), libc::EEXIST);
        assert_eq!(errno(fs::create_dir(mount.at("a/f"))), libc::EEXIST);
        assert_eq!(errno(fs::create_dir(mount.at("no/d"))), libc::ENOENT);
        assert_eq!(errno(fs::create_dir(mount.at("a/f/d"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_dir(mount.at("a"))), libc::ENOTEMPTY);
        assert_eq!(errno(fs::remove_dir(mount.at("a/f"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_file(mount.at("a/b"))), libc::EISDIR);
        assert_eq!(errno(fs::remove_file(mount.at("a/none"))), libc::ENOENT);
        assert_eq!(errno(fs::read(mount.at("a"))), libc::EISDIR);
        mount.wait_saved();
        assert!(cloud.at("a/b/c").is_dir());
        fs::remove_dir_all(mount.at("a")).unwrap();
        assert!(names(&mount.path()).is_empty());
        mount.wait_saved();
        assert!(cloud.names().is_empty(), "left on the remote: {:?}", cloud.names());
    });
}

#[test]
fn rename_replaces_atomically() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("old"), "old").unwrap();
        fs::write(mount.at("new"), "new").unwrap();
        let ino = fs::metadata(mount.at("new")).unwrap().ino();
        fs::rename(mount.at("new"), mount.at("old")).unwrap();
        assert_eq!(names(&mount.path()), ["old"]);
        assert_eq!(fs::read(mount.at("old")).unwrap(), b"new");
        assert_eq!(fs::metadata(mount.at("old")).unwrap().ino(), ino);
        mount.wait_saved();
        assert_eq!((cloud.names(), fs::read(cloud.at("old")).unwrap()), (vec!["old".to_string()], b"new".to_vec()));
    });
}

#[test]
fn rename_can_refuse_to_replace_and_can_exchange() {
    on_a_mount(|mount, cloud| {
        for name in ["a", "b"] {
            fs::write(mount.at(name), name).unwrap();
        }
        mount.wait_saved();
        let (a, b) = (mount.at("a"), mount.at("b"));
        assert_eq!(errno(posix::rename(&a, &b, libc::RENAME_NOREPLACE)), libc::EEXIST);
        posix::rename(&a, &mount.at("c"), libc::RENAME_NOREPLACE).unwrap();
        posix::rename(&mount.at("c"), &b, libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(errno(posix::rename(&a, &b, libc::RENAME_EXCHANGE)), libc::ENOENT);
        mount.wait_saved();
        for root in [mount.path(), cloud.at("")] {
            assert_eq!(fs::read(root.join("b")).unwrap(), b"a");
            assert_eq!(fs::read(root.join("c")).unwrap(), b"b");
        }
        fs::create_dir(mount.at("d")).unwrap();
        fs::write(mount.at("d/in"), "in").unwrap();
        posix::rename(&mount.at("d"), &mount.at("b"), libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(fs::read(mount.at("b/in")).unwrap(), b"in");
        mount.wait_saved();
        assert_eq!(
            (fs::read(cloud.at("b/in")).unwrap(), fs::read(cloud.at("d")).unwrap()),
            (b"in".to_vec(), b"a".to_vec())
        );
    });
}

#[test]
fn directories_move_with_all_they_hold() {
    on_a_mount(|mount, cloud| {
        fs::create_dir_all(mount.at("from/deep")).unwrap();
        for n in 0..50 {
            fs::write(mount.at(format!("from/deep/{n}")), format!("{n}")).unwrap();
        }
        mount.wait_saved();
        fs::create_dir(mount.at("to")).unwrap();
        assert_eq!(errno(fs::rename(mount.at("from"), mount.at("from/deep/below"))), libc::EINVAL);
        fs::write(mount.at("from/late"), "not yet uploaded").unwrap();
        fs::rename(mount.at("from"), mount.at("to/there")).unwrap();
        mount.wait_saved();
        assert_eq!(cloud.names(), ["to"]);
        assert_eq!(names(&cloud.at("to/there")), ["deep", "late"]);
        for n in 0..50 {
            assert_eq!(fs::read(cloud.at(format!("to/there/deep/{n}"))).unwrap(), format!("{n}").as_bytes());
        }
        fs::create_dir_all(mount.at("full/x")).unwrap();
        assert_eq!(errno(fs::rename(mount.at("to"), mount.at("full"))), libc::ENOTEMPTY);
        fs::create_dir(mount.at("empty")).unwrap();
        fs::rename(mount.at("to"), mount.at("empty")).unwrap();
        assert_eq!(names(&mount.path()), ["empty", "full"]);
    });
}

#[test]
fn links_to_names_are_kept_and_hard_links_refused() {
    let cloud = Cloud::new();
    let drive = cloud.drive();
    let mount = drive.mount();
    fs::write(mount.at("f"), "x").unwrap();
    for target in ["f", "../outside/../x", "/absolute", "dangling"] {
        symlink(target, mount.at(format!("to-{}", target.replace('/', "_")))).unwrap();
    }
    assert_eq!(fs::read(mount.at("to-f")).unwrap(), b"x");
    assert_eq!(errno(symlink("f", mount.at("to-f"))), libc::EEXIST);
    if !crate::support::drive::fake() {
        assert_eq!(errno(fs::hard_link(mount.at("f"), mount.at("g"))), libc::EPERM);
    }
    mount.wait_saved();
    mount.unmount();
    let other = cloud.drive();
    let mount = other.mount();
    for target in ["f", "../outside/../x", "/absolute", "dangling"] {
        let link = mount.at(format!("to-{}", target.replace('/', "_")));
        assert_eq!(fs::read_link(link).unwrap().to_string_lossy(), target);
    }
}

#[test]
fn modes_times_and_xattrs_return_on_another_machine() {
    let cloud = Cloud::new();
    let drive = cloud.drive();
    let mount = drive.mount();
    fs::write(mount.at("tool"), "#!/bin/sh\n").unwrap();
    fs::create_dir(mount.at("dir")).unwrap();
    fs::set_permissions(mount.at("tool"), fs::Permissions::from_mode(0o750)).unwrap();
    posix::set_mtime(&mount.at("tool"), 1_000_000_001, 123_456_789).unwrap();
    posix::set_xattr(&mount.at("tool"), "user.colour", b"red\0blue", 0).unwrap();
    posix::set_xattr(&mount.at("dir"), "user.note", b"kept", 0).unwrap();
    let check = |path: &std::path::Path| {
        let found = fs::metadata(path.join("tool")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime(), found.mtime_nsec()), (0o750, 1_000_000_001, 123_456_789));
        assert_eq!(posix::xattr(&path.join("tool"), "user.colour").unwrap(), b"red\0blue");
        assert_eq!(posix::xattr(&path.join("dir"), "user.note").unwrap(), b"kept");
    };
    check(&mount.path());
    mount.wait_saved();
    check(&mount.path());
    mount.unmount();
    let other = cloud.drive();
    check(&other.mount().path());
}

#[test]
fn xattrs_follow_the_rules() {
    on_a_mount(|mount, _| {
        let f = mount.at("f");
        fs::write(&f, "x").unwrap();
        assert_eq!(errno(posix::xattr(&f, "user.a")), libc::ENODATA);
        posix::set_xattr(&f, "user.a", b"1", libc::XATTR_CREATE).unwrap();
        assert_eq!(errno(posix::set_xattr(&f, "user.a", b"2", libc::XATTR_CREATE)), libc::EEXIST);
        assert_eq!(errno(posix::set_xattr(&f, "user.b", b"2", libc::XATTR_REPLACE)), libc::ENODATA);
        posix::set_xattr(&f, "user.a", b"", libc::XATTR_REPLACE).unwrap();
        assert_eq!(posix::xattr(&f, "user.a").unwrap(), b"");
        posix::set_xattr(&f, "user.b", &[7; 2000], 0).unwrap();
        let own = posix::xattrs(&f).unwrap().into_iter().filter(|name| !name.starts_with("user.fourwheel."));
        assert_eq!(own.collect::<Vec<_>>(), ["user.a", "user.b"]);
        posix::remove_xattr(&f, "user.a").unwrap();
        assert_eq!(errno(posix::remove_xattr(&f, "user.a")), libc::ENODATA);
    });
}

#[test]
fn the_state_of_a_file_is_an_xattr() {
    if crate::support::drive::fake() {
        return;
    }
    on_a_mount(|mount, _| {
        let state = || String::from_utf8(posix::xattr(&mount.at("f"), "user.fourwheel.state").unwrap()).unwrap();
        let mut file = fs::File::create_new(mount.at("f")).unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(state(), "waiting");
        drop(file);
        mount.wait_saved();
        assert_eq!(state(), "saved");
        for name in ["remote_id", "etag", "cached"] {
            posix::xattr(&mount.at("f"), &format!("user.fourwheel.{name}")).unwrap();
        }
    });
}

#[test]
fn each_entry_of_a_directory_is_listed_once_while_entries_go() {
    on_a_mount(|mount, _| {
        fs::create_dir(mount.at("d")).unwrap();
        for n in 0..3000 {
            fs::write(mount.at(format!("d/{n:04}")), "").unwrap();
        }
        let mut seen = Vec::new();
        for entry in fs::read_dir(mount.at("d")).unwrap() {
            let entry = entry.unwrap();
            fs::remove_file(entry.path()).unwrap();
            seen.push(entry.file_name());
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((count, seen.len()), (3000, 3000));
        fs::remove_dir(mount.at("d")).unwrap();
    });
}

#[test]
fn df_shows_a_disk_with_room() {
    on_a_mount(|mount, _| {
        let found = posix::statvfs(&mount.path()).unwrap();
        assert!(found.f_blocks > 0 && found.f_bavail > 0 && found.f_bavail <= found.f_blocks);
        assert!(found.f_namemax >= 255, "longest name {}", found.f_namemax);
    });
}

#[test]
fn dot_entries_and_link_counts_are_as_on_a_disk() {
    on_a_mount(|mount, _| {
        fs::create_dir(mount.at("d")).unwrap();
        assert_eq!(fs::metadata(mount.at("d/.")).unwrap().ino(), fs::metadata(mount.at("d")).unwrap().ino());
        assert_eq!(fs::metadata(mount.at("d/..")).unwrap().ino(), fs::metadata(mount.path()).unwrap().ino());
        fs::write(mount.at("f"), "").unwrap();
        assert_eq!(fs::metadata(mount.at("f")).unwrap().nlink(), 1);
    });
}
