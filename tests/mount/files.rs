//! Bytes of files: open flags, sizes, holes, mappings, copies.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::support::drive::fake;
use crate::support::posix::{self, errno};
use crate::support::{run, wait_for};
use crate::{Cloud, Drive, assert_holds, noise, on_a_mount};

#[test]
fn what_is_written_reads_back_and_reaches_the_remote() {
    on_a_mount(|mount, cloud| {
        for len in [0, 1, 4095, 65536, 65537, 3_000_001] {
            let bytes = noise(len, len as u64);
            fs::write(mount.at(format!("f{len}")), &bytes).unwrap();
            assert_eq!(fs::read(mount.at(format!("f{len}"))).unwrap(), bytes);
            assert_eq!(fs::metadata(mount.at(format!("f{len}"))).unwrap().len(), len as u64);
        }
        mount.wait_saved();
        for len in [0, 1, 4095, 65536, 65537, 3_000_001] {
            assert_holds(cloud.at(format!("f{len}")), &noise(len, len as u64));
        }
    });
}

#[test]
fn writes_in_the_middle_of_a_remote_file_keep_the_rest() {
    on_a_mount(|mount, cloud| {
        let mut expected = noise(5_000_000, 1);
        // Whole at once: a file that is seen while another client still writes it is another version.
        fs::write(cloud.at(".big.new"), &expected).unwrap();
        fs::rename(cloud.at(".big.new"), cloud.at("big")).unwrap();
        let file = wait_for(Duration::from_secs(60), "the remote's new file", || {
            OpenOptions::new().read(true).write(true).open(mount.at("big")).ok()
        });
        for (at, len, seed) in [(4_999_990, 10, 2), (0, 1, 3), (1_048_570, 20, 4), (2_000_000, 300_000, 5)] {
            file.write_all_at(&noise(len, seed), at as u64).unwrap();
            expected[at..at + len].copy_from_slice(&noise(len, seed));
        }
        drop(file);
        assert_holds(mount.at("big"), &expected);
        mount.wait_saved();
        assert_holds(cloud.at("big"), &expected);
    });
}

#[test]
fn appends_of_two_handles_both_land_at_the_end() {
    on_a_mount(|mount, cloud| {
        let append = || OpenOptions::new().create(true).append(true).open(mount.at("log")).unwrap();
        let (mut one, mut two) = (append(), append());
        for round in 0..100 {
            writeln!(one, "one {round}").unwrap();
            writeln!(two, "two {round}").unwrap();
        }
        drop((one, two));
        let expected: String = (0..100).map(|round| format!("one {round}\ntwo {round}\n")).collect();
        assert_eq!(fs::read_to_string(mount.at("log")).unwrap(), expected);
        mount.wait_saved();
        assert_eq!(fs::read_to_string(cloud.at("log")).unwrap(), expected);
    });
}

#[test]
fn truncate_cuts_and_grows_with_zeros() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("f"), noise(100_000, 1)).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(mount.at("f")).unwrap();
        file.set_len(10).unwrap();
        file.set_len(70_000).unwrap();
        let mut expected = noise(100_000, 1)[..10].to_vec();
        expected.resize(70_000, 0);
        assert_holds(mount.at("f"), &expected);
        drop(OpenOptions::new().write(true).truncate(true).open(mount.at("f")).unwrap());
        assert_eq!(fs::metadata(mount.at("f")).unwrap().len(), 0);
        file.set_len(5).unwrap();
        drop(file);
        mount.wait_saved();
        assert_eq!(fs::read(cloud.at("f")).unwrap(), [0; 5]);
    });
}

#[test]
fn exclusive_create_refuses_what_exists() {
    on_a_mount(|mount, cloud| {
        fs::write(cloud.at("remote"), "there").unwrap();
        let exclusive = |name: &str| OpenOptions::new().write(true).create_new(true).open(mount.at(name));
        exclusive("new").unwrap();
        assert_eq!(errno(exclusive("new")), libc::EEXIST);
        wait_for(Duration::from_secs(60), "the remote's file", || mount.at("remote").exists().then_some(()));
        assert_eq!(errno(exclusive("remote")), libc::EEXIST);
    });
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed() {
    on_a_mount(|mount, cloud| {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.at("f")).unwrap();
        file.write_all(b"before").unwrap();
        fs::remove_file(mount.at("f")).unwrap();
        assert!(!mount.at("f").exists());
        file.write_all(b" and after").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before and after");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        drop(file);
        mount.wait_saved();
        assert!(cloud.names().is_empty(), "left on the remote: {:?}", cloud.names());
    });
}

