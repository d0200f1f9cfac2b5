//! The cache and the disk bound from outside: on a simulated disk that crashes, and on the machine's.

#[path = "../support/mem_disk.rs"]
mod mem_disk;

mod basics;
mod bound;
mod crash;
mod floor;
mod handover;
mod model;
mod space;
mod world;
