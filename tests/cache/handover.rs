//! Files that go to the journal and come back.

use std::path::Path;
use std::sync::Arc;

use fourwheel::cache::{PIECE, Stored};
use fourwheel::model::RangeSet;
use fourwheel::sys::{Disk, Open};

use crate::mem_disk::MemDisk;
use crate::world::*;

fn world(disk: &MemDisk) -> World {
    disk.make_dirs(Path::new("/journal")).unwrap();
    World::open(Arc::new(disk.clone()), Path::new("/cache"), 64 * MIB, 0)
}

fn in_journal(disk: &MemDisk) -> u64 {
    disk.files(Path::new("/journal")).iter().map(|path| disk.stat(path).unwrap().allocated).sum()
}

#[test]
fn a_taken_file_brings_its_bytes_and_leaves_the_cache() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    let size = 2 * MIB + 77;
    let file = world.cache.file(ino(1), &version(1, 0), size).unwrap();
    store(&file, 1, 0, 3).unwrap();
    store(&file, 1, 32, 1).unwrap();
    let to = Path::new("/journal/1");
    let taken = world.cache.take(ino(1), &version(1, 0), to).unwrap().unwrap();
    assert_eq!(taken.present.iter().collect::<Vec<_>>(), [0..3 * PIECE, 2 * MIB..size]);
    for range in taken.present.iter() {
        let mut found = vec![0; (range.end - range.start) as usize];
        assert_eq!(taken.file.read_at(&mut found, range.start).unwrap(), found.len());
        assert!(found == bytes(ino(1), 1, range.start, range.end - range.start));
    }
    assert_eq!(taken.allocated, in_journal(&disk));
    assert_eq!(world.space.used(), world.on_disk() + in_journal(&disk));
    assert!(file.is_gone() && !read_right(&file, 1, 0, 10));
    assert_eq!(store(&file, 1, 5, 1).unwrap(), Stored::Gone);
    assert!(world.cache.lookup(ino(1), &version(1, 0)).is_none());
    assert!(world.cache.take(ino(1), &version(1, 0), to).unwrap().is_none(), "nothing is left to take");
    let again = world.cache.file(ino(1), &version(1, 0), size).unwrap();
    assert!(fill(&again, 1) && read_right(&again, 1, 0, size));
}

#[test]
fn a_rotten_piece_is_not_taken() {
    let disk = MemDisk::new(1 << 30, 1);
    assert!(fill(&world(&disk).cache.file(ino(1), &version(1, 0), MIB).unwrap(), 1));
    let path =
        disk.files(Path::new("/cache")).into_iter().find(|p| p.extension().is_some_and(|e| e == "data")).unwrap();
    disk.open(&path, Open::Existing).unwrap().write_at(b"rot", PIECE).unwrap();
    let taken = world(&disk).cache.take(ino(1), &version(1, 0), Path::new("/journal/1")).unwrap().unwrap();
    assert_eq!(taken.present.missing(0..MIB), [PIECE..2 * PIECE]);
}

#[test]
fn an_adopted_file_is_cache_of_its_new_version() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    for (n, size) in SIZES.into_iter().enumerate() {
        let ino = ino(n as u64 + 1);
        let from = Path::new("/journal/up");
        let staged = disk.open(from, Open::New).unwrap();
        let room = world.space.reserve(size + MIB).unwrap();
        staged.write_at(&bytes(ino, 2, 0, size), 0).unwrap();
        staged.write_at(b"longer than the version", size).unwrap();
        let held = staged.stat().unwrap().allocated;
        room.commit(held);
        // Something was fetched of it already, by another reader.
        let _ = store(&world.cache.file(ino, &version(2, 0), size).unwrap(), 2, 0, 1).unwrap();
        let present = RangeSet::from_iter([0..size]);
        let file = world.cache.adopt(from, ino, &version(2, 0), size, staged, present, held).unwrap();
        assert!(
            file.is_complete() && file.verified_complete().unwrap() && read_right(&file, 2, 0, size),
            "size {size}"
        );
        assert_eq!(file.hold().unwrap().data().stat().unwrap().size, size);
        assert_eq!(world.space.used(), world.on_disk(), "size {size}");
    }
    assert!(disk.files(Path::new("/journal")).is_empty());
    assert_eq!(world.cache.stats().files, SIZES.len() as u64);
    drop(world);
    let world = self::world(&disk);
    for (n, size) in SIZES.into_iter().enumerate() {
        let file = world.cache.lookup(ino(n as u64 + 1), &version(2, 0)).unwrap();
        assert!(file.verified_complete().unwrap() && read_right(&file, 2, 0, size));
    }
}

