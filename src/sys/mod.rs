//! Time, chance, disk and HTTP behind traits, and the real ones. Nobody else calls `std::fs`, `SystemTime::now` or a random source.

mod chance;
mod clock;
mod disk;
pub mod http;
mod lock;

pub use chance::{Chance, RealChance};
pub use clock::{Clock, RealClock};
pub use disk::{Disk, DiskFile, FileStat, Open, RealDisk};
pub(crate) use lock::{Writing, locked, waited};
