//! Threads that do everything at once; every byte served must be that of its version.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fourwheel::cache::PIECE;
use fourwheel::model::RangeSet;
use fourwheel::sys::{Disk, Open, RealDisk};

use crate::mem_disk::MemDisk;
use crate::world::*;

const MAX: u64 = 6 * MIB;
const INOS: u64 = 6;
const THREADS: u64 = 4;

struct Play<'a> {
    world: &'a World,
    journal: &'a Path,
    served: AtomicU64,
    taken: AtomicU64,
}

impl Play<'_> {
    fn act(&self, dice: &mut Dice, name: &str) {
        let no = 1 + dice.roll(INOS);
        let (size, ino) = (SIZES[no as usize % SIZES.len()], ino(no));
        let content = 1 + dice.roll(2);
        let tag = dice.roll(2);
        let version = version(content, tag);
        let cache = &self.world.cache;
        match dice.roll(20) {
            0..6 => {
                let file = cache.file(ino, &version, size).unwrap();
                store(&file, content, dice.roll(size.div_ceil(PIECE)), 1 + dice.roll(20)).unwrap();
            }
            6..12 => {
                let file = cache.file(ino, &version, size).unwrap();
                for _ in 0..4 {
                    let hit = read_right(&file, content, dice.roll(size), 1 + dice.roll(3 * PIECE));
                    self.served.fetch_add(u64::from(hit), Ordering::Relaxed);
                }
                let wanted = dice.roll(size)..size;
                assert!(file.missing(wanted.clone()).iter().all(|gap| gap.end <= size && gap.start % PIECE == 0));
            }
            12 => self.take(&format!("{name}-t"), ino, content, tag),
            13 => self.adopt(dice, &format!("{name}-a"), ino, size, content, tag),
            14 => drop(cache.rename_version(ino, &version, &crate::world::version(content, 1 - tag)).unwrap()),
            15 => cache.remove(ino, (dice.roll(2) == 0).then_some(&version)).unwrap(),
            16 => {
                cache.pin(ino);
                cache.unpin(crate::world::ino(1 + dice.roll(INOS))).unwrap();
            }
            17 => {
                let Some(file) = cache.lookup(ino, &version) else { return };
                let Some(hold) = file.hold() else { return };
                if file.verified_complete().unwrap() && !file.is_gone() {
                    let mut found = vec![0; size as usize];
                    let read = hold.data().read_at(&mut found, 0).unwrap();
                    // Taken meanwhile, it is the journal's, and may hold what the user wrote.
                    if !file.is_gone() {
                        assert!(read == found.len() && found == bytes(ino, content, 0, size), "wrong bytes while held");
                    }
                }
            }
            18 => {
                assert_eq!(cache.verify(|report| report.files < 3).unwrap().bad_pieces, 0);
            }
            _ => cache.scan(),
        }
    }

    fn take(&self, name: &str, ino: fourwheel::model::Ino, content: u64, tag: u64) {
        let path = self.journal.join(name);
        let Some(taken) = self.world.cache.take(ino, &version(content, tag), &path).unwrap() else { return };
        self.taken.fetch_add(1, Ordering::Relaxed);
        for range in taken.present.iter() {
            let mut found = vec![0; (range.end - range.start) as usize];
            assert_eq!(taken.file.read_at(&mut found, range.start).unwrap(), found.len());
            assert!(found == bytes(ino, content, range.start, found.len() as u64), "wrong bytes taken");
        }
        // The user writes: nobody who still holds the cached file may see it, and none of their stores may run on.
        let size = taken.file.stat().unwrap().size as usize;
        taken.file.write_at(&vec![0xee; size], 0).unwrap();
        (0..50).for_each(|_| std::thread::yield_now());
        let mut found = vec![0; size];
        taken.file.read_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|byte| *byte == 0xee), "a store ran on into a taken file");
        self.world.disk.remove(&path).unwrap();
        drop(taken.file);
        self.world.space.released(taken.allocated);
    }

    fn adopt(&self, dice: &mut Dice, name: &str, ino: fourwheel::model::Ino, size: u64, content: u64, tag: u64) {
        let path = self.journal.join(name);
        let Ok(room) = self.world.space.reserve(size.next_multiple_of(4096)) else { return };
        let held = room.bytes();
        let staged = self.world.disk.open(&path, Open::New).unwrap();
        staged.write_at(&bytes(ino, content, 0, size), 0).unwrap();
        room.commit(held);
        let present = RangeSet::from_iter([dice.roll(2) * dice.roll(size)..size]);
        self.world.cache.adopt(&path, ino, &version(content, tag), size, staged, present, held).unwrap();
    }
}

/// More of them for a longer look: `CACHE_MODEL_ROUNDS`.
fn rounds(usual: u64) -> u64 {
    std::env::var("CACHE_MODEL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn play(disk: Arc<dyn Disk>, dir: &Path, rounds: u64) {
    let journal = dir.join("journal");
    disk.make_dirs(&journal).unwrap();
    for life in 0..2 {
        let world = World::open(disk.clone(), &dir.join("cache"), MAX, 0);
        let play = Play { world: &world, journal: &journal, served: AtomicU64::new(0), taken: AtomicU64::new(0) };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let play = &play;
                scope.spawn(move || {
                    let mut dice = Dice(1000 * life + thread);
                    (0..rounds).for_each(|_| play.act(&mut dice, &thread.to_string()));
                });
            }
        });
        assert!(play.served.into_inner() > rounds / 10 && play.taken.into_inner() > 0);
        world.cache.scan();
        assert_eq!(world.cache.verify(|_| true).unwrap().bad_pieces, 0);
        assert_eq!(world.cache.stats().bad_pieces, 0, "nothing is ever rotten without a reason");
        assert!(disk.list(&journal).unwrap().is_empty());
        let (used, on_disk) = (world.space.used(), world.on_disk());
        assert!(used.abs_diff(on_disk) <= 64 << 10, "{used} counted, {on_disk} on disk");
        assert!(used <= MAX);
    }
}

#[test]
fn a_store_never_meets_the_hole_of_an_eviction() {
    let disk = MemDisk::new(1 << 30, 1).racy();
    let world = World::open(Arc::new(disk), Path::new("/cache"), 4 * MIB, 0);
    let file = world.cache.file(ino(1), &version(1, 0), 3 * MIB).unwrap();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (file, done) = (&file, &done);
            scope.spawn(move || {
                let mut dice = Dice(thread);
                for _ in 0..rounds(150) {
                    let piece = dice.roll(47);
                    store(file, 1, piece, 2).unwrap();
                    read_right(file, 1, piece * PIECE, 2 * PIECE);
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut dice = Dice(7);
            while done.load(Ordering::Relaxed) < 2 {
                drop(world.space.reserve(world.space.max().saturating_sub(dice.roll(2 * MIB))));
                std::thread::yield_now();
            }
        });
    });
    assert_eq!(world.cache.stats().bad_pieces, 0);
    assert_eq!(world.cache.verify(|_| true).unwrap().bad_pieces, 0);
    assert!(world.cache.stats().evicted_bytes > 2 * MIB);
    world.cache.scan();
    assert_eq!(world.space.used(), world.on_disk());
}

#[test]
fn threads_on_a_simulated_disk_never_see_a_wrong_byte() {
    let disk = MemDisk::new(1 << 30, 1).racy();
    play(Arc::new(disk), Path::new("/drive"), rounds(120));
}

#[test]
fn threads_on_the_real_disk_never_see_a_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    play(Arc::new(RealDisk), dir.path(), rounds(300));
}
