//! `rename`, with RENAME_NOREPLACE and RENAME_EXCHANGE.

use super::{Answer, Caller, Drive, absent, exists, living_directory, touch_directory};
use crate::error::{Error, Kind, Result};
use crate::model::{FileKind, Ino, Name};
use crate::store::{Node, Outcome, Tx, Which};

/// What happens when the target exists (renameat2(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// A rename that was asked for.
struct Move<'a> {
    from: (Ino, &'a Name),
    to: (Ino, &'a Name),
    mode: RenameMode,
}

impl Drive {
    /// Moves `name` of `parent` to `new_name` of `new_parent`, atomically, also over what is there.
    pub fn rename(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        mode: RenameMode,
    ) -> Answer<()> {
        let target = match self.store().read(|rows| rows.lookup(new_parent, new_name)) {
            Ok(target) => target,
            Err(e) => return Answer::Now(Err(e)),
        };
        let (name, new_name) = (name.clone(), new_name.clone());
        let work = move |drive: &Drive| {
            drive.rename_now(caller, &Move { from: (parent, &name), to: (new_parent, &new_name), mode })
        };
        // Whether the target, or a directory in its place, is empty must be known first.
        let look = match target {
            Some(node) if node.kind == FileKind::Directory && mode == RenameMode::Replace => node.ino,
            _ => new_parent,
        };
        match self.is_listed(parent) {
            Ok(true) => self.in_listed(look, work),
            Err(e) => Answer::Now(Err(e)),
            Ok(false) => {
                let drive = self.clone();
                Answer::later(async move {
                    drive.listed(parent).await?;
                    if !drive.is_listed(look)? {
                        drive.listed(look).await?;
                    }
                    work(&drive)
                })
            }
        }
    }

    fn rename_now(&self, caller: Caller, wish: &Move<'_>) -> Result<()> {
        let now = self.now_ns();
        let mut replaced = None;
        self.once(caller, |tx| {
            replaced = move_in(tx, wish, now)?;
            if let Some(ino) = replaced {
                self.store().opens().hold(ino);
            }
            Ok(Outcome::Done)
        })?;
        Ok(())
    }
}

/// Does it; returns the inode that lost its name.
fn move_in(tx: &mut Tx<'_>, wish: &Move<'_>, now_ns: i64) -> Result<Option<Ino>> {
    let ((parent, name), (new_parent, new_name)) = (wish.from, wish.to);
    living_directory(tx, parent)?;
    living_directory(tx, new_parent)?;
    let mut source = tx.lookup(parent, name)?.ok_or_else(|| absent(name))?;
    let target = tx.lookup(new_parent, new_name)?;
    if source.kind == FileKind::Directory && tx.is_within(new_parent, source.ino)? {
        return Err(Error::new(Kind::Invalid, "a directory cannot move into itself"));
    }
    let mut replaced = None;
    match (wish.mode, target) {
        (RenameMode::NoReplace, Some(_)) => return Err(exists(new_name)),
        (RenameMode::Exchange, None) => return Err(absent(new_name)),
        (_, Some(target)) if target.ino == source.ino => return Ok(None),
        (RenameMode::Exchange, Some(mut target)) => {
            if target.kind == FileKind::Directory && tx.is_within(parent, target.ino)? {
                return Err(Error::new(Kind::Invalid, "a directory cannot move into itself"));
            }
            tx.remove_name(parent, name)?;
            tx.remove_name(new_parent, new_name)?;
            tx.add_name(parent, name, target.ino)?;
            tx.add_name(new_parent, new_name, source.ino)?;
            target.times.ctime_ns = now_ns;
            tx.set_node(&target)?;
        }
        (_, target) => {
            if let Some(target) = target {
                may_replace(tx, &source, &target, new_name)?;
                tx.remove_name(new_parent, new_name)?;
                take_place(tx, &source, &target)?;
                replaced = Some(target.ino);
            }
            tx.remove_name(parent, name)?;
            tx.add_name(new_parent, new_name, source.ino)?;
        }
    }
    source.times.ctime_ns = now_ns;
    tx.set_node(&source)?;
    let holder = tx.node(parent)?;
    touch_directory(tx, holder, now_ns)?;
    if new_parent != parent {
        let holder = tx.node(new_parent)?;
        touch_directory(tx, holder, now_ns)?;
    }
    Ok(replaced)
}

fn may_replace(tx: &Tx<'_>, source: &Node, target: &Node, name: &Name) -> Result<()> {
    match (source.kind == FileKind::Directory, target.kind == FileKind::Directory) {
        (true, false) => Err(Error::new(Kind::NotDirectory, format!("\"{name}\" is no directory"))),
        (false, true) => Err(Error::new(Kind::IsDirectory, format!("\"{name}\" is a directory"))),
        (true, true) if !tx.is_empty(target.ino)? => {
            Err(Error::new(Kind::NotEmpty, format!("\"{name}\" is not empty")))
        }
        _ => Ok(()),
    }
}

/// A new file that takes the name of one that the remote has becomes a new version of that one: its id, its links and its
/// history live on, and a save by temporary file costs one upload and no delete.
fn take_place(tx: &mut Tx<'_>, source: &Node, target: &Node) -> Result<()> {
    let new = tx.view(source.ino, 0, Which::Remote)?.is_none() && tx.view(source.ino, 0, Which::Base)?.is_none();
    // What is on its way to the remote is noted under the inode that it was begun for; the planner does the rest later.
    let quiet = |tx: &Tx<'_>, ino| Ok::<_, Error>(tx.attempt(ino)?.is_none() && tx.moving(ino)?.is_none());
    if new
        && quiet(tx, source.ino)?
        && quiet(tx, target.ino)?
        && source.kind == FileKind::File
        && target.kind == FileKind::File
    {
        tx.hand_over_views(target.ino, source.ino)?;
    }
    Ok(())
}
