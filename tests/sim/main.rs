//! Simulated worlds: the real drive, store, cache, journal and synchronisation on a simulated clock, disk and line, a seed each.
//!
//! A world has one user, who does system calls beside a model that knows what each must give; a line that is late, loses answers, does
//! things twice and is down at times; workers that die at any step of the disk or of the line; power cuts that lose what was not
//! synced; a clock that is set; an evictor; and an account that forgets cursors and upload sessions. After each call the mount
//! is what the model says. In the end both sides are, the journal is empty and the store is sound.
//!
//! Everything runs on one thread and on virtual time, so one seed is one world: `SEED=7 SEEDS=1 TRACE=1 cargo test --test sim NAME --
//! --nocapture` lives through the same world again. `SEEDS` is how many worlds each test lives through.
#![allow(clippy::disallowed_methods, reason = "tests live on the real clock and disk too")]

#[path = "../common/flaky.rs"]
#[allow(dead_code, reason = "the worlds on the real clock use it")]
mod flaky;
#[path = "../common/rig.rs"]
#[allow(dead_code, reason = "the worlds on the real clock use the rest")]
mod rig;

mod clock;
mod disk;
mod life;
mod line;
mod machine;
mod model;
mod shared;
mod user;
mod world;

use fourwheel::remote::memory::{everything, nothing};
use fourwheel::remote::{Capabilities, ChangeFeed, RenameDir};
use world::{Kindness, Tally, live};

type Able = fn() -> Capabilities;

/// Remotes after `providers`: what decides how the planner goes about it.
const REMOTES: [(&str, Able); 6] = [
    ("webdav", || Capabilities {
        stable_ids: false,
        changes: ChangeFeed::None,
        session_from_bytes: u64::MAX,
        ..everything()
    }),
    ("nextcloud", || Capabilities {
        changes: ChangeFeed::EtagTree,
        whole_tree: false,
        session_from_bytes: 20_000,
        ..everything()
    }),
    ("drive with ids and a feed", || Capabilities { session_from_bytes: 20_000, ..everything() }),
    ("conditions are ignored", || Capabilities {
        conditional_create: false,
        conditional_replace: false,
        conditional_remove: false,
        ..everything()
    }),
    ("keys", || Capabilities {
        stable_ids: false,
        changes: ChangeFeed::None,
        rename_dir: RenameDir::PerObject,
        session_from_bytes: 20_000,
        ..everything()
    }),
    ("poor", || Capabilities { case_sensitive: true, ..nothing() }),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Lives through one world on a runtime of its own.
fn one(seed: u64, remote: usize, kindness: Kindness) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(live(seed, REMOTES[remote].1(), kindness))
}

/// Lives through `SEEDS` worlds (`usual`, if that is not set), each seed on the next kind of remote.
fn worlds(usual: u64, kindness: Kindness) {
    rig::trace();
    let begun = std::time::Instant::now();
    let from = number("SEED").unwrap_or(1);
    let mut sum = Tally::default();
    for seed in from..from + number("SEEDS").unwrap_or(usual) {
        let remote = seed as usize % REMOTES.len();
        sum += one(seed, remote, kindness);
    }
    let kind = [
        (kindness.bad_line, "bad line"),
        (kindness.crashes, "crashes"),
        (kindness.power_cuts, "power cuts"),
        (kindness.somebody_else, "somebody else"),
    ];
    let kind: Vec<&str> = kind.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    println!(
        "{} worlds ({}), {} acknowledged calls, {} crashes, {} power cuts, {} conflicts, 0 lost, in {:.1} s; digest {:016x}",
        sum.worlds,
        if kind.is_empty() { "calm".to_owned() } else { kind.join(", ") },
        sum.acknowledged,
        sum.crashes,
        sum.power_cuts,
        sum.conflicts,
        begun.elapsed().as_secs_f64(),
        sum.digest
    );
}

const CALM: Kindness = Kindness { bad_line: false, crashes: false, power_cuts: false, somebody_else: false };

#[test]
fn a_calm_world() {
    worlds(25, CALM);
}

#[test]
fn a_bad_line() {
    worlds(25, Kindness { bad_line: true, ..CALM });
}

#[test]
fn workers_die() {
    worlds(25, Kindness { crashes: true, ..CALM });
}

#[test]
fn workers_die_on_a_bad_line() {
    worlds(25, Kindness { crashes: true, bad_line: true, ..CALM });
}

#[test]
fn the_power_goes() {
    worlds(25, Kindness { power_cuts: true, ..CALM });
}

#[test]
fn everything_goes_wrong() {
    worlds(25, Kindness { power_cuts: true, crashes: true, bad_line: true, ..CALM });
}

#[test]
fn somebody_else_writes_too() {
    worlds(25, Kindness { somebody_else: true, ..CALM });
}

#[test]
fn somebody_else_writes_too_and_everything_goes_wrong() {
    worlds(25, Kindness { somebody_else: true, crashes: true, bad_line: true, ..CALM });
}

#[test]
fn one_seed_is_one_world() {
    let kindness = Kindness { power_cuts: true, crashes: true, bad_line: true, ..CALM };
    for seed in 1..=6 {
        let digest = || one(seed, seed as usize % REMOTES.len(), kindness).digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}
