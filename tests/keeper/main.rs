//! The keeper and the takeover through the real kernel.
//!
//! This target has a `main` of its own (`harness = false`), because the same program must also be the keeper and the worker: a
//! keeper has to begin in a process of one thread, which libtest's are not. Without root or /dev/fuse it says SKIPPED.
//! `cargo test --test keeper -- NAME` runs the cases whose name holds NAME.

#![allow(clippy::disallowed_methods, reason = "the tests are programs on a real mount, with a real clock")]

mod filesystem;
mod life;
mod mounting;
mod passthrough;
mod rig;
mod roles;
mod takeover;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("role-keeper") => roles::keeper(&words[1..]),
        Some("role-worker") => roles::worker(&words[1..]),
        _ => run(&words),
    }
}

fn run(words: &[String]) -> ExitCode {
    // Nextest lists with `--format terse`, which names no case.
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-') && *word != "terse").collect();
    // Nextest asks for those too, and would take each of them for one.
    if words.iter().any(|word| word == "--ignored") {
        return ExitCode::SUCCESS;
    }
    let cases: Vec<Case> = [takeover::CASES, life::CASES, mounting::CASES, passthrough::CASES].concat();
    let chosen =
        cases.into_iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())));
    if words.iter().any(|word| word == "--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Err(why) = rig::possible() {
        println!("\n*** SKIPPED: the keeper's tests did not run: {why} ***\n");
        return ExitCode::SUCCESS;
    }
    let mut failed = vec![];
    let mut passed = 0;
    for (name, case) in chosen {
        println!("test {name} ...");
        let begun = Instant::now();
        match catch_unwind(case) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
        let verdict = if failed.last() == Some(&name) { "FAILED" } else { "ok" };
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f32());
    }
    println!("\n{passed} passed, {} failed: {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
