//! One seed, one world.

use crate::clock::SimClock;
use crate::line::Weather;
use crate::machine::Machine;
use crate::model::{Model, Seen, Shown, Thing, is_between, told};
use crate::rig::Rng;
use crate::user::{self, Act};
use fourwheel::model::FileKind;
use fourwheel::remote::Capabilities;
use fourwheel::remote::memory::Memory;
use fourwheel::sync::SyncSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Acts of the user in one world.
const ACTS: u64 = 50;

/// What goes wrong in a world.
#[derive(Clone, Copy, Debug)]
pub struct Kindness {
    /// The line loses, delays and repeats calls and answers.
    pub bad_line: bool,
    /// Workers die.
    pub crashes: bool,
    /// The power goes.
    pub power_cuts: bool,
    /// The account has another user.
    pub somebody_else: bool,
}

/// What was done in a world, for the sum over many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub worlds: u64,
    pub acknowledged: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub conflicts: u64,
    pub digest: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.worlds += other.worlds;
        self.acknowledged += other.acknowledged;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.conflicts += other.conflicts;
        self.digest = self.digest.rotate_left(7) ^ other.digest;
    }
}

type Names = BTreeMap<String, Thing>;

/// What was made durable.
#[derive(Clone, Default)]
struct Durable {
    /// The names when they were last synced, and after each act since.
    names: Vec<Names>,
    contents: BTreeMap<u64, Vec<u8>>,
}

impl Durable {
    fn sync_names(&mut self, names: &Names) {
        self.names = vec![names.clone()];
    }

    /// Where a file was since names were synced.
    fn places(&self, number: u64) -> BTreeSet<&String> {
        let all = self.names.iter().flatten();
        all.filter(|(_, thing)| **thing == Thing::File(number)).map(|(path, _)| path).collect()
    }

    /// Whether a name stood for the same all the time.
    fn is_lasting(&self, path: &str, thing: &Thing) -> bool {
        self.names.iter().all(|names| names.get(path) == Some(thing))
    }
}

/// What happened in a world; told when it fails.
pub struct Trouble {
    seed: u64,
    kindness: Kindness,
    diary: Vec<String>,
}

impl Trouble {
    pub fn new(seed: u64, kindness: Kindness) -> Trouble {
        Trouble { seed, kindness, diary: vec![] }
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}")
    }

    pub fn note(&mut self, machine: &Machine, text: String) {
        use fourwheel::sys::Clock;
        let text = format!("{:>10.3} {text}", machine.clock.monotonic().as_secs_f64());
        if std::env::var_os("TRACE").is_some() {
            eprintln!("-- {text}");
        }
        self.diary.push(text);
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Trouble { seed, kindness, diary } = self;
            eprintln!("{}\nSEED={seed} SEEDS=1: {kindness:?}", diary.join("\n"));
        }
    }
}

struct World {
    trouble: Trouble,
    kindness: Kindness,
    machine: Machine,
    model: Model,
    durable: Durable,
    rng: Rng,
    tally: Tally,
}

pub fn settings() -> SyncSettings {
    SyncSettings {
        write_back: Duration::from_secs(2),
        poll: Duration::from_secs(10),
        refresh: Duration::from_secs(10),
        uploads: 4,
        read_only: false,
        local_only: vec![],
        host: "box".into(),
        safe_mode: false,
    }
}

/// Lives through one world, and fails with its diary where something is not as it must be.
pub async fn live(seed: u64, capabilities: Capabilities, kindness: Kindness) -> Tally {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        rng.next(2);
    }
    let clock = Arc::new(SimClock::new());
    let memory = Arc::new(Memory::new(capabilities, clock.clone()));
    let weather = Arc::new(Weather {
        rng: std::sync::Mutex::new(Rng(rng.next(u64::MAX) | 1)),
        bad: AtomicBool::new(false),
        down: AtomicBool::new(false),
    });
    let machine = Machine::new(memory, clock, weather, settings());
    if kindness.somebody_else {
        return crate::shared::live(seed, machine, rng, kindness).await;
    }
    let (model, trouble) = (Model::default(), Trouble::new(seed, kindness));
    let durable = Durable { names: vec![Names::new()], ..Durable::default() };
    let mut world = World { trouble, kindness, machine, model, durable, rng, tally: Tally::default() };
    // A directory that was never listed cannot be made in.
    world.machine.seen().await;
    world.machine.weather.bad.store(kindness.bad_line, Ordering::Relaxed);
    for step in 0..ACTS {
        world.step(step).await;
    }
    world.end().await
}

