//! A user, a foreign editor and a crasher on one drive, seeded: at quiet both sides are equal and nothing acknowledged is lost.

#[path = "common/flaky.rs"]
mod flaky;
#[path = "common/rig.rs"]
mod rig;

use flaky::{Fault, Flaky};
use fourwheel::app::Running;
use fourwheel::drive::{Access, NewNode, RenameMode};
use fourwheel::error::{Error, Kind};
use fourwheel::model::{Ino, Meta, Name};
use fourwheel::remote::memory::{Memory, everything};
use fourwheel::remote::{Call, Capabilities, Condition, Place, PutRequest, Remote, body};
use fourwheel::sys::RealClock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rig::{
    Line, Rng, caller, capable, files, lossy, new_runtime, poor, quiet, start, trace, tree, with_ids_and_sessions,
    worlds,
};

/// What the other knows of a file before it replaces or removes it: its version as a condition, and its content.
async fn known(memory: &Memory, path: &str) -> (Condition, Option<bytes::Bytes>) {
    let place = Place::at(fourwheel::model::RemotePath::new(path));
    loop {
        let version = async || memory.stat(&place).await.unwrap().and_then(|entry| entry.version);
        let before = version().await;
        let content = memory.files().get(path).cloned();
        if version().await == before {
            return (before.map_or(Condition::Absent, Condition::Is), content);
        }
    }
}

