//! Moves that wait for each other: names that change places, a directory that takes the place of what moved into it, and what
//! takes the place of the directory that it was in.
//!
//! The remote can do one move at a time, so one of those that wait steps aside first, to a name that no program sees.

use super::goal::Goal;
use crate::error::Result;
use crate::model::{Ino, Name, RemotePath};
use crate::remote::Place;
use crate::store::{Rows, Which};

/// How many that wait for each other are followed. More are left to the order in which they are looked at.
const LINKS_MAX: usize = 64;

/// Whether whoever stands at our goal waits, directly or through others, for our own place, or for us to leave it.
pub(super) fn is_circle(rows: &Rows<'_>, ino: Ino, first: Ino) -> Result<bool> {
    waits_for_place(rows, ino, first, false)
}

/// Whether the directory that an inode is to move into must itself be made or moved first, and waits for the inode's own place:
/// `mkdir a; mv b a/; mv a b`.
pub(super) fn is_in_the_way_of_its_directory(rows: &Rows<'_>, ino: Ino) -> Result<bool> {
    let Some(above) = blocking_ancestor(rows, rows.place(ino)?.map(|(parent, _)| parent))? else { return Ok(false) };
    Ok(above != ino && waits_for_place(rows, ino, above, true)?)
}

/// Whether `first` waits for the place of `ino`, or for `ino` to leave a directory that is to be removed. `above`: also through the directories that what waits is to be in.
fn waits_for_place(rows: &Rows<'_>, ino: Ino, first: Ino, above: bool) -> Result<bool> {
    let Some(mine) = rows.view(ino, 0, Which::Remote)? else { return Ok(false) };
    let mut at = first;
    for _ in 0..LINKS_MAX {
        let Some((parent, name)) = rows.place(at)? else {
            // To be removed, once nothing is in it any more.
            match rows.remote_children(0, at)?.first() {
                Some((child, _)) if *child == ino => return Ok(true),
                Some((child, _)) => at = *child,
                None => return Ok(false),
            }
            continue;
        };
        if parent == mine.parent && name == mine.shown {
            return Ok(true);
        }
        if rows.view(at, 0, Which::Remote)?.is_some_and(|view| view.parent == parent && view.shown == name) {
            return Ok(false);
        }
        let holder = if above { blocking_ancestor(rows, Some(parent))? } else { None };
        let next = match holder {
            Some(holder) => Some(holder),
            None => occupant(rows, parent, &name)?,
        };
        match next {
            Some(next) if next == ino => return Ok(true),
            Some(next) => at = next,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Who stands at a place on the remote.
fn occupant(rows: &Rows<'_>, parent: Ino, name: &Name) -> Result<Option<Ino>> {
    for (child, _) in rows.remote_children(0, parent)? {
        if rows.view(child, 0, Which::Remote)?.is_some_and(|view| view.shown == *name) {
            return Ok(Some(child));
        }
    }
    Ok(None)
}

/// The nearest directory above that must be made or moved on the remote first.
pub(super) fn blocking_ancestor(rows: &Rows<'_>, parent: Option<Ino>) -> Result<Option<Ino>> {
    let mut at = parent;
    let mut nearest = None;
    while let Some(ino) = at.filter(|ino| *ino != Ino::ROOT) {
        let place = rows.place(ino)?;
        let (base, remote) = (rows.view(ino, 0, Which::Base)?, rows.view(ino, 0, Which::Remote)?);
        let there = match (&base, &remote, &place) {
            (Some(base), Some(_), Some((parent, name))) => *parent == base.parent && *name == base.shown,
            _ => false,
        };
        if !there || rows.moving(ino)?.is_some() {
            nearest = nearest.or(Some(ino));
        }
        at = place.map(|(parent, _)| parent);
    }
    Ok(nearest)
}

/// The nearest directory on the remote that holds `ino` and is not to be removed.
pub(super) fn lasting_directory(rows: &Rows<'_>, ino: Ino) -> Result<Ino> {
    let mut at = ino;
    loop {
        at = rows.view(at, 0, Which::Remote)?.map_or(Ino::ROOT, |view| view.parent);
        if at == Ino::ROOT || rows.place(at)?.is_some() {
            return Ok(at);
        }
    }
}

fn aside_name(ino: Ino) -> String {
    format!(".~fourwheel.swap-{ino}")
}

/// Whether this is the name to which `ino` steps aside.
pub(super) fn is_aside(ino: Ino, raw: &str) -> bool {
    raw == aside_name(ino)
}

/// A place in the directory `parent`, which is at `path` on the remote, that no program sees.
pub(super) fn aside(ino: Ino, parent: Ino, path: &RemotePath) -> Result<Goal> {
    let raw = aside_name(ino);
    Ok(Goal { parent, name: Name::new(raw.as_bytes())?, place: Place::at(path.join(&raw)), raw })
}
