//! Arrows between the rooms of `src/` point down, and crates that give a room its purpose are named nowhere else.
//!
//! To widen a row, put the reason beside the arrow. Tests inside a file may reach wherever they like: what stands after
//! `#[cfg(test)]`, and files named `tests.rs`, are not read.
#![allow(clippy::disallowed_methods, reason = "reads its own source, not a drive")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What everybody may use: the field's words, the machine behind traits, the kinds of errors.
const GROUND: &[&str] = &["error", "model", "sys"];

/// A room (a folder of `src/`, or a file beside them) and the rooms that it may use besides those of [`GROUND`].
const ROOMS: &[(&str, &[&str])] = &[
    // The ground itself stands on even less: see `ground_stands_alone`.
    ("error", &[]),
    ("model", &[]),
    ("sys", &[]),
    ("space", &[]),
    // What drive and sync tell each other, without either knowing the other.
    ("events", &[]),
    ("remote", &[]),
    ("store", &[]),
    ("cache", &["space"]),
    // Dirty bytes count against the same bound as clean ones.
    ("journal", &["space"]),
    // Missing bytes on their way from the remote to the disk, for reads (drive) and for fills (sync).
    ("fetch", &["cache", "journal", "remote", "space"]),
    ("drive", &["cache", "events", "fetch", "journal", "remote", "space", "store"]),
    ("sync", &["cache", "events", "fetch", "journal", "remote", "space", "store"]),
    // `store`: what the kernel must be told waits in the store's outbox, so that it survives the worker's death.
    // `keeper`: a session begins with the descriptor and the INIT request that a worker inherits from its keeper.
    ("fs", &["drive", "keeper", "store"]),
    ("keeper", &[]),
    ("config", &["remote"]),
    ("control", &["config", "drive", "events", "space", "store", "sync"]),
    ("web", &["control"]),
    ("cli", &["app", "config", "control", "keeper", "remote", "store", "cache", "journal"]),
    (
        "app",
        &[
            "cache", "cli", "config", "control", "drive", "events", "fetch", "fs", "journal", "keeper", "remote",
            "space", "store", "sync", "web",
        ],
    ),
    ("doc", &[]),
    ("lib", &["app", "cli"]),
    ("main", &["app", "cli", "keeper"]),
];

/// What the ground may use of itself.
const GROUND_ROOMS: &[(&str, &[&str])] = &[("error", &[]), ("model", &["error"]), ("sys", &["error", "model"])];

/// Crates that only some rooms may name.
const CRATES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    // keeper and app: replay the handshake and start the session.
    ("fuser", &["fs", "keeper", "app"]),
    // config: its type for URLs only, so that an address is checked before anything is asked there.
    ("reqwest", &["sys", "remote", "config"]),
    ("clap", &["cli"]),
    ("toml", &["config"]),
    ("inotify", &["remote", "sys"]),
];

/// A line that should not be there, in words.
type Wrong = String;

/// The room that a file of `src/` belongs to.
fn room(path: &Path) -> String {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = parts.next().unwrap_or_default();
    if parts.next().is_some() { first } else { first.trim_end_matches(".rs").to_string() }
}

/// The lines of code that count, with their numbers: no comments, nothing of the file's own tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let tests = lines.windows(2).position(|pair| {
        let [mark, module] = [pair[0].trim(), pair[1].trim()];
        mark.starts_with("#[cfg(test)]") && [mark, module].iter().any(|l| l.contains("mod ") && l.contains('{'))
    });
    lines.truncate(tests.unwrap_or(lines.len()));
    (1..).zip(lines)
}

/// Every first name behind `crate::` in `line`, groups (`crate::{a, b::c}`) included.
fn rooms_used(line: &str) -> Vec<String> {
    let first_word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for (at, mark) in line.match_indices("crate::") {
        // Not `$crate::` of a macro nor `other_crate::`.
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + mark.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level(group).iter().map(|part| first_word(part))),
            None => found.push(first_word(rest)),
        }
    }
    found.retain(|name| name.starts_with(char::is_lowercase));
    found
}

/// The parts of a brace group, split at the commas that stand in no deeper group.
fn top_level(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

fn row<'t>(table: &'t [(&str, &'t [&'t str])], name: &str) -> Option<&'t [&'t str]> {
    table.iter().find(|(room, _)| *room == name).map(|(_, allowed)| *allowed)
}