#[test]
fn a_file_replaced_while_open_keeps_its_bytes_for_the_reader() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("f"), "old").unwrap();
        let mut reader = File::open(mount.at("f")).unwrap();
        fs::write(mount.at("f.new"), "new").unwrap();
        fs::rename(mount.at("f.new"), mount.at("f")).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), fs::read_to_string(mount.at("f")).unwrap().as_str()), ("old", "new"));
    });
}

/// Runs Python with the path as its argument: a SIGBUS of a mapping then fails one test, not this whole process.
fn python(script: &str, path: &Path) {
    let script = format!("import mmap, os, sys\npath = sys.argv[1]\n{script}");
    run(path.parent().unwrap(), "python3", &[OsStr::new("-c"), OsStr::new(&script), path.as_os_str()]);
}

#[test]
fn stores_through_a_shared_mapping_are_writes() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("f"), vec![0u8; 300_000]).unwrap();
        let script = r#"
with open(path, "r+b") as file:
    view = mmap.mmap(file.fileno(), 0)
    view[:] = bytes(i * 7 % 251 for i in range(300_000))
    view.flush()
    with open(path, "rb") as again:
        assert again.read() == view[:], "read(2) does not see the mapping"
    view[150_000:150_010] = b"0123456789"
    view.close()
"#;
        python(script, &mount.at("f"));
        let mut expected: Vec<u8> = (0..300_000u32).map(|i| (i * 7 % 251) as u8).collect();
        expected[150_000..150_010].copy_from_slice(b"0123456789");
        assert_holds(mount.at("f"), &expected);
        mount.wait_saved();
        assert_holds(cloud.at("f"), &expected);
    });
}

#[test]
fn a_mapping_of_a_remote_file_shows_its_bytes() {
    on_a_mount(|mount, cloud| {
        fs::write(cloud.at("f"), noise(2_500_000, 3)).unwrap();
        fs::write(mount.at("same"), noise(2_500_000, 3)).unwrap();
        wait_for(Duration::from_secs(60), "the remote's file", || mount.at("f").exists().then_some(()));
        let script = r#"
with open(path, "rb") as file, open(os.path.join(os.path.dirname(path), "same"), "rb") as same:
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert view[:] == same.read()
"#;
        python(script, &mount.at("f"));
    });
}

#[test]
fn holes_read_as_zeros_and_can_be_found() {
    on_a_mount(|mount, cloud| {
        let file = File::create_new(mount.at("f")).unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", 8 << 20).unwrap();
        let len = (8 << 20) + 4;
        assert_eq!(file.metadata().unwrap().len(), len);
        let hole = posix::seek(&file, 0, libc::SEEK_HOLE).unwrap();
        assert!((4..=8 << 20).contains(&hole), "first hole at {hole}");
        let data = posix::seek(&file, hole, libc::SEEK_DATA).unwrap();
        assert!((hole..=8 << 20).contains(&data), "data again at {data}");
        assert_eq!(errno(posix::seek(&file, len as i64, libc::SEEK_DATA)), libc::ENXIO);
        drop(file);
        let read = fs::read(mount.at("f")).unwrap();
        assert!(read.starts_with(b"head\0\0") && read.ends_with(b"\0\0tail") && read.len() == len as usize);
        mount.wait_saved();
        assert_holds(cloud.at("f"), &read);
    });
}

#[test]
fn fallocate_grows_keeps_and_punches() {
    on_a_mount(|mount, cloud| {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("f")).unwrap();
        posix::fallocate(&file, 0, 0, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        posix::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 200_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        let mut expected = noise(100_000, 1);
        file.write_all_at(&expected, 0).unwrap();
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        posix::fallocate(&file, punch, 10_000, 50_000).unwrap();
        expected[10_000..60_000].fill(0);
        drop(file);
        assert_holds(mount.at("f"), &expected);
        mount.wait_saved();
        assert_holds(cloud.at("f"), &expected);
    });
}

#[test]
fn copy_file_range_copies() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("from"), noise(1_500_000, 9)).unwrap();
        let (from, to) = (File::open(mount.at("from")).unwrap(), File::create_new(mount.at("to")).unwrap());
        let mut done = posix::copy_range(&from, &to, 1_500_000).unwrap();
        if done < 1_500_000 {
            // A short copy is allowed; std goes on where it ended.
            let (mut from, mut to) = (&from, &to);
            from.seek(SeekFrom::Start(done as u64)).unwrap();
            to.seek(SeekFrom::Start(done as u64)).unwrap();
            done += std::io::copy(&mut from, &mut to).unwrap() as usize;
        }
        assert_eq!(done, 1_500_000);
        drop((from, to));
        mount.wait_saved();
        assert_holds(cloud.at("to"), &noise(1_500_000, 9));
    });
}

