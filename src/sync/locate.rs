//! Moves whose answer was lost: each is noted before it is asked for, and the note stays until it is known where the file is.
//!
//! Without ids nothing else tells a file that we moved from one that somebody deleted and another that somebody made. Until
//! both places were looked at, nothing that is heard of them is believed (`observe`).

use super::Shared;
use super::goal::Goal;
use super::operate::{Progress, renamed};
use crate::error::Result;
use crate::model::{Entry, FileKind, Ino};
use crate::remote::{Condition, Place, RenameDir};
use crate::store::{View, Which};

/// What the two places say of a move.
enum Found {
    /// It was done; the entry is what was moved, unchanged.
    Moved(Entry),
    /// It was done, and what was moved was changed there since.
    Changed(Entry),
    /// A remote that copies and deletes was stopped between the two.
    Copied(Entry),
    /// It was not done, or nobody can tell any more.
    NotMoved,
}

/// Whether the entry is the view's by its id; `None`: this remote has none.
fn is_it(entry: &Entry, view: &View) -> Option<bool> {
    Some(entry.id.as_ref()? == view.id.as_ref()?)
}

/// Whether the entry can only be what the view says, at another place.
fn is_same(entry: &Entry, view: &View) -> bool {
    if entry.kind == FileKind::Directory || view.kind == FileKind::Directory {
        return entry.kind == view.kind;
    }
    let mtime = entry.meta.as_ref().and_then(|meta| meta.mtime_ns);
    // A copy may get another tag; our own attributes go with it.
    entry.size == view.size && (entry.version == view.version || mtime.is_some() && mtime == view.meta.mtime_ns)
}

/// `copies`: whether this remote moves by copying and deleting, so that both can be there.
fn judge(view: &View, here: Option<Entry>, there: Option<Entry>, copies: bool) -> Found {
    let unchanged = |here: &Entry| here.kind == FileKind::Directory || here.version == view.version;
    let stayed = here.is_some_and(|here| is_it(&here, view).unwrap_or_else(|| unchanged(&here)));
    match there {
        Some(there) if !stayed && is_it(&there, view) == Some(false) => Found::NotMoved,
        Some(there) if !stayed && is_same(&there, view) => Found::Moved(there),
        Some(there) if !stayed => Found::Changed(there),
        // One of both is deleted then: by nothing less than an equal tag, and nowhere else.
        Some(there) if copies && there.kind != FileKind::Directory && there.version == view.version => {
            Found::Copied(there)
        }
        // Directories that are copied one by one go on where they were stopped.
        _ => Found::NotMoved,
    }
}

impl Shared {
    /// Looks at both places of a move whose answer was not heard, and notes what became of it.
    pub(super) async fn locate(&self, ino: Ino) -> Result<Progress> {
        let facts = || {
            self.store().read(|rows| {
                let Some((parent, raw)) = rows.moving(ino)? else { return Ok(None) };
                let (view, from) = (rows.view(ino, 0, Which::Remote)?, rows.remote_path(0, ino)?);
                let to = rows.remote_path(0, parent)?.map(|directory| directory.join(&raw));
                let over = rows.remote_child(0, parent, &raw)?.filter(|over| *over != ino);
                let over = match over {
                    Some(over) => Some((over, rows.view(over, 0, Which::Remote)?)),
                    None => None,
                };
                let above = view.as_ref().map_or(Ok(None), |view| rows.on_its_way(view.parent))?;
                let way = above.or(rows.on_its_way(parent)?);
                Ok(Some((parent, raw, view, from, to, over, way)))
            })
        };
        let seen = facts()?;
        let Some((parent, raw, view, from, to, over, way)) = seen.clone() else { return Ok(Progress::Went) };
        if let Some(way) = way {
            return Ok(Progress::Waits(way));
        }
        let call = self.guard.resume(ino);
        let (Some(view), Some(from), Some(to)) = (view, from, to) else {
            self.store().write(|tx| tx.set_move(ino, None))?;
            return Ok(Progress::Went);
        };
        let Some(call) = call.or_else(|| self.guard.call(vec![from.clone(), to.clone()])) else {
            return Ok(Progress::Busy);
        };
        if facts()? != seen {
            call.keep(ino);
            return Ok(Progress::Busy);
        }
        let (from, to) = (Place::at(from), Place::at(to));
        let goal = Goal { parent, name: self.names.shown(&raw, view.kind).name, raw, place: to };
        if let Err(error) = self.find(ino, &view, &from, &goal, over).await {
            call.keep(ino);
            return Err(error);
        }
        drop(call);
        // What was not believed meanwhile is looked at now.
        self.look(&from).await?;
        self.look(&goal.place).await?;
        self.ask_for([ino]).await?;
        Ok(Progress::Went)
    }

