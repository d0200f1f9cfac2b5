//! A user alone on a drive, with a line that loses calls and answers and a worker that dies, seeded: at quiet both sides are
//! exactly what the user made. Nobody else writes, so nothing is a conflict, nothing comes back, and no other name is there.

#[path = "common/flaky.rs"]
mod flaky;
#[path = "common/rig.rs"]
mod rig;

use fourwheel::app::Running;
use fourwheel::drive::{Access, NewNode, RenameMode};
use fourwheel::error::{Result, Retry};
use fourwheel::model::{Ino, Name};
use fourwheel::remote::memory::Memory;
use fourwheel::remote::{Capabilities, Remote};
use fourwheel::sys::RealClock;
use rig::{
    Line, Rng, caller, capable, files, lossy, new_runtime, poor, quiet, start, tree, with_ids_and_sessions, worlds,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the drive must hold: files by path. A directory is there when the user made it; empty ones are not compared.
type Model = BTreeMap<String, Vec<u8>>;

const STEPS: u64 = 60;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Again, as a person would, while a directory that was not listed since the line broke cannot be listed.
async fn patiently<T>(mut act: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    for _ in 0..20 {
        match act().await {
            Err(e) if e.kind.retry() == Retry::Later => {}
            done => return done,
        }
    }
    act().await
}

/// The parent's inode and the last name of a path of at most two parts; the directory is made where it is missing.
async fn resolve(running: &Running, number: &mut u64, path: &str) -> Result<(Ino, Name)> {
    let Some((folder, file)) = path.split_once('/') else { return Ok((Ino::ROOT, name(path))) };
    let there = running.drive.lookup(Ino::ROOT, &name(folder)).get().await;
    let directory = match there {
        Ok(attr) => attr,
        Err(_) => {
            let folder = name(folder);
            patiently(async || {
                running.drive.make(caller(number), Ino::ROOT, &folder, NewNode::Directory, 0o755).get().await
            })
            .await?
        }
    };
    Ok((directory.ino, name(file)))
}

async fn write(running: &Running, number: &mut u64, path: &str, content: &[u8]) -> Result<()> {
    let (parent, last) = resolve(running, number, path).await?;
    let access = Access { write: true, truncate: true };
    let (attr, opened) =
        patiently(async || running.drive.create(caller(number), parent, &last, 0o644, access, false).get().await)
            .await?;
    let opened = if attr.size > 0 {
        running.drive.release(attr.ino, opened.fh);
        running.drive.open(attr.ino, access).get().await?
    } else {
        opened
    };
    let written = running.drive.write(attr.ino, 0, content).get().await;
    let flushed = running.drive.flush(attr.ino, opened.fh).get().await;
    running.drive.release(attr.ino, opened.fh);
    written.and(flushed)
}

async fn rename(running: &Running, number: &mut u64, from: &str, to: &str, mode: RenameMode) -> Result<()> {
    let (parent, last) = resolve(running, number, from).await?;
    let (new_parent, new_last) = resolve(running, number, to).await?;
    patiently(async || running.drive.rename(caller(number), parent, &last, new_parent, &new_last, mode).get().await)
        .await
}

async fn unlink(running: &Running, number: &mut u64, path: &str) -> Result<()> {
    let (parent, last) = resolve(running, number, path).await?;
    patiently(async || running.drive.unlink(caller(number), parent, &last).get().await).await
}

/// Removes a directory with all that is in it.
async fn remove_all(running: &Running, number: &mut u64, folder: &str, model: &Model) -> Result<()> {
    for path in model.keys().filter(|path| path.starts_with(&format!("{folder}/"))) {
        unlink(running, number, path).await?;
    }
    patiently(async || running.drive.rmdir(caller(number), Ino::ROOT, &name(folder)).get().await).await
}

/// The model after `from` became `to`, with all below.
fn moved(model: &Model, from: &str, to: &str) -> Model {
    let is_in = |path: &str, top: &str| path == top || path.starts_with(&format!("{top}/"));
    let kept = model.iter().filter(|(path, _)| !is_in(path, from) && !is_in(path, to));
    let gone = model.iter().filter(|(path, _)| is_in(path, from));
    let renamed = gone.map(|(path, content)| (format!("{to}{}", &path[from.len()..]), content.clone()));
    kept.map(|(path, content)| (path.clone(), content.clone())).chain(renamed).collect()
}

fn exchanged(model: &Model, one: &str, other: &str) -> Model {
    moved(&moved(&moved(model, one, "\u{1}"), other, one), "\u{1}", other)
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
    let mut model = Model::new();
    // A directory that was never listed cannot be made in: not over a bad line either, in its time.
    runtime.block_on(tree(&running));
    let mut acts: Vec<String> = vec![];
    for step in 0..STEPS {
        let file = |rng: &mut Rng| match rng.next(2) {
            0 => format!("f{}", rng.next(3)),
            _ => format!("d{}/f{}", rng.next(2), rng.next(2)),
        };
        let (path, other) = (file(&mut rng), file(&mut rng));
        let content = format!("{seed}-{step}-{}", "x".repeat(rng.next(2000) as usize)).into_bytes();
        let there = |path: &str| model.contains_key(path);
        let act = rng.next(16);
        let (said, done, after) = runtime.block_on(async {
            let n = &mut number;
            match act {
                0..=3 => {
                    let mut after = model.clone();
                    after.insert(path.clone(), content.clone());
                    (format!("write {path}"), write(&running, n, &path, &content).await, after)
                }
                // A save: a temporary file over another.
                4 | 5 => {
                    let temporary = format!("{path}.tmp");
                    let mut after = model.clone();
                    after.insert(path.clone(), content.clone());
                    let mut done = write(&running, n, &temporary, &content).await;
                    tokio::time::sleep(Duration::from_millis(rng.next(15))).await;
                    if done.is_ok() {
                        done = rename(&running, n, &temporary, &path, RenameMode::Replace).await;
                    }
                    (format!("save {path}"), done, after)
                }
                6 | 7 if there(&path) => {
                    let mut after = model.clone();
                    after.remove(&path);
                    (format!("unlink {path}"), unlink(&running, n, &path).await, after)
                }
                8 | 9 if there(&path) && path != other => {
                    let done = rename(&running, n, &path, &other, RenameMode::Replace).await;
                    (format!("move {path} to {other}"), done, moved(&model, &path, &other))
                }
                10 if there(&path) && there(&other) && path != other => {
                    let done = rename(&running, n, &path, &other, RenameMode::Exchange).await;
                    (format!("exchange {path} and {other}"), done, exchanged(&model, &path, &other))
                }
                11 => {
                    let has = |folder: &str| model.keys().any(|path| path.starts_with(&format!("{folder}/")));
                    match (has("d0"), has("d1")) {
                        (true, true) => {
                            let done = rename(&running, n, "d0", "d1", RenameMode::Exchange).await;
                            ("exchange d0 and d1".into(), done, exchanged(&model, "d0", "d1"))
                        }
                        (true, false) => {
                            let done = rename(&running, n, "d0", "d1", RenameMode::Replace).await;
                            ("move d0 to d1".into(), done, moved(&model, "d0", "d1"))
                        }
                        (false, true) => {
                            let done = remove_all(&running, n, "d1", &model).await;
                            let mut after = model.clone();
                            after.retain(|path, _| !path.starts_with("d1/"));
                            ("remove d1".into(), done, after)
                        }
                        (false, false) => ("nothing".into(), Ok(()), model.clone()),
                    }
                }
                12..=14 => {
                    tokio::time::sleep(Duration::from_millis(rng.next(40))).await;
                    ("pause".into(), Ok(()), model.clone())
                }
                _ => ("crash".into(), Ok(()), model.clone()),
            }
        });
        if std::env::var_os("TRACE").is_some() {
            eprintln!("-- {step} {said}");
        }
        acts.push(format!("{step} {said}"));
        done.unwrap_or_else(|e| panic!("seed {seed}: {said}: {e}\n{}", acts.join("\n")));
        model = after;
        if said == "crash" {
            drop(running);
            runtime.shutdown_timeout(Duration::from_secs(5));
            runtime = new_runtime();
            running = runtime.block_on(async { start(dir.path(), &remote, false) });
        }
        let here = runtime.block_on(tree(&running));
        same(&here, &model, &format!("seed {seed}: the mount at once"), &acts);
    }
    broken.store(false, Ordering::Relaxed);
    runtime.block_on(async {
        // A sweep that the bad line ended is tried again after 2 s, and what that finds may be sent.
        for _ in 0..60 {
            quiet(&running).await;
            if tree(&running).await == files(&memory) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        quiet(&running).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        quiet(&running).await;
        same(&tree(&running).await, &model, &format!("seed {seed}: the mount"), &acts);
    });
    same(&files(&memory), &model, &format!("seed {seed}: the remote"), &acts);
    let faults = running.store.check().unwrap();
    assert!(faults.is_empty(), "seed {seed}: {faults:?}\n{}", acts.join("\n"));
    drop(running);
    runtime.shutdown_timeout(Duration::from_secs(5));
}

fn same(found: &Model, wanted: &Model, what: &str, acts: &[String]) {
    let head =
        |content: &[u8]| format!("{} of {}", String::from_utf8_lossy(&content[..content.len().min(6)]), content.len());
    let shown =
        |model: &Model| model.iter().map(|(path, content)| format!("{path} = {}", head(content))).collect::<Vec<_>>();
    assert!(found == wanted, "{what} has\n{:#?}\nand not\n{:#?}\n{}", shown(found), shown(wanted), acts.join("\n"));
}

fn run(line: Line, capabilities: fn() -> Capabilities) {
    // A lossy world waits for what is tried again later: 2 s and more.
    let usual = if line == Line::Good { 30 } else { 20 };
    worlds(usual, &capabilities, &|seed, capabilities| world(seed, capabilities, line));
}

#[test]
fn the_drive_is_what_the_user_made() {
    run(Line::Good, capable);
}

#[test]
fn so_it_is_with_stable_ids_and_sessions() {
    run(Line::Good, with_ids_and_sessions);
}

#[test]
fn so_it_is_on_a_remote_that_can_do_little() {
    run(Line::Good, poor);
}

#[test]
fn so_it_is_over_a_line_that_loses_answers() {
    run(Line::Lossy, capable);
}

#[test]
fn so_it_is_over_such_a_line_with_stable_ids_and_sessions() {
    run(Line::Lossy, with_ids_and_sessions);
}

#[test]
fn so_it_is_over_such_a_line_on_a_remote_that_can_do_little() {
    run(Line::Lossy, poor);
}
