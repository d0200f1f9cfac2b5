//! The user: what programs do, a system call at a time, beside the model.

use crate::machine::{Machine, name};
use crate::model::{Model, Thing, parent};
use crate::rig::Rng;
use fourwheel::drive::{Access, Fh, NewNode, RenameMode, SetAttr, SetXattr};
use fourwheel::error::{Error, Kind, Result};
use fourwheel::model::{FileKind, Ino};

/// One system call.
#[derive(Clone, Debug)]
pub enum Act {
    /// Makes a file or empties the one that is there, and writes it in one go.
    Write {
        path: String,
        content: Vec<u8>,
        sync: bool,
    },
    /// Writes into the middle of a file.
    Patch {
        path: String,
        offset: u64,
        content: Vec<u8>,
    },
    Truncate {
        path: String,
        size: u64,
    },
    Unlink {
        path: String,
    },
    /// Removes a file that is open, and goes on writing to it.
    UnlinkOpen {
        path: String,
        content: Vec<u8>,
    },
    Rename {
        from: String,
        to: String,
        mode: RenameMode,
    },
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Attributes {
        path: String,
        mode: u32,
        value: Vec<u8>,
    },
    Sync {
        path: String,
    },
    SyncNames,
    Read {
        path: String,
    },
}

const FOLDERS: [&str; 4] = ["", "d0/", "d1/", "d0/e/"];

fn any_path(rng: &mut Rng, model: &Model) -> String {
    // Mostly what is there.
    if rng.next(3) > 0 && !model.names.is_empty() {
        let at = rng.next(model.names.len() as u64) as usize;
        return model.names.keys().nth(at).cloned().unwrap_or_default();
    }
    let folder = FOLDERS[[0, 0, 0, 1, 1, 2, 2, 3][rng.next(8) as usize]];
    match rng.next(10) {
        0..8 => format!("{folder}f{}", rng.next(4)),
        _ => any_folder(rng),
    }
}

fn any_folder(rng: &mut Rng) -> String {
    ["d0", "d1", "d0/e", "d1/e"][rng.next(4) as usize].to_owned()
}

