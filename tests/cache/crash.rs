//! A process that dies at any operation, and a disk that loses what was not synced, never make a wrong byte.

use std::path::Path;
use std::sync::Arc;

use fourwheel::cache::PIECE;
use fourwheel::model::RangeSet;
use fourwheel::sys::{Disk, Open};

use crate::mem_disk::{Crash, MemDisk};
use crate::world::*;

const MAX: u64 = 4 * MIB;
const INOS: u64 = 5;
const CONTENTS: u64 = 2;
const TAGS: u64 = 2;
/// Data without a record that loading leaves alone, a file.
const SPARED: u64 = 33 << 10;

fn size_of(ino_no: u64) -> u64 {
    [1, 5000, PIECE + 1, MIB + 1, 2 * MIB + PIECE / 2][ino_no as usize % 5]
}

/// Does random things until the disk dies, or for a while. Errors are what a dying disk gives.
fn live(world: &World, disk: &MemDisk, dice: &mut Dice, tags: u64) {
    for step in 0..40 {
        let no = 1 + dice.roll(INOS);
        let (size, ino) = (size_of(no), ino(no));
        let content = 1 + dice.roll(CONTENTS);
        let version = version(content, dice.roll(tags));
        let journal = format!("/journal/{no}-{step}");
        let journal = Path::new(&journal);
        match dice.roll(12) {
            0..5 => {
                if let Ok(file) = world.cache.file(ino, &version, size) {
                    let _ = store(&file, content, dice.roll(40), 1 + dice.roll(20));
                }
            }
            5..7 => {
                if let Some(file) = world.cache.lookup(ino, &version) {
                    read_right(&file, content, dice.roll(size), 1 + dice.roll(3 * PIECE));
                }
            }
            7 => {
                if let Ok(Some(taken)) = world.cache.take(ino, &version, journal) {
                    // The user writes: no old version may ever show this.
                    for range in taken.present.iter() {
                        let _ = taken.file.write_at(&vec![0xee; (range.end - range.start) as usize], range.start);
                    }
                    let _ = disk.remove(journal);
                    world.space.released(taken.allocated);
                }
            }
            8 => {
                let Ok(staged) = disk.open(journal, Open::New) else { continue };
                let Ok(room) = world.space.reserve(size.next_multiple_of(4096)) else { continue };
                if staged.write_at(&bytes(ino, content, 0, size), 0).is_ok() {
                    let held = room.bytes();
                    room.commit(held);
                    let present = RangeSet::from_iter([0..size]);
                    if world.cache.adopt(journal, ino, &version, size, staged, present, held).is_err() {
                        let _ = disk.remove(journal);
                        world.space.released(held);
                    }
                }
            }
            9 => drop(world.cache.rename_version(ino, &version, &crate::world::version(content, dice.roll(tags)))),
            10 => drop(world.cache.remove(ino, Some(&version))),
            _ => world.cache.scan(),
        }
    }
}

fn everything_served_is_right(world: &World, tags: u64) -> u64 {
    let mut pieces = 0;
    for (no, content, tag) in
        (1..=INOS).flat_map(|no| (1..=CONTENTS).flat_map(move |c| (0..tags).map(move |t| (no, c, t))))
    {
        if let Some(file) = world.cache.lookup(ino(no), &version(content, tag)) {
            assert_eq!(file.size(), size_of(no));
            pieces += read_all_right(&file, content);
        }
    }
    pieces
}

fn the_books_are_right(world: &World) {
    world.cache.scan();
    world.cache.verify(|_| true).unwrap();
    let (used, on_disk) = (world.space.used(), world.on_disk());
    let files = world.cache.stats().files;
    assert!(on_disk <= used + files * SPARED, "{on_disk} on disk, {used} counted, {files} files");
    assert!(used <= on_disk + files * 4096, "{on_disk} on disk, {used} counted, {files} files");
}

/// Returns how many pieces survived crashes.
fn world_of(seed: u64) -> u64 {
    let disk = MemDisk::new(1 << 30, seed);
    let mut dice = Dice(seed);
    let mut survived = 0;
    for _life in 0..3 {
        disk.make_dirs(Path::new("/journal")).unwrap();
        for path in disk.files(Path::new("/journal")) {
            disk.remove(&path).unwrap();
        }
        let crash = dice.pick(&[Crash::Kill, Crash::Power]);
        let open = || World::try_open(Arc::new(disk.clone()), Path::new("/cache"), MAX, 0);
        {
            let world = open().unwrap();
            if dice.roll(2) == 0 {
                // Without a scan, and with evictions before it.
                live(&world, &disk, &mut dice, TAGS);
                assert!(world.space.used() <= MAX);
            }
            survived += everything_served_is_right(&world, TAGS);
            the_books_are_right(&world);
            survived += everything_served_is_right(&world, TAGS);
        }
        disk.die_at(disk.operations() + 1 + dice.roll(150));
        if let Ok(world) = open() {
            live(&world, &disk, &mut dice, TAGS);
        }
        disk.crash(crash);
    }
    survived
}

#[test]
fn no_crash_makes_a_wrong_byte() {
    let seeds: u64 = std::env::var("CACHE_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let first: u64 = std::env::var("CACHE_CRASH_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut survived = 0;
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(|| world_of(seed));
        match outcome {
            Ok(pieces) => survived += pieces,
            Err(_) => {
                panic!("repeat with CACHE_CRASH_FIRST={seed} CACHE_CRASH_SEEDS=1 cargo test --test cache no_crash")
            }
        }
    }
    assert!(survived > 10 * seeds, "crashes leave most of the cache: {survived} pieces of {seeds} worlds");
}

#[test]
fn after_a_kill_the_saved_total_is_never_too_low() {
    for at in (1..200).step_by(3) {
        let disk = MemDisk::new(1 << 30, at);
        let open = || World::try_open(Arc::new(disk.clone()), Path::new("/cache"), 64 * MIB, 0);
        disk.die_at(at);
        if let Ok(world) = open() {
            for no in 1..=20 {
                let Ok(file) = world.cache.file(ino(no), &version(1, 0), size_of(no)) else { break };
                let _ = store(&file, 1, 0, 16);
            }
        }
        disk.crash(Crash::Kill);
        let world = open().unwrap();
        assert!(world.space.used() >= world.on_disk(), "died at {at}");
        the_books_are_right(&world);
    }
}