impl World {
    fn fail(&self, what: &str) -> ! {
        self.trouble.fail(what)
    }

    fn note(&mut self, text: String) {
        self.trouble.note(&self.machine, text);
    }

    async fn step(&mut self, step: u64) {
        if self.machine.life.is_over() {
            let after = self.model.clone();
            self.revive(&Act::SyncNames, after).await;
        }
        match self.rng.next(20) {
            10..14 => {
                let pause = [5, 300, 3000, 20_000][self.rng.next(4) as usize];
                let pause = Duration::from_millis(self.rng.next(pause));
                tokio::time::sleep(pause).await;
                return;
            }
            3 if self.kindness.crashes => {
                let steps = self.rng.next(120);
                self.note(format!("the worker dies within {steps} steps"));
                self.machine.life.end_after(steps);
            }
            4 if self.kindness.power_cuts => return self.lose_power(step).await,
            5 => {
                let seconds = self.rng.next(7200) as i64 - 3600;
                self.note(format!("the clock is set by {seconds} s"));
                self.machine.clock.jump(seconds * 1_000_000_000);
            }
            6 if self.kindness.bad_line => {
                let down = !self.machine.weather.down.fetch_xor(true, Ordering::Relaxed);
                self.note(format!("the line is {}", if down { "down" } else { "up" }));
                if down {
                    let pause = Duration::from_millis(self.rng.next(8000));
                    tokio::time::sleep(pause).await;
                }
            }
            7 => {
                self.note("the cache is emptied, the kernel forgets".into());
                self.machine.forget();
                for ino in (1..300).filter_map(fourwheel::model::Ino::new) {
                    let gone = self.machine.running.cache.remove(ino, None);
                    if gone.is_err() && !self.machine.life.is_over() {
                        self.fail(&format!("evict: {gone:?}"));
                    }
                }
            }
            8 => {
                self.note("cursors and sessions are forgotten".into());
                self.machine.memory.expire_cursors();
                self.machine.memory.expire_sessions();
            }
            9 => {
                let mut rng = Rng(self.rng.next(u64::MAX) | 1);
                if self.machine.flip("/cache/", &mut rng) {
                    self.note("a byte of the cache is another".into());
                }
            }
            _ => {}
        }
        let act = user::choose(&mut self.rng, &self.model, step);
        let (after, wanted) = user::expect(&self.model, &act);
        // What only the remote can answer needs a line.
        self.machine.weather.down.store(false, Ordering::Relaxed);
        let done = user::perform(&mut self.machine, &act, &self.model).await;
        let kind = done.as_ref().map(|done| done.as_ref().map_err(|e| e.kind));
        self.note(format!("{step} {}: {kind:?}", short(&act)));
        let Some(done) = done else {
            return self.revive(&act, after).await;
        };
        match (&done, wanted) {
            (Ok(()), Ok(())) => self.tally.acknowledged += 1,
            (Err(e), Err(kind)) if e.kind == kind => {}
            _ => self.fail(&format!("{} gave {done:?} and not {wanted:?}", short(&act))),
        }
        self.model = after;
        match &act {
            Act::Write { path, sync: true, .. } | Act::Sync { path } if done.is_ok() => {
                if let Some(number) = self.model.file(path) {
                    let content = self.model.contents[&number].clone();
                    self.durable.contents.insert(number, content);
                }
                self.durable.sync_names(&self.model.names);
            }
            Act::SyncNames => self.durable.sync_names(&self.model.names),
            _ => self.durable.names.push(self.model.names.clone()),
        }
        if self.machine.life.is_over() {
            let after = self.model.clone();
            return self.revive(&Act::SyncNames, after).await;
        }
        self.compare_mount("at once").await;
    }

