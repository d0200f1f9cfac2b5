//! The cache and the disk bound from outside: on a simulated disk that crashes, and on the machine's.

#![allow(clippy::single_range_in_vec_init, reason = "one range is what is meant: lists of missing ranges")]

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