#[test]
fn an_adopted_file_replaces_what_an_earlier_process_left() {
    let disk = MemDisk::new(1 << 30, 1);
    assert!(fill(&world(&disk).cache.file(ino(1), &version(2, 0), 2 * MIB).unwrap(), 2));
    let world = world(&disk);
    let staged = disk.open(Path::new("/journal/up"), Open::New).unwrap();
    staged.write_at(&bytes(ino(1), 2, 0, 2 * MIB), 0).unwrap();
    world.space.occupied(2 * MIB);
    let present = RangeSet::from_iter([0..2 * MIB]);
    let from = Path::new("/journal/up");
    let file = world.cache.adopt(from, ino(1), &version(2, 0), 2 * MIB, staged, present, 2 * MIB).unwrap();
    assert!(read_right(&file, 2, 0, 2 * MIB));
    assert_eq!(world.space.used(), world.on_disk());
    world.cache.scan();
    assert_eq!((world.space.used(), world.cache.stats().files), (world.on_disk(), 1));
}

#[test]
fn only_whole_present_pieces_are_adopted() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    let (from, size) = (Path::new("/journal/up"), MIB + 10);
    let staged = disk.open(from, Open::New).unwrap();
    staged.write_at(&bytes(ino(1), 2, 0, size), 0).unwrap();
    let held = staged.stat().unwrap().allocated;
    world.space.occupied(held);
    let present = RangeSet::from_iter([5..3 * PIECE + 1, MIB..size]);
    let file = world.cache.adopt(from, ino(1), &version(2, 0), size, staged, present, held).unwrap();
    assert_eq!(file.missing(0..size), [0..PIECE, 3 * PIECE..MIB]);
    assert!(read_right(&file, 2, PIECE, 2 * PIECE) && read_right(&file, 2, MIB, 10));
    assert_eq!(world.space.used(), world.on_disk());
}

#[test]
fn an_adopted_file_without_a_whole_piece_is_only_removed() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    let staged = disk.open(Path::new("/journal/up"), Open::New).unwrap();
    staged.write_at(b"abc", 0).unwrap();
    world.space.occupied(4096);
    let present = RangeSet::from_iter([0..3]);
    let file = world.cache.adopt(Path::new("/journal/up"), ino(1), &version(2, 0), MIB, staged, present, 4096).unwrap();
    assert_eq!((file.present_bytes(), world.space.used()), (0, world.on_disk()));
    assert!(disk.files(Path::new("/journal")).is_empty());
}

#[test]
fn a_renamed_version_keeps_its_bytes() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    let (old, new) = (version(1, 0), version(1, 1_000_000));
    let size = MIB + 5;
    let before = world.cache.file(ino(1), &old, size).unwrap();
    assert!(fill(&before, 1));
    assert!(world.cache.rename_version(ino(1), &old, &new).unwrap());
    assert!(before.is_gone() && world.cache.lookup(ino(1), &old).is_none());
    let after = world.cache.lookup(ino(1), &new).unwrap();
    assert!(after.is_complete() && read_right(&after, 1, 0, size));
    assert_eq!(world.space.used(), world.on_disk());
    assert!(!world.cache.rename_version(ino(1), &old, &new).unwrap(), "there is no old one any more");
    drop((before, after, world));
    let world = self::world(&disk);
    assert!(read_right(&world.cache.lookup(ino(1), &new).unwrap(), 1, 0, size));
}

#[test]
fn a_held_file_that_is_removed_stays_readable_and_counted_until_the_hold_ends() {
    let disk = MemDisk::new(1 << 30, 1);
    let world = world(&disk);
    let file = world.cache.file(ino(1), &version(1, 0), MIB).unwrap();
    assert!(fill(&file, 1));
    let hold = file.hold().unwrap();
    world.cache.remove(ino(1), None).unwrap();
    assert!(world.space.used() >= MIB);
    drop(hold);
    assert_eq!(world.space.used(), world.on_disk());
}