    /// `over`: what the move was to replace, and the remote's view of it.
    async fn find(
        &self,
        ino: Ino,
        view: &View,
        from: &Place,
        goal: &Goal,
        over: Option<(Ino, Option<View>)>,
    ) -> Result<()> {
        let to = &goal.place;
        let here = if from.path == to.path { None } else { self.remote().stat(from).await? };
        // What the move was to replace is no proof of it.
        let there = self.remote().stat(to).await?.filter(|there| {
            let old = over.as_ref().and_then(|(_, old)| old.as_ref());
            old.is_none_or(|old| old.version != there.version || old.kind != there.kind)
        });
        tracing::debug!("inode {ino}: {} has {here:?}, {} has {there:?}", from.path, to.path);
        let found = judge(view, here, there, self.remote().capabilities().rename_dir == RenameDir::PerObject);
        if matches!(found, Found::Copied(_)) {
            let condition = view.version.clone().map_or(Condition::Any, Condition::Is);
            self.remote().remove(from, false, &condition).await?;
        }
        let retagged = self.store().write(|tx| {
            let (entry, changed) = match &found {
                Found::Moved(entry) | Found::Copied(entry) => (Some(entry), None),
                Found::Changed(entry) => (None, Some(entry)),
                Found::NotMoved => return tx.set_move(ino, None).map(|()| None),
            };
            if let Some((over, _)) = over {
                tx.set_view(over, 0, Which::Remote, None)?;
                tx.set_view(over, 0, Which::Base, None)?;
            }
            let retagged = renamed(tx, ino, goal, entry)?;
            if let Some(changed) = changed {
                let now = View::of(changed, goal.parent, &goal.raw, goal.name.clone());
                tx.set_view(ino, 0, Which::Remote, Some(&now))?;
            }
            Ok(retagged)
        })?;
        if let Some((old, new)) = retagged {
            self.retag(ino, &old, &new);
        }
        tracing::debug!("inode {ino}: the move to {} was {}", to.path, found.word());
        Ok(())
    }

    /// Takes up the moves of an earlier worker that nothing was heard of.
    pub(super) fn take_up_moves(&self) -> Result<()> {
        let moves = self.store().read(|rows| {
            let mut found = Vec::new();
            for (ino, parent, name) in rows.moves()? {
                let to = rows.remote_path(0, parent)?.map(|directory| directory.join(&name));
                if let (Some(from), Some(to)) = (rows.remote_path(0, ino)?, to) {
                    found.push((ino, vec![from, to]));
                }
            }
            Ok(found)
        })?;
        moves.into_iter().for_each(|(ino, paths)| self.guard.keep(ino, paths));
        Ok(())
    }
}

impl Found {
    const fn word(&self) -> &'static str {
        match self {
            Found::Moved(_) => "done",
            Found::Changed(_) => "done, and somebody changed it since",
            Found::Copied(_) => "half done, and is now",
            Found::NotMoved => "not done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ino, Meta, Name, Version};

    fn entry(version: &str) -> Entry {
        Entry {
            kind: FileKind::File,
            id: None,
            size: 4,
            version: Some(Version::new(version)),
            hash: None,
            server_mtime_ns: None,
            meta: Some(Meta { mtime_ns: Some(7), ..Meta::default() }),
        }
    }

    fn found(here: Option<&str>, there: Option<&str>, copies: bool) -> &'static str {
        let view = View::of(&entry("1"), Ino::ROOT, "a", Name::new(b"a").expect("a name"));
        match judge(&view, here.map(entry), there.map(entry), copies) {
            Found::Moved(_) => "moved",
            Found::Changed(_) => "changed",
            Found::Copied(_) => "copied",
            Found::NotMoved => "not moved",
        }
    }

    #[test]
    fn nothing_is_deleted_but_what_a_copying_remote_has_twice_by_its_tag() {
        assert_eq!(found(None, Some("1"), false), "moved");
        assert_eq!(found(Some("1"), None, true), "not moved");
        assert_eq!(found(Some("1"), Some("1"), true), "copied");
        assert_eq!(found(Some("1"), Some("1"), false), "not moved", "a server that moves in one step did not");
        assert_eq!(found(Some("1"), Some("2"), true), "not moved", "of equal size and time, and perhaps another's");
        assert_eq!(found(Some("2"), Some("1"), true), "moved", "and somebody made a new file at the old place");
    }

    #[test]
    fn what_was_changed_after_its_move_is_not_taken_for_ours() {
        let view = View::of(&entry("1"), Ino::ROOT, "a", Name::new(b"a").expect("a name"));
        let other = Entry { size: 5, ..entry("2") };
        assert!(matches!(judge(&view, None, Some(other), false), Found::Changed(_)));
        let id = |id: &str| Some(id.to_owned());
        let view = View { id: id("x"), ..view };
        assert!(matches!(judge(&view, None, Some(Entry { id: id("y"), ..entry("1") }), false), Found::NotMoved));
        assert!(matches!(judge(&view, None, Some(Entry { id: id("x"), ..entry("1") }), false), Found::Moved(_)));
    }
}