/// Content that is nobody else's. Some are of several pieces.
pub fn content(rng: &mut Rng, mark: &str) -> Vec<u8> {
    let len = match rng.next(12) {
        0 => 0,
        1 => 60_000 + rng.next(90_000),
        _ => rng.next(6000),
    };
    let mut bytes = mark.as_bytes().to_vec();
    let mut word = rng.next(u64::MAX) | 1;
    while (bytes.len() as u64) < len {
        word = word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) | 1;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What the user does next.
pub fn choose(rng: &mut Rng, model: &Model, step: u64) -> Act {
    let (path, other) = (any_path(rng, model), any_path(rng, model));
    let mark = format!("{step}:");
    match rng.next(40) {
        0..9 => Act::Write { path, content: content(rng, &mark), sync: rng.next(4) == 0 },
        9..13 => Act::Patch { path, offset: rng.next(8000), content: content(rng, &mark) },
        13..15 => Act::Truncate { path, size: rng.next(9000) },
        15..18 => Act::Unlink { path },
        18 => Act::UnlinkOpen { path, content: content(rng, &mark) },
        19..25 => Act::Rename { from: path, to: other, mode: RenameMode::Replace },
        25 => Act::Rename { from: path, to: other, mode: RenameMode::NoReplace },
        26 => Act::Rename { from: path, to: other, mode: RenameMode::Exchange },
        27..29 => Act::Rename { from: any_folder(rng), to: any_folder(rng), mode: RenameMode::Replace },
        29 => Act::Rename { from: any_folder(rng), to: any_folder(rng), mode: RenameMode::Exchange },
        30..33 => Act::Mkdir { path: any_folder(rng) },
        33 => Act::Rmdir { path: any_folder(rng) },
        34 => Act::Symlink { path, target: mark },
        35 => Act::Attributes { path, mode: 0o600 | rng.next(0o200) as u32, value: mark.into_bytes() },
        36 => Act::Sync { path },
        37 => Act::SyncNames,
        _ => Act::Read { path },
    }
}

/// What the model says of an act: the tree after it, and the error that it must give.
pub fn expect(model: &Model, act: &Act) -> (Model, std::result::Result<(), Kind>) {
    let mut after = model.clone();
    let outcome = match act {
        Act::Write { path, content, .. } => after.create(path).map(|()| {
            if let Some(number) = after.file(path) {
                after.write(number, 0, content);
            }
        }),
        Act::Patch { path, offset, content } => {
            on_file(model, path).map(|number| after.write(number, *offset as usize, content))
        }
        Act::Truncate { path, size } => on_file(model, path).map(|number| after.truncate(number, *size as usize)),
        Act::Unlink { path } => after.unlink(path),
        Act::UnlinkOpen { path, .. } => on_file(model, path).and_then(|_| after.unlink(path)),
        Act::Rename { from, to, mode } => after.rename(from, to, *mode),
        Act::Mkdir { path } => after.mkdir(path),
        Act::Rmdir { path } => after.rmdir(path),
        Act::Symlink { path, target } => after.make(path, Thing::Link(target.clone())),
        Act::Attributes { path, .. } => on_any(model, path),
        Act::Sync { path } | Act::Read { path } => on_file(model, path).map(drop),
        Act::SyncNames => Ok(()),
    };
    match outcome {
        Ok(()) => (after, Ok(())),
        Err(kind) => (model.clone(), Err(kind)),
    }
}

fn on_any(model: &Model, path: &str) -> std::result::Result<(), Kind> {
    // Resolving finds what making would: a missing directory first.
    match model.clone().mkdir(path) {
        Err(Kind::Exists) => Ok(()),
        Err(kind) => Err(kind),
        Ok(()) => Err(Kind::NotFound),
    }
}

fn on_file(model: &Model, path: &str) -> std::result::Result<u64, Kind> {
    on_any(model, path)?;
    match model.names.get(path) {
        Some(Thing::File(number)) => Ok(*number),
        Some(Thing::Directory(_)) => Err(Kind::IsDirectory),
        _ => Err(Kind::Invalid),
    }
}

/// Does it. `None`: the worker died meanwhile. What a `Read` finds is compared here.
pub async fn perform(machine: &mut Machine, act: &Act, model: &Model) -> Option<Result<()>> {
    macro_rules! good {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(e) => return Some(Err(e)),
            }
        };
    }
    let caller = machine.caller();
    let write = Access { write: true, truncate: false };
    match act {
        Act::Write { path, content, sync } => {
            let (holder, last) = good!(place(machine, path).await?);
            let (attr, opened) = good!(
                machine
                    .patiently(async |r| r
                        .drive
                        .create(caller, holder, &last, 0o644, Access { write: true, truncate: true }, false)
                        .get()
                        .await)
                    .await?
            );
            let done = fill(machine, attr.ino, opened.fh, 0, content, *sync).await;
            machine.running.drive.release(attr.ino, opened.fh);
            done
        }
        Act::Patch { path, offset, content } => {
            let ino = good!(file(machine, path).await?);
            let opened = good!(machine.patiently(async |r| r.drive.open(ino, write).get().await).await?);
            let done = fill(machine, ino, opened.fh, *offset, content, false).await;
            machine.running.drive.release(ino, opened.fh);
            done
        }
        Act::Truncate { path, size } => {
            let ino = good!(file(machine, path).await?);
            let change = SetAttr { size: Some(*size), ..SetAttr::default() };
            machine.patiently(async |r| r.drive.setattr(ino, change).get().await.map(drop)).await
        }
        Act::Unlink { path } => {
            let (holder, last) = good!(place(machine, path).await?);
            machine.patiently(async |r| r.drive.unlink(caller, holder, &last).get().await).await
        }
        Act::UnlinkOpen { path, content } => {
            let (holder, last) = good!(place(machine, path).await?);
            let ino = good!(file(machine, path).await?);
            let opened = good!(machine.patiently(async |r| r.drive.open(ino, write).get().await).await?);
            let gone = machine.patiently(async |r| r.drive.unlink(caller, holder, &last).get().await).await?;
            let mut done = Some(gone);
            if matches!(done, Some(Ok(()))) {
                done = fill(machine, ino, opened.fh, 0, content, false).await;
                if let Some(Ok(())) = done {
                    let len = content.len() as u32;
                    let found = machine.patiently(async |r| r.drive.read(ino, opened.fh, 0, len).get().await).await?;
                    assert!(good!(found)[..] == content[..], "an open file without a name reads as it was written");
                }
            }
            machine.running.drive.release(ino, opened.fh);
            machine.running.drive.forget(ino);
            done
        }
        Act::Rename { from, to, mode } => {
            let (holder, last) = good!(place(machine, from).await?);
            let (new_holder, new_last) = good!(place(machine, to).await?);
            machine
                .patiently(async |r| r.drive.rename(caller, holder, &last, new_holder, &new_last, *mode).get().await)
                .await
        }
        Act::Mkdir { path } => make(machine, path, NewNode::Directory).await,
        Act::Symlink { path, target } => make(machine, path, NewNode::Symlink(target.clone().into_bytes())).await,
        Act::Rmdir { path } => {
            let (holder, last) = good!(place(machine, path).await?);
            machine.patiently(async |r| r.drive.rmdir(caller, holder, &last).get().await).await
        }
        Act::Attributes { path, mode, value } => {
            let ino = good!(machine.find(path).await?).ino;
            let change = SetAttr { mode: Some(*mode), ..SetAttr::default() };
            let set = machine.patiently(async |r| r.drive.setattr(ino, change).get().await.map(drop)).await?;
            good!(set);
            machine.patiently(async |r| r.drive.setxattr(ino, "user.x", value, SetXattr::Either).get().await).await
        }
        Act::Sync { path } => {
            let ino = good!(file(machine, path).await?);
            let opened = good!(machine.patiently(async |r| r.drive.open(ino, write).get().await).await?);
            let done = machine.patiently(async |r| r.drive.fsync(ino)).await;
            machine.running.drive.release(ino, opened.fh);
            done
        }
        Act::SyncNames => machine.patiently(async |r| r.drive.fsyncdir()).await,
        Act::Read { path } => {
            let ino = good!(file(machine, path).await?);
            let found = good!(machine.read(ino).await?);
            let wanted = model.file(path).map(|number| &model.contents[&number]);
            assert!(Some(&found) == wanted, "{path} reads as it was written, not {} bytes of another", found.len());
            Some(Ok(()))
        }
    }
}

