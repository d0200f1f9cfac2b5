//! What the tests share: a drive's cache on some disk, and bytes that can be computed from what they stand for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fourwheel::cache::{Cache, CacheFile, PIECE, Stored};
use fourwheel::model::{Ino, Version};
use fourwheel::space::Space;
use fourwheel::sys::Disk;

pub const MIB: u64 = 1 << 20;
/// Sizes that sit on both sides of every edge.
pub const SIZES: [u64; 8] = [1, 5000, PIECE, PIECE + 1, MIB, MIB + 1, 2 * MIB + PIECE / 2, 3 * MIB];

/// A seeded source of numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % below
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn ino(raw: u64) -> Ino {
    Ino::new(raw).unwrap()
}

/// The tag of a content; several tags may stand for the same one.
pub fn version(content: u64, tag: u64) -> Version {
    Version::new(format!("c{content}-t{tag}"))
}

/// The bytes `offset..offset + len` of a content: what every read must give.
pub fn bytes(ino: Ino, content: u64, offset: u64, len: u64) -> Vec<u8> {
    let seed = mix(ino.get() << 32 | content);
    let words = offset / 8..(offset + len).div_ceil(8);
    let mut out: Vec<u8> = words.flat_map(|word| mix(seed ^ word).to_le_bytes()).collect();
    out.drain(..(offset % 8) as usize);
    out.truncate(len as usize);
    out
}

/// A cache with its books.
pub struct World {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub space: Arc<Space>,
    pub cache: Arc<Cache>,
}

impl World {
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, max: u64, min_free: u64) -> World {
        World::try_open(disk, dir, max, min_free).unwrap()
    }

    pub fn try_open(disk: Arc<dyn Disk>, dir: &Path, max: u64, min_free: u64) -> fourwheel::error::Result<World> {
        let space = Space::new(disk.clone(), dir.to_owned(), max, min_free);
        let cache = Cache::open(disk.clone(), dir.to_owned(), space.clone())?;
        Ok(World { disk, dir: dir.to_owned(), space, cache })
    }

    /// What the directory of the cache takes, as the disk counts.
    pub fn on_disk(&self) -> u64 {
        on_disk(&*self.disk, &self.dir)
    }
}

pub fn on_disk(disk: &dyn Disk, dir: &Path) -> u64 {
    let stat = |path: &Path| disk.stat(path).map_or(0, |stat| stat.allocated);
    let shards = (0..256).map(|shard| dir.join(format!("{shard:02x}")));
    shards
        .map(|shard| {
            let names = disk.list(&shard).unwrap();
            names.iter().map(|name| stat(&shard.join(name))).sum::<u64>() + stat(&shard)
        })
        .sum()
}

/// Stores a range of pieces of a file.
pub fn store(file: &CacheFile, content: u64, first: u64, count: u64) -> fourwheel::error::Result<Stored> {
    let start = (first * PIECE).min(file.size() / PIECE * PIECE);
    let end = (start + count * PIECE).min(file.size());
    file.store(start, &bytes(file.ino(), content, start, end - start))
}

/// Stores all of a file, a MiB at a time; whether all was kept.
pub fn fill(file: &CacheFile, content: u64) -> bool {
    (0..file.size().div_ceil(MIB)).all(|block| store(file, content, block * 16, 16).unwrap() == Stored::Kept)
}

/// Reads a range; panics when a served byte is wrong. Whether it was there.
pub fn read_right(file: &CacheFile, content: u64, offset: u64, len: u64) -> bool {
    match file.read(offset, len as usize) {
        Ok(Some(found)) => {
            let len = len.min(file.size().saturating_sub(offset));
            assert!(found == bytes(file.ino(), content, offset, len), "wrong bytes of {} at {offset}", file.version());
            true
        }
        Ok(None) | Err(_) => false,
    }
}

/// Reads every piece; panics when a served byte is wrong. How many pieces were there.
pub fn read_all_right(file: &CacheFile, content: u64) -> u64 {
    (0..file.size().div_ceil(PIECE)).filter(|piece| read_right(file, content, piece * PIECE, PIECE)).count() as u64
}
