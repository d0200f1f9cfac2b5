//! Listings: one directory, or the whole tree as bounded walks that go on where the last one ended.

use super::root::{Child, Root};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, FileKind, RemotePath};
use crate::remote::Listing;

/// Entries of one page. Each page of a directory reads it anew, so a page is large.
const PAGE_ENTRIES: usize = 5000;

/// One directory of a walk: what is still to be told of it, last first.
type Level = Vec<(RemotePath, Entry)>;

impl Root {
    /// One page of a directory; `page` is the name that the last one ended with.
    pub fn list(&self, path: &RemotePath, page: Option<&str>) -> Result<Listing> {
        let (dir, children) = self.children(path)?;
        let after = |child: &&Child| page.is_none_or(|page| child.mapped.as_str() > page);
        let mut listing = Listing::default();
        for child in children.iter().filter(after) {
            if listing.entries.len() == PAGE_ENTRIES {
                listing.next = listing.entries.last().map(|(path, _)| path.name().to_owned());
                break;
            }
            listing.entries.push((path.join(&child.mapped), self.child_entry(&dir, &child.name, &child.facts)?));
        }
        Ok(listing)
    }

    /// One page of the whole tree, parents before children; `page` is the path that the last one ended with.
    pub fn sweep(&self, page: Option<&str>) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut levels = self.resume(page)?;
        while let Some(level) = levels.last_mut() {
            let Some((path, entry)) = level.pop() else {
                levels.pop();
                continue;
            };
            if listing.entries.len() == PAGE_ENTRIES {
                listing.next = listing.entries.last().map(|(path, _)| path.as_str().to_owned());
                return Ok(listing);
            }
            if entry.kind == FileKind::Directory {
                levels.push(self.level(&path, None)?);
            }
            listing.entries.push((path, entry));
        }
        Ok(listing)
    }

    /// The levels of a walk that has told everything up to and including `page`, outermost first.
    fn resume(&self, page: Option<&str>) -> Result<Vec<Level>> {
        let last = RemotePath::new(page.unwrap_or_default());
        let mut levels = vec![];
        let mut at = RemotePath::root();
        for part in last.parts() {
            levels.push(self.level(&at, Some(part))?);
            at = at.join(part);
        }
        levels.push(self.level(&at, None)?);
        Ok(levels)
    }

    /// What there is to tell of a directory after the name `after`. One that is gone, or may not be read, has nothing.
    fn level(&self, path: &RemotePath, after: Option<&str>) -> Result<Level> {
        let (dir, children) = match self.children(path) {
            Ok(found) => found,
            Err(e) if !path.is_root() && passes(&e, path) => return Ok(Level::new()),
            Err(e) => return Err(e),
        };
        let mut left = Vec::new();
        for child in children.iter().rev().filter(|child| after.is_none_or(|after| child.mapped.as_str() > after)) {
            let entry = self.child_entry(&dir, &child.name, &child.facts)?;
            left.push((path.join(&child.mapped), entry));
        }
        Ok(left)
    }
}

fn passes(error: &Error, path: &RemotePath) -> bool {
    if error.kind == Kind::Denied {
        tracing::warn!("{path} is left out: {error}");
    }
    matches!(error.kind, Kind::NotFound | Kind::NotDirectory | Kind::Denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let root = super::super::tests::root(dir.path());
        for name in ["a", "a/b", "a/b/c", "a.b", "d"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::File::create(dir.path().join(name).join("file")).unwrap();
        }
        let all: Vec<_> = root.sweep(None).unwrap().entries.into_iter().map(|(path, _)| path).collect();
        assert_eq!(all.len(), 10);
        for (n, path) in all.iter().enumerate() {
            let rest: Vec<_> = root.sweep(Some(path.as_str())).unwrap().entries.into_iter().map(|e| e.0).collect();
            assert_eq!(rest, all[n + 1..], "after {path}");
        }
        // What the last page ended with may be gone.
        std::fs::remove_dir_all(dir.path().join("a/b")).unwrap();
        let rest: Vec<_> = root.sweep(Some("a/b/c")).unwrap().entries.into_iter().map(|e| e.0).collect();
        assert_eq!(
            rest.iter().map(RemotePath::as_str).collect::<Vec<_>>(),
            ["a/file", "a.b", "a.b/file", "d", "d/file"]
        );
    }
}
