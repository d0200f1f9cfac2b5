//! Which places of the remote our own calls touch, so that a listing that began before a call ended is not believed there.

use crate::model::{Entry, FileKind, Ino, RemotePath};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Touched places that are remembered while listings run. When full, the running listings are believed nowhere.
const RECENT_MAX: usize = 65536;

#[derive(Default)]
struct State {
    /// Grows with each call that ends.
    clock: u64,
    /// The oldest start of a listing that is to be believed at all.
    floor: u64,
    running: HashMap<String, u32>,
    ended: HashMap<String, u64>,
    listings: HashMap<u64, u32>,
    /// When an inode was last seen to have moved, while listings run.
    moved: HashMap<Ino, u64>,
    /// Moves that ended without an answer: their places count as being touched until it is known where the inode is.
    kept: HashMap<Ino, Vec<RemotePath>>,
    /// Places of which something was heard and not believed: to be looked at when they are free. True: with all below.
    doubted: HashMap<String, bool>,
}

impl State {
    fn doubt(&mut self, path: &RemotePath) {
        self.doubted.entry(path.as_str().to_owned()).or_default();
    }
}

/// The table of touched places.
#[derive(Default)]
pub(super) struct Guard {
    state: Mutex<State>,
}

/// A listing that runs.
pub(super) struct Listing<'g> {
    guard: &'g Guard,
    began: u64,
}

/// A call that changes the remote at some places.
pub(super) struct Call<'g> {
    guard: &'g Guard,
    paths: Vec<RemotePath>,
}

impl Guard {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call at these places begins; it ends when the answer is dropped. `None`: another call runs at, above or
    /// below one of them, and two calls at one place would undo each other.
    pub(super) fn call(&self, paths: Vec<RemotePath>) -> Option<Call<'_>> {
        let mut state = self.lock();
        for path in &paths {
            let above = above(path).any(|p| state.running.contains_key(p));
            if above || state.running.keys().any(|running| RemotePath::new(running).is_within(path)) {
                return None;
            }
        }
        for path in &paths {
            *state.running.entry(path.as_str().to_owned()).or_default() += 1;
        }
        Some(Call { guard: self, paths })
    }

    /// Takes up a move of an earlier worker that nothing was heard of.
    pub(super) fn keep(&self, ino: Ino, paths: Vec<RemotePath>) {
        let mut state = self.lock();
        for path in &paths {
            *state.running.entry(path.as_str().to_owned()).or_default() += 1;
        }
        state.kept.insert(ino, paths);
    }

    /// Goes on with a move that nothing was heard of.
    pub(super) fn resume(&self, ino: Ino) -> Option<Call<'_>> {
        let paths = self.lock().kept.remove(&ino)?;
        Some(Call { guard: self, paths })
    }

    /// Notes that a listing begins.
    pub(super) fn listing(&self) -> Listing<'_> {
        let mut state = self.lock();
        let began = state.clock;
        *state.listings.entry(began).or_default() += 1;
        Listing { guard: self, began }
    }

    /// Notes that something was heard of a place at which a call of ours runs.
    pub(super) fn doubt(&self, path: &RemotePath) {
        self.lock().doubt(path);
    }

    /// The same of a directory and of what is in it.
    pub(super) fn doubt_below(&self, path: &RemotePath) {
        self.lock().doubted.insert(path.as_str().to_owned(), true);
    }

    /// Whether this very place is doubted.
    pub(super) fn is_doubted(&self, path: &RemotePath) -> bool {
        self.lock().doubted.contains_key(path.as_str())
    }

    /// The doubted places at which nothing runs any more, and whether with all below; they are doubted no longer.
    pub(super) fn take_doubted(&self) -> Vec<(RemotePath, bool)> {
        let mut state = self.lock();
        let State { running, doubted, .. } = &mut *state;
        let free = |text: &String| !above(&RemotePath::new(text)).any(|p| running.contains_key(p));
        let taken = doubted.extract_if(|text, _| free(text));
        let mut taken: Vec<_> = taken.map(|(text, below)| (RemotePath::new(&text), below)).collect();
        taken.sort();
        taken
    }

    /// Whether a call runs at or above this place.
    pub(super) fn is_busy(&self, path: &RemotePath) -> bool {
        let state = self.lock();
        above(path).any(|p| state.running.contains_key(p))
    }

    /// Whether a call runs below this place.
    pub(super) fn is_busy_below(&self, path: &RemotePath) -> bool {
        let state = self.lock();
        state.running.keys().any(|running| RemotePath::new(running).is_within(path))
    }
}

/// The path itself and every directory above it but the root.
fn above(path: &RemotePath) -> impl Iterator<Item = &str> {
    let text = path.as_str();
    let ends = text.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at);
    ends.map(move |at| &text[..at]).chain(std::iter::once(text))
}