#[test]
fn an_open_with_direct_io_sees_the_same_bytes() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("f"), noise(1 << 20, 4)).unwrap();
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(mount.at("f")).unwrap();
        let layout = std::alloc::Layout::from_size_align(1 << 20, 4096).unwrap();
        // SAFETY: the layout is not empty; the slice covers exactly the allocation, which is freed with the same layout.
        let page = unsafe { std::alloc::alloc_zeroed(layout) };
        let buffer = unsafe { std::slice::from_raw_parts_mut(page, 1 << 20) };
        file.read_exact(buffer).unwrap();
        assert!(buffer == noise(1 << 20, 4));
        // SAFETY: as above; `buffer` is not used any more.
        unsafe { std::alloc::dealloc(page, layout) };
    });
}

#[test]
fn an_upload_changes_neither_time_nor_size_nor_inode() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("f"), "text").unwrap();
        let facts = || {
            let found = fs::metadata(mount.at("f")).unwrap();
            (found.mtime(), found.mtime_nsec(), found.len(), found.ino())
        };
        let before = facts();
        mount.wait_saved();
        assert_eq!(facts(), before);
    });
}

#[test]
fn with_close_remote_a_closed_file_is_on_the_remote() {
    let cloud = Cloud::new();
    let drive = Drive::new(cloud.remote().with("close = \"remote\"\nwrite_back_s = 60"));
    let mount = drive.mount();
    for round in 0..5u64 {
        let bytes = noise(100_000, round);
        fs::write(mount.at("f"), &bytes).unwrap();
        assert!(fs::read(cloud.at("f")).unwrap() == bytes, "round {round}");
    }
    // What stays here by its name keeps nobody waiting.
    fs::write(mount.at(".~lock.f#"), b"x").unwrap();
    mount.unmount();
}

#[test]
fn a_mount_in_use_is_not_taken_away() {
    let cloud = Cloud::new();
    let drive = Drive::new(cloud.remote());
    let mount = drive.mount();
    fs::write(mount.at("f"), b"x").unwrap();
    let open = File::open(mount.at("f")).unwrap();
    let place = mount.path();
    let place = place.to_str().unwrap();
    let refused = drive.command(&["unmount", place]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("is in use by") && said.contains(&std::process::id().to_string()), "{said}");
    assert_eq!(refused.status.code(), Some(6));
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    drop(open);
    assert!(drive.command(&["unmount", place]).status().unwrap().success());
    assert_eq!(fs::read(cloud.at("f")).unwrap(), b"x", "sent before the end");
}

#[test]
fn a_file_that_is_larger_than_the_cache_is_written_changed_and_read() {
    if fake() {
        return;
    }
    let cloud = Cloud::new();
    let drive = Drive::new(cloud.remote().with("cache.max_bytes = \"32MiB\"\nwrite_back_s = 0.5"));
    let mount = drive.mount();
    let mut content = noise(48 << 20, 7);
    let mut file = fs::File::create(mount.at("large")).unwrap();
    for part in content.chunks(1 << 20) {
        file.write_all(part).unwrap();
    }
    drop(file);
    mount.wait_saved();
    assert_holds(cloud.at("large"), &content);
    assert_holds(mount.at("large"), &content);

    let file = OpenOptions::new().read(true).write(true).open(mount.at("large")).unwrap();
    for at in [0, 20 << 20, (48 << 20) - 100] {
        file.write_all_at(b"changed", at).unwrap();
        content[at as usize..at as usize + 7].copy_from_slice(b"changed");
    }
    assert_holds(mount.at("large"), &content);
    drop(file);
    mount.wait_saved();
    assert_holds(cloud.at("large"), &content);
    assert_holds(mount.at("large"), &content);
}

#[test]
fn an_open_file_changes_its_owner_while_it_is_written_and_closed() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("f"), "begin").unwrap();
        let path = mount.at("f");
        let owner = std::thread::spawn({
            let path = path.clone();
            move || (0..300).for_each(|n| std::os::unix::fs::chown(&path, Some(0), Some(n % 3)).unwrap())
        });
        for n in 0..300 {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"x").unwrap();
            drop(file);
            fs::metadata(&path).unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        owner.join().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 305);
    });
}

#[test]
fn a_file_that_is_cut_by_its_opening_loses_its_set_id_bits() {
    on_a_mount(|mount, _| {
        fs::write(mount.at("f"), "text").unwrap();
        fs::set_permissions(mount.at("f"), std::os::unix::fs::PermissionsExt::from_mode(0o6755)).unwrap();
        assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7777, 0o6755);
        drop(File::create(mount.at("f")).unwrap());
        assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7777, 0o755);
    });
}
