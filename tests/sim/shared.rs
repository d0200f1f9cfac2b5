//! Worlds with somebody else, who writes to the account directly, knowing what is there.
//!
//! Nobody can say then what the mount must show at once. But what either wrote is gone only when one of them saw and replaced or
//! removed it, the other with the knowledge of exactly that content; everything else is somewhere in the end, under its name or
//! as a conflict copy, and both sides are equal.

use crate::machine::{Machine, name};
use crate::model::{Model, Seen, Shown, told};
use crate::rig::Rng;
use crate::user::{self, Act};
use crate::world::{Kindness, Tally, Trouble, digest, is_on_remote, short};
use fourwheel::drive::RenameMode;
use fourwheel::model::{Ino, Meta, RemotePath};
use fourwheel::remote::{Condition, Place, PutRequest, Remote, body};
use fourwheel::store::Which;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Acts of both in one world.
const ACTS: u64 = 50;

const PATHS: [&str; 10] = ["f0", "f1", "f2", "f3", "d0/f0", "d0/f1", "d0/f2", "d1/f0", "d1/f1", "d1/f2"];

struct World {
    trouble: Trouble,
    machine: Machine,
    /// What was written, and nobody who saw it replaced or removed.
    alive: BTreeSet<Vec<u8>>,
    rng: Rng,
    tally: Tally,
}

/// Lives through one world.
pub async fn live(seed: u64, mut machine: Machine, rng: Rng, kindness: Kindness) -> Tally {
    machine.shared = true;
    let trouble = Trouble::new(seed, kindness);
    let mut world = World { trouble, machine, alive: BTreeSet::new(), rng, tally: Tally::default() };
    world.machine.seen().await;
    world.machine.weather.bad.store(kindness.bad_line, Ordering::Relaxed);
    for step in 0..ACTS {
        world.step(step, kindness).await;
    }
    world.end().await
}

impl World {
    fn note(&mut self, text: String) {
        self.trouble.note(&self.machine, text);
    }

    fn any(&mut self) -> String {
        PATHS[self.rng.next(PATHS.len() as u64) as usize].to_owned()
    }

    async fn step(&mut self, step: u64, kindness: Kindness) {
        if self.machine.life.is_over() {
            self.revive();
        }
        match self.rng.next(20) {
            0..5 => {
                let pause = [5, 300, 3000, 20_000][self.rng.next(4) as usize];
                let pause = Duration::from_millis(self.rng.next(pause));
                tokio::time::sleep(pause).await;
            }
            5 if kindness.crashes => {
                let steps = self.rng.next(120);
                self.note(format!("the worker dies within {steps} steps"));
                self.machine.life.end_after(steps);
            }
            6 => {
                self.note("cursors and sessions are forgotten".into());
                self.machine.memory.expire_cursors();
                self.machine.memory.expire_sessions();
            }
            7..13 => self.other(step).await,
            _ => self.user(step).await,
        }
    }

    fn revive(&mut self) {
        self.tally.crashes += 1;
        let keeper_too = self.rng.next(2) == 0;
        self.note("the next worker starts".into());
        self.machine.restart(keeper_too);
    }

    /// What the user sees at a path. `None`: the worker died.
    async fn visible(&self, path: &str) -> Option<Option<Vec<u8>>> {
        match self.machine.find(path).await? {
            Ok(attr) => Some(self.machine.read(attr.ino).await?.ok()),
            Err(_) => Some(None),
        }
    }

    /// What the mount shows at a path this very moment, where that is what the account has there.
    async fn shown_now(&self, path: &str) -> Option<Vec<u8>> {
        let shown = self.machine.running.store.read(|rows| {
            let mut at = Ino::ROOT;
            for part in path.split('/').filter(|part| !part.is_empty()) {
                let Some(next) = rows.child(at, &name(part))? else { return Ok(None) };
                at = next;
            }
            // It may be called something else there.
            Ok(rows.remote_path(0, at)?.zip(rows.view(at, 0, Which::Base)?.and_then(|base| base.version)))
        });
        let (place, version) = shown.ok()??;
        let there = self.machine.memory.stat(&Place::at(place.clone())).await.ok()??;
        let known = there.version == Some(version);
        self.machine.memory.files().get(place.as_str()).filter(|_| known).map(|bytes| bytes.to_vec())
    }