    /// The next worker starts where the last one died, in the middle of `act` perhaps.
    async fn revive(&mut self, act: &Act, after: Model) {
        self.tally.crashes += 1;
        let keeper_too = self.rng.next(2) == 0;
        self.note(format!("dead in {}; the next worker starts", short(act)));
        self.machine.restart(keeper_too);
        let Some(seen) = self.machine.seen().await else { self.fail("dead again") };
        let (before, then) = (self.model.seen(), after.seen());
        let touched: &str = match act {
            Act::Write { path, .. } | Act::Patch { path, .. } | Act::Truncate { path, .. } => path,
            _ => "",
        };
        let same = |found: &Seen, wanted: &Seen| {
            let without = |tree: &Seen| {
                tree.iter().filter(|(p, _)| *p != touched).map(|(p, s)| (p.clone(), s.clone())).collect::<Seen>()
            };
            without(found) == without(wanted)
        };
        if seen == then {
            self.model = after;
        } else if seen == before {
        } else if same(&seen, &before) && self.is_partly(&seen, &before, &then, touched) {
            // As after a crash of any file system: a write that was not acknowledged is there in part.
            self.model = match self.model.file(touched) {
                Some(number) => {
                    if let Some(Shown::File(found)) = seen.get(touched) {
                        self.model.contents.insert(number, found.clone());
                    }
                    self.model.clone()
                }
                None => {
                    let mut model = self.model.clone();
                    if model.create(touched).is_ok()
                        && let (Some(number), Some(Shown::File(found))) = (model.file(touched), seen.get(touched))
                    {
                        model.contents.insert(number, found.clone());
                    }
                    model
                }
            };
        } else {
            self.fail(&format!(
                "after a crash in {} the mount has\n{:#?}\nand neither\n{:#?}\nnor\n{:#?}",
                short(act),
                told(&seen),
                told(&before),
                told(&then)
            ));
        }
    }

    fn is_partly(&self, seen: &Seen, before: &Seen, then: &Seen, path: &str) -> bool {
        let content = |tree: &Seen| match tree.get(path) {
            Some(Shown::File(content)) => Some(content.clone()),
            _ => None,
        };
        let Some(found) = content(seen) else { return before.get(path) == seen.get(path) };
        let old = content(before).unwrap_or_default();
        let new = content(then).unwrap_or_default();
        // A file that is emptied and written is between the old one and nothing, or nothing and the new one.
        is_between(&found, &old, &new) || is_between(&found, &[], &new) || is_between(&found, &old, &[])
    }

    async fn lose_power(&mut self, step: u64) {
        self.tally.power_cuts += 1;
        self.note(format!("{step} the power goes"));
        let mut rng = Rng(self.rng.next(u64::MAX) | 1);
        self.machine.cut_power(&mut rng);
        let bad = self.machine.weather.bad.load(Ordering::Relaxed);
        self.machine.heal();
        let Some(seen) = self.settled().await else { self.fail("dead again") };
        self.machine.weather.bad.store(bad, Ordering::Relaxed);
        let durable = self.durable.clone();
        let last = self.model.names.clone();
        for (number, content) in &durable.contents {
            let is_named = |names: &Names| names.values().any(|thing| *thing == Thing::File(*number));
            // Removed, or written to since.
            if !durable.names.iter().all(is_named) || self.model.contents.get(number) != Some(content) {
                continue;
            }
            let (wanted, places) = (Shown::File(content.clone()), durable.places(*number));
            if !places.iter().any(|path| seen.get(*path) == Some(&wanted)) {
                self.fail(&format!("what was synced of {places:?} is lost; there is {:#?}", told(&seen)));
            }
        }
        for (path, thing) in &last {
            if durable.is_lasting(path, thing) && !seen.contains_key(path) {
                self.fail(&format!(
                    "{path} was there when names were synced, and is lost; there is {:#?}",
                    told(&seen)
                ));
            }
        }
        for (path, shown) in &seen {
            let Shown::File(content) = shown else { continue };
            // Bytes whose name was not synced are shown in lost+found. Where a file that was not synced took a name, what had the
            // name before may be back.
            let heir = self.model.file(path).filter(|number| !durable.contents.contains_key(number));
            let found = path.starts_with("lost+found/") || path.contains(" (conflict ") || heir.is_some();
            let removed = |(number, old): (&u64, &Vec<u8>)| {
                old == content && !content.is_empty() && durable.places(*number).is_empty()
            };
            if !found && self.model.contents.iter().any(removed) {
                self.fail(&format!("{path} has what was removed before names were synced"));
            }
        }
        self.model = Model::of(&seen, self.model.next());
        self.durable = Durable { names: vec![self.model.names.clone()], contents: self.model.contents.clone() };
        self.tally.conflicts += seen.keys().filter(|path| path.contains(" (conflict ")).count() as u64;
    }