fn world(seed: u64, capabilities: Capabilities, line: Line) {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        rng.next(2);
    }
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new(capabilities, Arc::new(RealClock)));
    let broken = Arc::new(AtomicBool::new(line == Line::Lossy));
    let remote: Arc<dyn Remote> = match line {
        Line::Good => memory.clone(),
        Line::Lossy => lossy(&memory, rng.next(u64::MAX), broken.clone()),
    };
    let mut runtime = new_runtime();
    let mut running = runtime.block_on(async { start(dir.path(), &remote, true) });
    let mut number = 2;
    // What must exist somewhere at the end: content -> who wrote it. A later write to the same place by the same hand replaces it.
    let mut acknowledged: BTreeMap<(bool, String), Vec<u8>> = BTreeMap::new();
    let mut trace: Vec<String> = vec![];
    // What the user removed last, and the names that the other touched or that something was moved from or to. What is only the
    // user's neither comes back nor is anybody's conflict.
    let mut removed: BTreeSet<String> = BTreeSet::new();
    let mut shared_names: BTreeSet<String> = BTreeSet::new();
    for step in 0..40u64 {
        let name = format!("f{}", rng.next(4));
        let folder = if rng.next(2) == 0 { String::new() } else { format!("d{}", rng.next(2)) };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let content = format!("{seed}-{step}-{}", "x".repeat(rng.next(3000) as usize)).into_bytes();
        let act = rng.next(12);
        let parent = if folder.is_empty() {
            Ino::ROOT
        } else {
            let n = Name::new(folder.as_bytes()).unwrap();
            match runtime.block_on(async { running.drive.lookup(Ino::ROOT, &n).get().await }) {
                Ok(attr) => attr.ino,
                Err(_) => match runtime.block_on(async {
                    running.drive.make(caller(&mut number), Ino::ROOT, &n, NewNode::Directory, 0o755).get().await
                }) {
                    Ok(attr) => attr.ino,
                    Err(_) => continue,
                },
            }
        };
        let n = Name::new(name.as_bytes()).unwrap();
        match act {
            0..=3 => {
                // The user writes a whole file.
                let Ok((attr, opened)) = runtime.block_on(async {
                    running
                        .drive
                        .create(caller(&mut number), parent, &n, 0o644, Access { write: true, truncate: true }, false)
                        .get()
                        .await
                }) else {
                    continue;
                };
                let opened = if attr.size > 0 {
                    running.drive.release(attr.ino, opened.fh);
                    runtime
                        .block_on(async {
                            running.drive.open(attr.ino, Access { write: true, truncate: true }).get().await
                        })
                        .unwrap()
                } else {
                    opened
                };
                let written = runtime.block_on(async { running.drive.write(attr.ino, 0, &content).get().await });
                runtime.block_on(running.drive.flush(attr.ino, opened.fh).get()).unwrap();
                running.drive.release(attr.ino, opened.fh);
                if std::env::var_os("TRACE").is_some() {
                    eprintln!("-- {step} user writes {path} as {}: {written:?}", attr.ino);
                }
                if let Err(e) = &written {
                    trace.push(format!("{step} user's write to {path} fails: {e}"));
                }
                if written.is_ok() {
                    trace.push(format!("{step} user writes {path} as {}", attr.ino));
                    removed.remove(&path);
                    acknowledged.insert((true, path), content);
                }
            }
            4 => {
                if runtime.block_on(async { running.drive.unlink(caller(&mut number), parent, &n).get().await }).is_ok()
                {
                    trace.push(format!("{step} user removes {path}"));
                    removed.insert(path.clone());
                    acknowledged.remove(&(true, path.clone()));
                    acknowledged.remove(&(false, path));
                }
            }
            5 | 6 => {
                let to = Name::new(format!("f{}", rng.next(4)).as_bytes()).unwrap();
                if runtime
                    .block_on(async {
                        running
                            .drive
                            .rename(caller(&mut number), parent, &n, Ino::ROOT, &to, RenameMode::Replace)
                            .get()
                            .await
                    })
                    .is_ok()
                {
                    trace.push(format!("{step} user moves {path} to {to}"));
                    let target = to.to_string();
                    if target != path {
                        removed.remove(&target);
                        shared_names.extend([path.clone(), target.clone()]);
                        for who in [true, false] {
                            acknowledged.remove(&(who, target.clone()));
                            if let Some(c) = acknowledged.remove(&(who, path.clone())) {
                                acknowledged.insert((who, target.clone()), c);
                            }
                        }
                    }
                }
            }
            7 | 8 => {
                if !folder.is_empty()
                    && runtime
                        .block_on(memory.stat(&Place::at(fourwheel::model::RemotePath::new(&folder))))
                        .unwrap()
                        .is_none()
                {
                    continue;
                }
                // Who replaces what was saved replaces it with full knowledge.
                let (condition, before) = runtime.block_on(known(&memory, &path));
                let request = PutRequest { body: body(content.clone()), meta: Meta::default(), condition };
                let place = Place::at(fourwheel::model::RemotePath::new(&path));
                if runtime.block_on(memory.put(&place, request)).is_ok() {
                    shared_names.insert(path.clone());
                    acknowledged.retain(|_, c| Some(&c[..]) != before.as_deref());
                    trace.push(format!("{step} other writes {path}"));
                    acknowledged.insert((false, path), content);
                }
            }
            9 => {
                let place = Place::at(fourwheel::model::RemotePath::new(&path));
                let (condition, before) = runtime.block_on(known(&memory, &path));
                if runtime.block_on(memory.remove(&place, false, &condition)).is_ok() {
                    acknowledged.retain(|_, c| Some(&c[..]) != before.as_deref());
                    trace.push(format!("{step} other removes {path}"));
                    shared_names.insert(path.clone());
                    acknowledged.remove(&(false, path));
                }
            }
            10 => {
                let pause = Duration::from_millis(rng.next(60));
                runtime.block_on(async { tokio::time::sleep(pause).await });
            }
            _ => {
                // The worker dies: its tasks end where they are. Its memory is forgotten.
                trace.push(format!("{step} crash"));
                drop(running);
                runtime.shutdown_timeout(Duration::from_secs(5));
                runtime = new_runtime();
                running = runtime.block_on(async { start(dir.path(), &remote, false) });
            }
        }
    }
    broken.store(false, Ordering::Relaxed);
    let here = runtime.block_on(async {
        quiet(&running).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        quiet(&running).await;
        tree(&running).await;
        // Without a feed, what a program looked into is listed again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        quiet(&running).await;
        let mut here = tree(&running).await;
        // A sweep that the bad line ended is tried again after 2 s, and what that finds may be sent.
        for _ in 0..100 {
            if line == Line::Good || here == files(&memory) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            quiet(&running).await;
            here = tree(&running).await;
        }
        here
    });
    let there = files(&memory);
    let names = |t: &BTreeMap<String, Vec<u8>>| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&here), names(&there), "seed {seed}\n{}", trace.join("\n"));
    for (path, content) in &here {
        let other = &there[path];
        let head = |c: &[u8]| format!("{} of {}", String::from_utf8_lossy(&c[..c.len().min(12)]), c.len());
        assert!(
            content == other,
            "seed {seed}: {path} is {} here and {} there\n{}",
            head(content),
            head(other),
            trace.join("\n")
        );
    }
    for path in removed.difference(&shared_names) {
        assert!(!there.contains_key(path), "seed {seed}: {path} came back\n{}", trace.join("\n"));
    }
    for path in there.keys() {
        let original = path.split_once(" (conflict ").map(|(original, _)| original);
        let theirs = original.is_none_or(|original| shared_names.contains(original));
        assert!(theirs, "seed {seed}: {path} is in conflict with nobody\n{}", trace.join("\n"));
    }
    // The user's last write to a place survives unless the user or, with full knowledge of it, the other removed or replaced it.
    for ((user, path), content) in &acknowledged {
        if *user {
            assert!(
                there.values().any(|c| c == content),
                "seed {seed}: lost the user's {path} {} now {:?}\n{}\n{:?}",
                String::from_utf8_lossy(&content[..6]),
                there.get(path).map(|c| (c.len(), String::from_utf8_lossy(&c[..c.len().min(8)]).into_owned())),
                trace.join("\n"),
                names(&there)
            );
        }
    }
    let faults = running.store.check().unwrap();
    assert!(faults.is_empty(), "seed {seed}: {faults:?}\n{}", trace.join("\n"));
    drop(running);
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// A new file in the root; nothing is written to it where `text` is empty.
async fn make_file(running: &Running, number: &mut u64, name: &str, text: &str) {
    let (access, name) = (Access { write: true, truncate: false }, Name::new(name.as_bytes()).unwrap());
    let made = running.drive.create(caller(number), Ino::ROOT, &name, 0o644, access, true).get().await;
    let (attr, opened) = made.unwrap();
    if !text.is_empty() {
        running.drive.write(attr.ino, 0, text.as_bytes()).get().await.unwrap();
    }
    running.drive.release(attr.ino, opened.fh);
}

