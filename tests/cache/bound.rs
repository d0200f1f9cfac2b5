//! Bytes on disk stay under the bound at every instant, whoever stores.

use std::path::Path;
use std::sync::{Arc, RwLock};

use fourwheel::cache::Stored;
use fourwheel::sys::{Disk, RealDisk};

use crate::mem_disk::MemDisk;
use crate::world::*;

const MAX: u64 = 8 * MIB;
const THREADS: u64 = 4;

/// Four threads store ten times the bound; `check` runs after every store, while nobody stores.
fn store_ten_times(world: &World, check: impl Fn() + Sync) {
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (gate, check) = (&gate, &check);
            scope.spawn(move || {
                let mut dice = Dice(thread);
                let mut left = 10 * MAX / THREADS;
                for no in 0.. {
                    let size = dice.pick(&SIZES);
                    let file = world.cache.file(ino(1 + thread + THREADS * no), &version(1, 0), size).unwrap();
                    for first in (0..size.div_ceil(MIB)).map(|block| block * 16) {
                        let storing = gate.read().unwrap();
                        assert_eq!(store(&file, 1, first, 16).unwrap(), Stored::Kept, "there was room to make");
                        drop(storing);
                        let _alone = gate.write().unwrap();
                        check();
                    }
                    read_all_right(&file, 1);
                    left = left.saturating_sub(size);
                    if left == 0 {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn the_simulated_disk_never_held_more_at_any_operation() {
    let disk = MemDisk::new(1 << 30, 1).racy();
    let world = World::open(Arc::new(disk.clone()), Path::new("/cache"), MAX, 0);
    store_ten_times(&world, || assert!(world.space.used() <= MAX));
    assert!(disk.peak() <= MAX, "{} of {MAX}", disk.peak());
    assert!(disk.peak() > MAX / 2, "and it was used: {}", disk.peak());
    assert_eq!(world.space.used(), world.on_disk());
    assert!(world.cache.stats().evicted_bytes > 5 * MAX);
}

#[test]
fn the_real_disk_holds_no_more_after_any_store() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let world = World::open(disk, dir.path(), MAX, 0);
    let shown = |what: &str, bytes: u64| assert!(bytes <= MAX, "{what}: {bytes} bytes of {MAX}");
    store_ten_times(&world, || {
        shown("counted", world.space.used());
        // The directory itself and the saved total beside the shards.
        shown("on disk", world.on_disk() + (12 << 10));
    });
    assert!(world.space.used().abs_diff(world.on_disk()) <= 64 << 10, "{} {}", world.space.used(), world.on_disk());
}