    async fn user(&mut self, step: u64) {
        let (path, other) = (self.any(), self.any());
        let content = format!("u{step}:{}", "x".repeat(self.rng.next(3000) as usize)).into_bytes();
        let act = match self.rng.next(16) {
            0..7 => Act::Write { path: path.clone(), content: content.clone(), sync: false },
            7..9 => Act::Unlink { path: path.clone() },
            9..12 => Act::Rename { from: path.clone(), to: other.clone(), mode: RenameMode::Replace },
            12 => Act::Rename { from: path.clone(), to: other.clone(), mode: RenameMode::Exchange },
            13 => Act::Rename { from: "d0".into(), to: "d1".into(), mode: RenameMode::Replace },
            14 => Act::Mkdir { path: ["d0", "d1"][self.rng.next(2) as usize].into() },
            _ => Act::Rmdir { path: ["d0", "d1"][self.rng.next(2) as usize].into() },
        };
        let replaced = match &act {
            Act::Write { path, .. } | Act::Unlink { path } => path,
            Act::Rename { to, mode: RenameMode::Replace, .. } => to,
            _ => "",
        };
        let Some(before) = self.visible(replaced).await else { return };
        // What came while the user was looking.
        let meanwhile = self.shown_now(replaced).await;
        // A file that is renamed to itself stays.
        let stays = replaced == path && matches!(act, Act::Rename { .. });
        let done = user::perform(&mut self.machine, &act, &Model::default()).await;
        let kind = done.as_ref().map(|done| done.as_ref().map_err(|e| e.kind));
        self.note(format!("{step} user: {}: {kind:?}", short(&act)));
        let happened = done.as_ref().is_none_or(Result::is_ok);
        if happened && !stays {
            for content in before.into_iter().chain(meanwhile) {
                self.alive.remove(&content);
            }
        }
        if let Some(Ok(())) = done {
            self.tally.acknowledged += 1;
            if matches!(act, Act::Write { .. }) {
                self.alive.insert(content);
            }
        }
    }

    /// The other replaces, removes or moves what is there, and only exactly that.
    async fn other(&mut self, step: u64) {
        let (path, target) = (self.any(), self.any());
        let memory = self.machine.memory.clone();
        let place = Place::at(RemotePath::new(&path));
        let Ok(there) = memory.stat(&place).await else { return };
        let content = memory.files().get(&path).map(|bytes| bytes.to_vec());
        let is = there.as_ref().and_then(|entry| entry.version.clone());
        let condition = is.clone().map_or(Condition::Absent, Condition::Is);
        let (said, done) = match self.rng.next(8) {
            0..5 => {
                let new = format!("o{step}:{}", "y".repeat(self.rng.next(3000) as usize)).into_bytes();
                let request = PutRequest { body: body(new.clone()), meta: Meta::default(), condition };
                let done = memory.put(&place, request).await.map(drop);
                // Where conditions are ignored, what comes within the instant of our own call is lost, as the README says.
                let able = memory.capabilities();
                if done.is_ok() && able.conditional_create && able.conditional_replace && able.conditional_remove {
                    self.alive.insert(new);
                }
                (format!("writes {path}"), done)
            }
            5..7 => (format!("removes {path}"), memory.remove(&place, false, &condition).await),
            _ => {
                let to = Place::at(RemotePath::new(&target));
                let moved = memory.rename(&place, &to, is.as_ref(), &Condition::Absent).await.map(drop);
                self.note(format!("{step} other: moves {path} to {target}: {:?}", moved.map_err(|e| e.kind)));
                return;
            }
        };
        if done.is_ok()
            && let Some(content) = content
        {
            self.alive.remove(&content);
        }
        self.note(format!("{step} other: {said}: {:?}", done.map_err(|e| e.kind)));
    }

    async fn end(mut self) -> Tally {
        self.machine.heal();
        self.machine.life.go_on();
        if self.machine.life.is_over() {
            self.revive();
        }
        self.machine.forget();
        let seen = self.settled().await;
        let there: BTreeSet<Vec<u8>> = self.machine.memory.files().into_values().map(|bytes| bytes.to_vec()).collect();
        for content in &self.alive {
            if !there.contains(content) {
                let head = String::from_utf8_lossy(&content[..content.len().min(8)]).into_owned();
                self.trouble.fail(&format!("what was written as {head} is lost; there is {:#?}", told(&seen)));
            }
        }
        self.machine.forget();
        let faults = self.machine.running.store.check().expect("a check");
        if !faults.is_empty() {
            self.trouble.fail(&format!("the store: {faults:?}"));
        }
        let mut tally = self.tally;
        tally.worlds = 1;
        tally.conflicts = seen.keys().filter(|path| path.contains(" (conflict ")).count() as u64;
        tally.digest = digest(&self.trouble, &seen, self.machine.steps + self.machine.life.steps());
        self.machine.running.sync.stop();
        tally
    }

    async fn settled(&mut self) -> Seen {
        let mut seen = Seen::new();
        for _ in 0..200 {
            self.machine.quiet().await;
            seen = self.machine.seen().await.unwrap_or_default();
            if is_on_remote(&self.machine, &seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let there = self.machine.memory.files();
        let there = there.into_iter().map(|(path, bytes)| (path, Shown::File(bytes.to_vec()))).collect();
        self.trouble.fail(&format!(
            "the sides stay different: the mount has\n{:#?}\nand the remote\n{:#?}",
            told(&seen),
            told(&there)
        ))
    }
}
