//! The bound and the floor by themselves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fourwheel::error::Kind;
use fourwheel::space::{Evict, Space};

use crate::mem_disk::MemDisk;
use crate::world::MIB;

fn space(disk: &MemDisk, max: u64, min_free: u64) -> Arc<Space> {
    Space::new(Arc::new(disk.clone()), PathBuf::from("/"), max, min_free)
}

/// Something to evict: a number of bytes.
struct Heap {
    space: Arc<Space>,
    bytes: AtomicU64,
    asked: AtomicU64,
}

impl Evict for Heap {
    fn evict(&self, bytes: u64) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let freed = self.bytes.load(Ordering::Relaxed).min(bytes);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.space.released(freed);
        freed
    }
}

fn heap(space: &Arc<Space>, bytes: u64) -> Arc<Heap> {
    space.occupied(bytes);
    let heap = Arc::new(Heap { space: space.clone(), bytes: AtomicU64::new(bytes), asked: AtomicU64::new(0) });
    let evictor: Weak<dyn Evict> = Arc::downgrade(&(heap.clone() as Arc<dyn Evict>));
    space.set_evictor(evictor);
    heap
}

#[test]
fn a_promise_counts_until_it_is_dropped_and_a_commit_until_it_is_released() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    let promise = space.reserve(MIB).unwrap();
    assert_eq!(space.used(), MIB);
    drop(promise);
    assert_eq!(space.used(), 0);
    space.reserve(MIB).unwrap().commit(5);
    assert_eq!(space.used(), 5);
    space.released(5);
    assert_eq!((space.used(), space.available()), (0, space.max()));
}

#[test]
fn the_bound_is_never_passed_and_what_was_promised_counts() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    let promises: Vec<_> = std::iter::from_fn(|| space.reserve(MIB).ok()).collect();
    assert_eq!(promises.len(), 15, "15 MiB and a margin");
    assert_eq!(space.reserve(MIB).err().unwrap().kind, Kind::NoSpace);
    assert!(space.used() <= space.max());
}

#[test]
fn a_short_reservation_evicts_what_it_lacks_and_no_more() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    let heap = heap(&space, space.max());
    space.reserve(3 * MIB).unwrap().commit(3 * MIB);
    assert_eq!(heap.bytes.load(Ordering::Relaxed), space.max() - 3 * MIB);
    assert_eq!(space.reserve(17 * MIB).err().unwrap().kind, Kind::NoSpace);
    assert_eq!(heap.asked.load(Ordering::Relaxed), 1, "what cannot fit evicts nothing");
}

/// Something that goes all at once, and takes its time.
struct Slow(Heap);

impl Evict for Slow {
    fn evict(&self, _bytes: u64) -> u64 {
        let freed = self.0.bytes.swap(0, Ordering::Relaxed);
        if freed == 0 {
            return 0;
        }
        (0..1000).for_each(|_| std::thread::yield_now());
        self.0.space.released(freed);
        freed
    }
}

#[test]
fn a_writer_is_not_refused_while_another_makes_room_for_both() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    space.occupied(space.max());
    let slow = Slow(Heap { space: space.clone(), bytes: AtomicU64::new(space.max()), asked: AtomicU64::new(0) });
    let slow: Arc<dyn Evict> = Arc::new(slow);
    space.set_evictor(Arc::downgrade(&slow));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| space.reserve(MIB).unwrap().commit(MIB));
        }
    });
}

#[test]
fn a_start_above_the_bound_is_brought_down() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    let heap = heap(&space, 40 * MIB);
    drop(space.reserve(0).unwrap());
    assert_eq!(heap.bytes.load(Ordering::Relaxed), space.max());
}

#[test]
fn the_floor_of_the_file_system_is_kept() {
    let disk = MemDisk::new(100 * MIB, 1);
    let space = space(&disk, 1 << 40, 60 * MIB);
    let promises: Vec<_> = std::iter::from_fn(|| space.reserve(MIB).ok()).collect();
    assert_eq!(promises.len(), 40);
    drop(promises);
    disk.set_foreign(50 * MIB);
    assert_eq!(space.reserve(MIB).err().unwrap().kind, Kind::NoSpace, "others took it");
    disk.set_foreign(0);
    assert!(space.reserve(MIB).is_ok());
}

#[test]
fn free_space_that_the_file_system_shows_late_does_not_empty_the_cache() {
    // The heap is on no disk at all, so the disk never shows that anything was freed.
    let disk = MemDisk::new(100 * MIB, 1);
    let space = space(&disk, 1 << 40, 100 * MIB - MIB / 2);
    let heap = heap(&space, 50 * MIB);
    space.reserve(MIB).unwrap().commit(MIB);
    assert_eq!(heap.bytes.load(Ordering::Relaxed), 50 * MIB - MIB / 2);
}

#[test]
fn meters_count() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    let database = Arc::new(AtomicU64::new(0));
    let meter = database.clone();
    space.add_meter(Box::new(move || meter.load(Ordering::Relaxed)));
    assert!(space.reserve(15 * MIB).is_ok());
    database.store(10 * MIB, Ordering::Relaxed);
    assert_eq!((space.reserve(15 * MIB).is_ok(), space.reserve(5 * MIB).is_ok()), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_writer_gets_what_is_released() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    space.reserve(15 * MIB).unwrap().commit(15 * MIB);
    let waiting = tokio::spawn({
        let space = space.clone();
        async move { space.wait_for(2 * MIB, Duration::from_secs(30)).await.map(|promise| promise.bytes()) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    space.released(3 * MIB);
    assert_eq!(waiting.await.unwrap().unwrap(), 2 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_writer_is_refused_at_its_deadline() {
    let space = space(&MemDisk::new(1 << 30, 1), 16 * MIB, 0);
    space.reserve(15 * MIB).unwrap().commit(15 * MIB);
    let before = tokio::time::Instant::now();
    assert_eq!(space.wait_for(2 * MIB, Duration::from_secs(3)).await.err().unwrap().kind, Kind::NoSpace);
    assert_eq!(before.elapsed().as_secs(), 3);
    assert_eq!(space.wait_for(20 * MIB, Duration::from_secs(3)).await.err().unwrap().kind, Kind::NoSpace);
    assert_eq!(before.elapsed().as_secs(), 3, "what can never fit does not wait");
}
