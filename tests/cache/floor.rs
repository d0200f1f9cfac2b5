//! The floor, on a small file system of its own.

use std::process::Command;
use std::sync::Arc;

use fourwheel::cache::Stored;
use fourwheel::error::Kind;
use fourwheel::sys::{Disk, Open, RealDisk};

use crate::world::*;

/// An ext4 of 64 MiB in a file, mounted.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn mount() -> Result<Small, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = dir.path().join("image");
        let file = RealDisk.open(&image, Open::New).map_err(|e| e.to_string())?;
        file.set_len(64 * MIB).map_err(|e| e.to_string())?;
        let point = dir.path().join("mnt");
        RealDisk.make_dirs(&point).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        Ok(Small { dir })
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[test]
fn the_floor_stays_free_and_what_others_take_is_made_good() {
    let small = match Small::mount() {
        Ok(small) => small,
        Err(why) => {
            eprintln!("SKIPPED, NOT PASSED: the floor on a real file system needs root and loop devices: {why}");
            return;
        }
    };
    const FLOOR: u64 = 20 * MIB;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let free = || RealDisk.free_bytes(&small.path()).unwrap();
    let world = World::open(disk, &small.path().join("cache"), 1 << 40, FLOOR);
    for no in 1..100 {
        let file = world.cache.file(ino(no), &version(1, 0), MIB).unwrap();
        assert_eq!(store(&file, 1, 0, 16).unwrap(), Stored::Kept);
        assert!(free() >= FLOOR, "{} free after file {no}", free());
    }
    assert!(world.on_disk() > 20 * MIB);
    let foreign = RealDisk.open(&small.path().join("foreign"), Open::New).unwrap();
    let rubbish = vec![1; MIB as usize];
    (0..15).for_each(|at| foreign.write_at(&rubbish, at * MIB).unwrap());
    assert!(free() < FLOOR, "somebody else filled the disk");
    for no in 100..105 {
        let file = world.cache.file(ino(no), &version(1, 0), MIB).unwrap();
        store(&file, 1, 0, 16).unwrap();
    }
    assert!(free() >= FLOOR, "{} free", free());
    assert_eq!(world.space.reserve(60 * MIB).err().unwrap().kind, Kind::NoSpace);
    assert_eq!(world.cache.stats().files, 0, "all that could go went");
}