    async fn compare_mount(&mut self, when: &str) {
        let Some(seen) = self.machine.seen().await else {
            let after = self.model.clone();
            return Box::pin(self.revive(&Act::SyncNames, after)).await;
        };
        let wanted = self.model.seen();
        if seen != wanted {
            self.fail(&format!("the mount {when} has\n{:#?}\nand not\n{:#?}", told(&seen), told(&wanted)));
        }
    }

    /// The mount once nothing waits and both sides are equal.
    async fn settled(&mut self) -> Option<Seen> {
        for _ in 0..200 {
            self.machine.quiet().await?;
            let seen = self.machine.seen().await?;
            if is_on_remote(&self.machine, &seen) {
                return Some(seen);
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let seen = self.machine.seen().await?;
        self.fail(&format!(
            "the sides stay different: the mount has\n{:#?}\nand the remote\n{:#?}",
            told(&seen),
            self.machine.memory.paths()
        ))
    }

    async fn end(mut self) -> Tally {
        self.machine.heal();
        self.machine.life.go_on();
        if !self.machine.life.is_over() {
            self.machine.forget();
        }
        let Some(seen) = self.settled().await else {
            let after = self.model.clone();
            self.revive(&Act::SyncNames, after).await;
            return Box::pin(self.end()).await;
        };
        let wanted = self.model.seen();
        if seen != wanted {
            self.fail(&format!("in the end the mount has\n{:#?}\nand not\n{:#?}", told(&seen), told(&wanted)));
        }
        let faults = self.machine.running.store.check().expect("a check");
        if !faults.is_empty() {
            self.fail(&format!("the store: {faults:?}"));
        }
        let staged = self.machine.running.journal.totals().0;
        if staged != 0 {
            let left: Vec<_> = self.machine.files().into_iter().filter(|(path, _)| path.contains("journal")).collect();
            let nameless = self.machine.running.store.read(|rows| {
                let why = |ino| {
                    Ok((
                        ino,
                        rows.attempt(ino)?.is_some(),
                        rows.view(ino, 0, fourwheel::store::Which::Remote)?,
                        rows.view(ino, 0, fourwheel::store::Which::Base)?,
                        self.machine.running.store.opens().is_held(ino),
                    ))
                };
                rows.nameless()?.into_iter().map(why).collect::<fourwheel::error::Result<Vec<_>>>()
            });
            self.fail(&format!("{staged} files are left in the journal: {left:?}; without a name: {nameless:?}"));
        }
        let mut tally = std::mem::take(&mut self.tally);
        tally.worlds = 1;
        tally.digest = digest(&self.trouble, &seen, self.machine.steps + self.machine.life.steps());
        self.machine.running.sync.stop();
        tally
    }
}

/// Whether the account has what the mount shows, and nothing else.
pub fn is_on_remote(machine: &Machine, seen: &Seen) -> bool {
    use fourwheel::remote::Remote;
    let memory = &machine.memory;
    let (files, paths) = (memory.files(), memory.paths());
    let able = memory.capabilities();
    let mut there = BTreeSet::new();
    for (path, shown) in seen {
        let good = match shown {
            Shown::File(content) => files.get(path).is_some_and(|found| found == content),
            Shown::Directory => !able.directories || paths.get(path) == Some(&FileKind::Directory),
            Shown::Link(_) if able.symlinks => paths.get(path) == Some(&FileKind::Symlink),
            Shown::Link(target) => {
                files.get(&format!("{path}.rclonelink")).is_some_and(|found| found == target.as_bytes())
            }
        };
        if !good {
            return false;
        }
        there.insert(path.clone());
    }
    paths.keys().all(|path| there.contains(path.strip_suffix(".rclonelink").unwrap_or(path)))
}

pub fn digest(trouble: &Trouble, seen: &Seen, steps: u64) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&trouble.diary, told(seen), steps).hash(&mut hasher);
    hasher.finish()
}

/// An act in a few words.
pub fn short(act: &Act) -> String {
    let len = |content: &[u8]| content.len();
    match act {
        Act::Write { path, content, sync } => {
            format!("write {path} ({}){}", len(content), if *sync { " and sync" } else { "" })
        }
        Act::Patch { path, offset, content } => format!("patch {path} at {offset} ({})", len(content)),
        Act::UnlinkOpen { path, content } => format!("unlink {path} and write ({})", len(content)),
        other => format!("{other:?}"),
    }
}