/// Makes an empty file while the account cannot be reached, and its namesake there; what both sides have in the end.
#[test]
fn an_empty_new_file_gives_way_to_what_the_remote_has() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new(everything(), Arc::new(RealClock)));
    let broken = Arc::new(AtomicBool::new(true));
    let seen = broken.clone();
    let remote: Arc<dyn Remote> = Flaky::new(memory.clone(), move |_, _| {
        let fault = Fault::Before(Error::new(Kind::Offline, "no line"));
        if seen.load(Ordering::Relaxed) { fault } else { Fault::None }
    });
    let runtime = new_runtime();
    runtime.block_on(async {
        let running = start(dir.path(), &remote, true);
        // The root counts as listed only once it was; whoever makes a name waits for that.
        broken.store(false, Ordering::Relaxed);
        assert!(tree(&running).await.is_empty());
        broken.store(true, Ordering::Relaxed);
        make_file(&running, &mut 2, "f", "").await;
        memory.write_file("f", b"theirs".to_vec()).unwrap();
        broken.store(false, Ordering::Relaxed);
        for _ in 0..100 {
            quiet(&running).await;
            if tree(&running).await == files(&memory) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let expected = BTreeMap::from([("f".to_owned(), b"theirs".to_vec())]);
        assert_eq!((tree(&running).await, files(&memory)), (expected.clone(), expected));
    });
}

/// A delete and a new file of that name are one new version of the same remote file, whichever the planner meets first.
#[test]
fn the_successor_of_a_deleted_file_is_its_next_version() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new(everything(), Arc::new(RealClock)));
    let flaky = Flaky::new(memory.clone(), |_, _| Fault::None);
    let remote: Arc<dyn Remote> = flaky.clone();
    let runtime = new_runtime();
    runtime.block_on(async {
        let running = start(dir.path(), &remote, true);
        let mut number = 2;
        make_file(&running, &mut number, "f", "0").await;
        quiet(&running).await;
        for n in 1..=20 {
            let unlinked = running.drive.unlink(caller(&mut number), Ino::ROOT, &Name::new(b"f").unwrap());
            unlinked.get().await.unwrap();
            make_file(&running, &mut number, "f", &n.to_string()).await;
            quiet(&running).await;
        }
        assert_eq!(files(&memory), BTreeMap::from([("f".to_owned(), b"20".to_vec())]));
        assert_eq!(flaky.count(Call::Remove), 0, "the remote's file kept its identity");
    });
}