/// A file's inode; other kinds are refused as the kernel does before it asks a file system.
async fn file(machine: &Machine, path: &str) -> Option<Result<Ino>> {
    Some(machine.find(path).await?.and_then(|attr| match attr.kind {
        FileKind::Directory => Err(Error::new(Kind::IsDirectory, "the kernel says so")),
        FileKind::Symlink => Err(Error::new(Kind::Invalid, "the kernel says so")),
        _ => Ok(attr.ino),
    }))
}

async fn place(machine: &Machine, path: &str) -> Option<Result<(Ino, fourwheel::model::Name)>> {
    let holder = match machine.find(parent(path)).await? {
        Ok(holder) => holder,
        Err(e) => return Some(Err(e)),
    };
    if holder.kind != FileKind::Directory {
        return Some(Err(Error::new(Kind::NotDirectory, "the kernel says so")));
    }
    let last = path.rsplit('/').next().unwrap_or(path);
    Some(Ok((holder.ino, name(last))))
}

async fn make(machine: &mut Machine, path: &str, new: NewNode) -> Option<Result<()>> {
    let caller = machine.caller();
    let (holder, last) = match place(machine, path).await? {
        Ok(place) => place,
        Err(e) => return Some(Err(e)),
    };
    machine.patiently(async |r| r.drive.make(caller, holder, &last, new.clone(), 0o755).get().await.map(drop)).await
}

/// Writes, syncs if asked to, and closes.
async fn fill(machine: &Machine, ino: Ino, fh: Fh, offset: u64, content: &[u8], sync: bool) -> Option<Result<()>> {
    if !content.is_empty() {
        let written = machine.patiently(async |r| r.drive.write(ino, offset, content).get().await).await?;
        if let Err(e) = written {
            return Some(Err(e));
        }
    }
    if sync {
        let synced = machine.patiently(async |r| r.drive.fsync(ino)).await?;
        if let Err(e) = synced {
            return Some(Err(e));
        }
    }
    machine.patiently(async |r| r.drive.flush(ino, fh).get().await).await
}