/// Everything wrong in one file.
fn wrong_lines(path: &Path, text: &str) -> Vec<Wrong> {
    let from = room(path);
    let Some(allowed) = row(ROOMS, &from) else {
        return vec![format!("{}: the room `{from}` has no row in tests/layers.rs", path.display())];
    };
    let ground = row(GROUND_ROOMS, &from).unwrap_or(GROUND);
    let mut wrong = Vec::new();
    for (number, line) in code(&joined(text)) {
        for to in rooms_used(line) {
            let known = row(ROOMS, &to).is_some();
            if known && to != from && !allowed.contains(&to.as_str()) && !ground.contains(&to.as_str()) {
                wrong.push(format!("{}:{number}: {from} may not use {to}", path.display()));
            }
        }
        for (name, rooms) in CRATES {
            if names_crate(line, name) && !rooms.contains(&from.as_str()) {
                wrong.push(format!("{}:{number}: {from} may not name the crate {name}", path.display()));
            }
        }
    }
    wrong
}

/// Puts `use crate::{` groups that go over several lines on their first line, and keeps the line numbers.
fn joined(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut open: Option<usize> = None;
    for line in text.lines() {
        out.push(line.to_string());
        let this = out.len() - 1;
        if let Some(first) = open {
            let more = std::mem::take(&mut out[this]);
            out[first].push_str(&more);
        } else if line.contains("crate::{") {
            open = Some(this);
        }
        if let Some(first) = open
            && out[first].matches('{').count() <= out[first].matches('}').count()
        {
            open = None;
        }
    }
    out.join("\n")
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"')
            && (after.starts_with("::") || line.trim_start().starts_with("use ") && after.starts_with(';'))
    })
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
            found.insert(path.clone(), std::fs::read_to_string(&path).expect("sources are UTF-8"));
        }
    }
}

#[test]
fn arrows_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    sources(&src, &mut found);
    assert!(found.len() > 20, "only {} files found: is this the right folder?", found.len());
    let wrong: Vec<Wrong> = found
        .iter()
        .flat_map(|(path, text)| wrong_lines(path.strip_prefix(&src).expect("found below src"), text))
        .collect();
    assert!(wrong.is_empty(), "wrong arrows:\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_arrow_is_caught() {
    let wrong = |path: &str, text: &str| wrong_lines(Path::new(path), text);
    assert_eq!(wrong("drive/open.rs", "use crate::sync::Engine;"), ["drive/open.rs:1: drive may not use sync"]);
    assert_eq!(
        wrong("sync/plan.rs", "\nlet d = crate::drive::Drive::new();"),
        ["sync/plan.rs:2: sync may not use drive"]
    );
    assert_eq!(
        wrong("cache/mod.rs", "use crate::{error::Result, store::Tx};"),
        ["cache/mod.rs:1: cache may not use store"]
    );
    assert_eq!(
        wrong("remote/s3/mod.rs", "use crate::{\n    error::Result,\n    model::{Name, Ino},\n    store,\n};"),
        ["remote/s3/mod.rs:1: remote may not use store"]
    );
    assert_eq!(wrong("model/ino.rs", "use crate::sys::Disk;"), ["model/ino.rs:1: model may not use sys"]);
    assert_eq!(
        wrong("drive/open.rs", "use rusqlite::Connection;"),
        ["drive/open.rs:1: drive may not name the crate rusqlite"]
    );
    assert_eq!(wrong("attic/mod.rs", ""), ["attic/mod.rs: the room `attic` has no row in tests/layers.rs"]);
}

#[test]
fn what_is_no_arrow_is_left_alone() {
    let wrong = |path: &str, text: &str| wrong_lines(Path::new(path), text);
    assert!(wrong("cache/mod.rs", "// crate::sync would be wrong here\nuse crate::space::Space;").is_empty());
    assert!(wrong("cache/mod.rs", "#[cfg(test)]\nmod tests {\n use crate::sync::Engine; }").is_empty());
    assert!(!wrong("cache/mod.rs", "#[cfg(test)]\nmod tests;\nuse crate::sync::Engine;").is_empty());
    assert!(wrong("cache/mod.rs", "use crate::Thing;\nuse other_crate::sync::A;").is_empty());
    assert!(wrong("store/mod.rs", "use rusqlite::Connection;").is_empty());
}

#[test]
fn ground_stands_alone() {
    for name in GROUND {
        assert!(row(GROUND_ROOMS, name).is_some(), "{name} has no row in GROUND_ROOMS");
        assert_eq!(row(ROOMS, name), Some(&[][..]), "{name} uses more than the ground");
    }
}