/// Runs `act` on saved files while the answers of the calls that `loses` names are lost, some of them or all; what both sides
/// have in the end.
fn after_lost_answers(
    saved: &[(&str, &str)],
    lost: Call,
    loses: impl Fn(u64) -> bool + Send + Sync + 'static,
    act: impl AsyncFnOnce(&Running, &mut u64),
) -> BTreeMap<String, Vec<u8>> {
    trace();
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(Memory::new(poor(), Arc::new(RealClock)));
    let runtime = new_runtime();
    for (path, text) in saved {
        if let Some((folder, _)) = path.split_once('/') {
            // Made once for all files in it.
            let _ =
                runtime.block_on(memory.mkdir(&Place::at(fourwheel::model::RemotePath::new(folder)), &Meta::default()));
        }
        memory.write_file(path, text.as_bytes().to_vec()).unwrap();
    }
    let remote: Arc<dyn Remote> = Flaky::new(memory.clone(), move |call, n| match call == lost && loses(n) {
        true => Fault::After(Error::new(Kind::Unavailable, "the answer is lost")),
        false => Fault::None,
    });
    runtime.block_on(async {
        let running = start(dir.path(), &remote, true);
        assert_eq!(tree(&running).await.len(), saved.len());
        let mut number = 2;
        act(&running, &mut number).await;
        for _ in 0..100 {
            quiet(&running).await;
            if tree(&running).await == files(&memory) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(tree(&running).await, files(&memory));
        let faults = running.store.check().unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        files(&memory)
    })
}

async fn rename(running: &Running, number: &mut u64, from: &str, to: &str, mode: RenameMode) {
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    let done = running.drive.rename(caller(number), Ino::ROOT, &name(from), Ino::ROOT, &name(to), mode);
    done.get().await.unwrap();
}

/// Long enough for the call to be made, and for another look at the directory.
async fn meanwhile(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn holds(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

#[test]
fn an_exchange_whose_answers_are_lost_is_an_exchange() {
    for lost in 0..6 {
        let found = after_lost_answers(
            &[("a", "A"), ("b", "B")],
            Call::Rename,
            move |n| n == lost,
            async |running, n| {
                rename(running, n, "a", "b", RenameMode::Exchange).await;
            },
        );
        assert_eq!(found, holds(&[("a", "B"), ("b", "A")]), "answer {lost}");
    }
}

#[test]
fn a_moved_directory_can_move_again_and_back_and_go_after_lost_answers() {
    for delay in [0, 10, 60] {
        let saved = [("q/f", "F")];
        let moved = |to: &'static str| {
            after_lost_answers(
                &saved,
                Call::Rename,
                |n| n < 3,
                async |running, n| {
                    rename(running, n, "q", "r", RenameMode::Replace).await;
                    meanwhile(delay).await;
                    rename(running, n, "r", to, RenameMode::Replace).await;
                },
            )
        };
        assert_eq!(moved("q"), holds(&[("q/f", "F")]), "delay {delay}");
        assert_eq!(moved("s"), holds(&[("s/f", "F")]), "delay {delay}");
        let gone = after_lost_answers(
            &saved,
            Call::Rename,
            |n| n < 3,
            async |running, n| {
                rename(running, n, "q", "r", RenameMode::Replace).await;
                meanwhile(delay).await;
                let (r, f) = (Name::new(b"r").unwrap(), Name::new(b"f").unwrap());
                let directory = running.drive.lookup(Ino::ROOT, &r).get().await.unwrap().ino;
                running.drive.unlink(caller(n), directory, &f).get().await.unwrap();
                running.drive.rmdir(caller(n), Ino::ROOT, &r).get().await.unwrap();
            },
        );
        assert_eq!(gone, holds(&[]), "delay {delay}");
    }
}

#[test]
fn a_save_over_a_moved_file_is_the_last_word_after_lost_answers() {
    for delay in [0, 10, 60] {
        for call in [Call::Rename, Call::Put] {
            let found = after_lost_answers(
                &[("f", "old")],
                call,
                |n| n < 2,
                async |running, n| {
                    rename(running, n, "f", "g", RenameMode::Replace).await;
                    meanwhile(delay).await;
                    let (access, name) = (Access { write: true, truncate: false }, Name::new(b"t").unwrap());
                    let made = running.drive.create(caller(n), Ino::ROOT, &name, 0o644, access, true).get().await;
                    let (attr, opened) = made.unwrap();
                    running.drive.write(attr.ino, 0, b"new").get().await.unwrap();
                    running.drive.release(attr.ino, opened.fh);
                    meanwhile(delay).await;
                    rename(running, n, "t", "g", RenameMode::Replace).await;
                },
            );
            assert_eq!(found, holds(&[("g", "new")]), "{call:?}, delay {delay}");
        }
    }
}

fn run(line: Line, capabilities: fn() -> Capabilities) {
    // A lossy world waits for what is tried again later: 2 s and more.
    let usual = if line == Line::Good { 40 } else { 20 };
    worlds(usual, &capabilities, &|seed, capabilities| world(seed, capabilities, line));
}

#[test]
fn nothing_is_lost_on_a_capable_remote() {
    run(Line::Good, capable);
}

#[test]
fn nothing_is_lost_with_stable_ids_and_sessions() {
    run(Line::Good, with_ids_and_sessions);
}

#[test]
fn nothing_is_lost_on_a_remote_that_can_do_little() {
    run(Line::Good, poor);
}

#[test]
fn nothing_is_lost_over_a_line_that_loses_answers() {
    run(Line::Lossy, capable);
}

#[test]
fn nothing_is_lost_over_such_a_line_with_stable_ids_and_sessions() {
    run(Line::Lossy, with_ids_and_sessions);
}

#[test]
fn nothing_is_lost_over_such_a_line_on_a_remote_that_can_do_little() {
    run(Line::Lossy, poor);
}