impl Call<'_> {
    /// Leaves the places touched when this ends, until [`Guard::resume`].
    pub(super) fn keep(mut self, ino: Ino) {
        let paths = std::mem::take(&mut self.paths);
        self.guard.lock().kept.insert(ino, paths);
    }
}

impl Listing<'_> {
    /// Whether what this listing says of a place can be believed: no call of ours touched it, or what holds it, since it began.
    pub(super) fn believes(&self, path: &RemotePath) -> bool {
        let mut state = self.guard.lock();
        let believed = self.began >= state.floor
            && above(path)
                .all(|p| !state.running.contains_key(p) && state.ended.get(p).is_none_or(|&ended| ended <= self.began));
        if !believed {
            state.doubt(path);
        }
        believed
    }

    /// Notes that an inode has moved, as this listing says; false, and its place is doubted, where another one that may be newer
    /// said where it is since this one began.
    pub(super) fn moves(&self, ino: Ino, path: &RemotePath) -> bool {
        let mut state = self.guard.lock();
        let news = state.moved.get(&ino).is_none_or(|&moved| moved <= self.began);
        if news {
            state.clock += 1;
            let now = state.clock;
            state.moved.insert(ino, now);
        } else {
            state.doubt(path);
        }
        news
    }

    /// What this listing says of a place, less what our own calls below it may have changed: a directory's time.
    pub(super) fn settled(&self, path: &RemotePath, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if entry.kind == FileKind::Directory
            && let Some(meta) = &mut entry.meta
        {
            let state = self.guard.lock();
            let below = |touched: &str| RemotePath::new(touched).is_within(path);
            let moved = state.running.keys().any(|p| below(p))
                || state.ended.iter().any(|(p, &ended)| ended > self.began && below(p));
            if moved {
                meta.mtime_ns = None;
            }
        }
        entry
    }

    /// The same for what it does not list: nothing below may have been touched either.
    pub(super) fn believes_absence(&self, path: &RemotePath) -> bool {
        if !self.believes(path) {
            return false;
        }
        let mut state = self.guard.lock();
        let below = |touched: &str| RemotePath::new(touched).is_within(path);
        let believed = !state.running.keys().any(|p| below(p))
            && !state.ended.iter().any(|(p, &ended)| ended > self.began && below(p));
        if !believed {
            state.doubt(path);
        }
        believed
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        let mut state = self.guard.lock();
        if let Some(count) = state.listings.get_mut(&self.began) {
            *count -= 1;
            if *count == 0 {
                state.listings.remove(&self.began);
            }
        }
        match state.listings.keys().min().copied() {
            Some(oldest) => {
                state.ended.retain(|_, ended| *ended > oldest);
                state.moved.retain(|_, moved| *moved > oldest);
            }
            None => {
                state.ended.clear();
                state.moved.clear();
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.guard.lock();
        state.clock += 1;
        let now = state.clock;
        let listings = !state.listings.is_empty();
        for path in &self.paths {
            if let Some(count) = state.running.get_mut(path.as_str()) {
                *count -= 1;
                if *count == 0 {
                    state.running.remove(path.as_str());
                }
            }
            if listings {
                state.ended.insert(path.as_str().to_owned(), now);
            }
        }
        if state.ended.len() > RECENT_MAX {
            state.ended.clear();
            state.floor = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_not_believed_where_a_call_ended_since() {
        let guard = Guard::default();
        let p = RemotePath::new;
        let listing = guard.listing();
        assert!(listing.believes(&p("a/b")));
        let call = guard.call(vec![p("a")]).unwrap();
        assert!(guard.call(vec![p("a/b")]).is_none());
        assert!(!listing.believes(&p("a/b")) && listing.believes(&p("ab")));
        assert!(guard.call(vec![p("ab")]).is_some() && guard.take_doubted().is_empty());
        drop(call);
        assert!(!listing.believes(&p("a/b")));
        assert_eq!(guard.take_doubted(), vec![(p("a/b"), false)]);
        assert!(!listing.believes_absence(&p("")) || p("").is_root());
        drop(listing);
        assert!(guard.listing().believes(&p("a/b")));
    }

    #[test]
    fn a_move_without_an_answer_is_not_over() {
        let guard = Guard::default();
        let p = RemotePath::new;
        let ino = Ino::new(7).unwrap();
        guard.call(vec![p("a"), p("b")]).unwrap().keep(ino);
        assert!(guard.call(vec![p("b/c")]).is_none() && !guard.listing().believes(&p("a/x")));
        drop(guard.resume(ino).unwrap());
        assert!(guard.call(vec![p("b/c")]).is_some() && guard.resume(ino).is_none());
    }

    #[test]
    fn absence_of_a_directory_is_not_believed_while_something_below_is_sent() {
        let guard = Guard::default();
        let p = RemotePath::new;
        let _call = guard.call(vec![p("d/x")]).unwrap();
        let listing = guard.listing();
        assert!(listing.believes(&p("d")) && !listing.believes_absence(&p("d")));
    }
}
