//! What a user expects of a directory tree, and what of it was made durable: a plain tree with the errors of POSIX.

use fourwheel::drive::RenameMode;
use fourwheel::error::Kind;
use std::collections::BTreeMap;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A directory, by a number of its own.
    Directory(u64),
    Link(String),
    /// A file, by its number in [`Model::contents`].
    File(u64),
}

/// A tree, by paths without a leading slash; the root is empty and not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub names: BTreeMap<String, Thing>,
    pub contents: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

/// A tree as it is seen from outside: `None` is a directory, `Some(Err)` a link.
pub type Seen = BTreeMap<String, Shown>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Directory,
    Link(String),
    File(Vec<u8>),
}

type Outcome = Result<(), Kind>;

/// The path of the directory that holds `path`; the root is empty.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    pub fn seen(&self) -> Seen {
        let show = |thing: &Thing| match thing {
            Thing::Directory(_) => Shown::Directory,
            Thing::Link(target) => Shown::Link(target.clone()),
            Thing::File(number) => Shown::File(self.contents[number].clone()),
        };
        self.names.iter().map(|(path, thing)| (path.clone(), show(thing))).collect()
    }

    /// A model of what is seen. Files get new numbers.
    pub fn of(seen: &Seen, next: u64) -> Model {
        let mut model = Model { next, ..Model::default() };
        for (path, shown) in seen {
            let thing = match shown {
                Shown::Directory => Thing::Directory(model.number()),
                Shown::Link(target) => Thing::Link(target.clone()),
                Shown::File(content) => Thing::File(model.keep(content.clone())),
            };
            model.names.insert(path.clone(), thing);
        }
        model
    }

    /// The number that the next file gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn keep(&mut self, content: Vec<u8>) -> u64 {
        let number = self.number();
        self.contents.insert(number, content);
        number
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, path: &str) -> Outcome {
        let number = self.number();
        self.make(path, Thing::Directory(number))
    }

    pub fn file(&self, path: &str) -> Option<u64> {
        match self.names.get(path) {
            Some(Thing::File(number)) => Some(*number),
            _ => None,
        }
    }

    /// What resolving the directory of `path` finds.
    fn holder(&self, path: &str) -> Outcome {
        let mut at = String::new();
        for part in parent(path).split('/').filter(|part| !part.is_empty()) {
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(part);
            match self.names.get(&at) {
                Some(Thing::Directory(_)) => {}
                Some(_) => return Err(Kind::NotDirectory),
                None => return Err(Kind::NotFound),
            }
        }
        Ok(())
    }

    /// Makes a file where there is none; empties one that is there.
    pub fn create(&mut self, path: &str) -> Outcome {
        self.holder(path)?;
        match self.names.get(path) {
            Some(Thing::File(number)) => drop(self.contents.insert(*number, Vec::new())),
            Some(Thing::Directory(_)) => return Err(Kind::IsDirectory),
            Some(Thing::Link(_)) => return Err(Kind::Invalid),
            None => {
                let number = self.keep(Vec::new());
                self.names.insert(path.to_owned(), Thing::File(number));
            }
        }
        Ok(())
    }

    pub fn write(&mut self, number: u64, offset: usize, data: &[u8]) {
        let Some(content) = self.contents.get_mut(&number) else { return };
        if content.len() < offset + data.len() {
            content.resize(offset + data.len(), 0);
        }
        content[offset..offset + data.len()].copy_from_slice(data);
    }

    pub fn truncate(&mut self, number: u64, size: usize) {
        if let Some(content) = self.contents.get_mut(&number) {
            content.resize(size, 0);
        }
    }

    pub fn make(&mut self, path: &str, thing: Thing) -> Outcome {
        self.holder(path)?;
        if self.names.contains_key(path) {
            return Err(Kind::Exists);
        }
        self.names.insert(path.to_owned(), thing);
        Ok(())
    }

    fn is_empty(&self, path: &str) -> bool {
        !self.names.keys().any(|other| is_below(other, path))
    }

    pub fn unlink(&mut self, path: &str) -> Outcome {
        self.holder(path)?;
        match self.names.get(path) {
            None => return Err(Kind::NotFound),
            Some(Thing::Directory(_)) => return Err(Kind::IsDirectory),
            Some(_) => {}
        }
        self.names.remove(path);
        Ok(())
    }

    pub fn rmdir(&mut self, path: &str) -> Outcome {
        self.holder(path)?;
        match self.names.get(path) {
            None => return Err(Kind::NotFound),
            Some(Thing::Directory(_)) if self.is_empty(path) => {}
            Some(Thing::Directory(_)) => return Err(Kind::NotEmpty),
            Some(_) => return Err(Kind::NotDirectory),
        }
        self.names.remove(path);
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str, mode: RenameMode) -> Outcome {
        self.holder(from)?;
        self.holder(to)?;
        let source = self.names.get(from).cloned().ok_or(Kind::NotFound)?;
        let is_directory = |thing: &Thing| matches!(thing, Thing::Directory(_));
        let directory = is_directory(&source);
        if directory && is_below(to, from) {
            return Err(Kind::Invalid);
        }
        match (mode, self.names.get(to)) {
            (RenameMode::NoReplace, Some(_)) => return Err(Kind::Exists),
            (RenameMode::Exchange, None) => return Err(Kind::NotFound),
            (RenameMode::Exchange, Some(target)) => {
                if is_directory(target) && is_below(from, to) {
                    return Err(Kind::Invalid);
                }
                if from != to {
                    let (one, other) = (self.take(from), self.take(to));
                    self.put(to, one);
                    self.put(from, other);
                }
            }
            (_, _) if from == to => {}
            (_, Some(target)) => {
                match (directory, is_directory(target)) {
                    (true, false) => return Err(Kind::NotDirectory),
                    (false, true) => return Err(Kind::IsDirectory),
                    (true, true) if !self.is_empty(to) => return Err(Kind::NotEmpty),
                    _ => {}
                }
                let moved = self.take(from);
                self.put(to, moved);
            }
            (_, None) => {
                let moved = self.take(from);
                self.put(to, moved);
            }
        }
        Ok(())
    }

    /// Takes a name out with all below; the rests of their paths.
    fn take(&mut self, path: &str) -> Vec<(String, Thing)> {
        let all = std::mem::take(&mut self.names);
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|(p, _)| p == path || is_below(p, path));
        self.names = kept.into_iter().collect();
        taken.into_iter().map(|(p, thing)| (p[path.len()..].to_owned(), thing)).collect()
    }

    fn put(&mut self, path: &str, taken: Vec<(String, Thing)>) {
        self.names.extend(taken.into_iter().map(|(rest, thing)| (format!("{path}{rest}"), thing)));
    }
}

/// Whether `found` can be what a crash left of a change from `before` to `after`: each byte is of one of them.
pub fn is_between(found: &[u8], before: &[u8], after: &[u8]) -> bool {
    let (low, high) = (before.len().min(after.len()), before.len().max(after.len()));
    (low..=high).contains(&found.len())
        && found.iter().enumerate().all(|(at, byte)| {
            before.get(at) == Some(byte) || after.get(at) == Some(byte) || (*byte == 0 && at >= before.len())
        })
}

/// A tree in a few words a line, for messages.
pub fn told(seen: &Seen) -> Vec<String> {
    let shown = |shown: &Shown| match shown {
        Shown::Directory => "directory".to_owned(),
        Shown::Link(target) => format!("link to {target}"),
        Shown::File(content) => {
            let head: String = content.iter().take(12).map(|b| char::from(*b).escape_default().to_string()).collect();
            format!("{head} of {}", content.len())
        }
    };
    seen.iter().map(|(path, thing)| format!("{path} = {}", shown(thing))).collect()
}
