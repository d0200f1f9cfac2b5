//! Where an inode is to be on the remote, and who stands there.

use super::Shared;
use super::engine::is_local_only;
use super::operate::{Progress, time_moved};
use crate::error::{Error, Kind, Result};
use crate::model::{Entry, Ino, Meta, Name};
use crate::remote::{Condition, Place};
use crate::store::{Attempt, Node, Rows, Tx, View, Which};

/// Where an inode is to be on the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) raw: String,
    pub(super) place: Place,
}

/// What stands at a goal already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    Nobody,
    /// Deleted here and unchanged there: its place, and for a file its identity, may be taken.
    Leaving(Ino, Box<View>),
    /// Somebody who must move or be settled first.
    Staying(Ino),
}

impl Shared {
    /// Where `ino` is to be. `NotFound`: deleted meanwhile. `Unavailable`: its directory is not there yet.
    pub(super) fn goal(&self, rows: &Rows<'_>, node: &Node) -> Result<Goal> {
        let place = rows.place(node.ino)?;
        let (parent, name) = place.ok_or_else(|| Error::new(Kind::Stale, format!("inode {} was deleted", node.ino)))?;
        let directory = rows.remote_path(0, parent)?;
        let directory =
            directory.ok_or_else(|| Error::new(Kind::Unavailable, "its directory is not on the remote yet"))?;
        let raw = match rows.view(node.ino, 0, Which::Base)? {
            // The provider's spelling of a name that was not changed here is kept.
            Some(base) if base.parent == parent && base.shown == name => base.name,
            _ => self.names.raw(&name, node.kind)?,
        };
        let path = directory.join(&raw);
        if path.as_str().len() > self.remote().capabilities().names.path_bytes_max {
            return Err(Error::new(Kind::NameTooLong, format!("the path {path} is too long for this remote")));
        }
        Ok(Goal { parent, name, raw, place: Place::at(path) })
    }

    pub(super) fn occupant(&self, rows: &Rows<'_>, ino: Ino, goal: &Goal) -> Result<Occupant> {
        let Some(other) = rows.remote_child(0, goal.parent, &goal.raw)?.filter(|other| *other != ino) else {
            return Ok(Occupant::Nobody);
        };
        if rows.moving(other)?.is_some() || rows.place(other)?.is_none() && rows.attempt(other)?.is_some() {
            // Something of it is on its way: what the views say of it may be over.
            return Ok(Occupant::Staying(other));
        }
        let (base, view) = (rows.view(other, 0, Which::Base)?, rows.view(other, 0, Which::Remote)?);
        Ok(match (rows.place(other)?, base, view) {
            (None, Some(base), Some(view)) if base.same_content(&view) => Occupant::Leaving(other, Box::new(view)),
            _ => Occupant::Staying(other),
        })
    }

    /// Notes what is about to be sent, so that it is known again when its answer is lost. Else, and nothing noted, how the step
    /// ends: it is not to be sent any more, or something else was sent to this place before and not heard of since.
    ///
    /// Asked once the place is ours: what was read before may have been changed by the call that had it. One transaction: an
    /// inode that is forgotten here in between would leave a note of nobody, and on the remote a file that nobody deletes.
    pub(super) fn attempt(
        &self,
        node: &Node,
        goal: &Goal,
        condition: &Condition,
        sent: &Attempt,
    ) -> Result<Option<Progress>> {
        self.store().write(|tx| {
            if !self.is_still(tx, node, goal, condition)? {
                return Ok(Some(Progress::Went));
            }
            // Of two that were sent to one place nobody could tell whose is there.
            for rival in tx.attempted_at(goal.parent, &goal.raw)? {
                let name = tx.place(rival)?.map(|(_, name)| name);
                let stays = name.is_some_and(|name| is_local_only(&self.settings.local_only, name.as_bytes()));
                if rival != node.ino && !stays {
                    return Ok(Some(Progress::Waits(rival)));
                }
            }
            tx.set_attempt(node.ino, Some(sent))?;
            Ok(None)
        })
    }

    /// Whether an inode still wants to be at `goal`, and the remote's view of it still is what `condition` was made from.
    fn is_still(&self, rows: &Rows<'_>, node: &Node, goal: &Goal, condition: &Condition) -> Result<bool> {
        let Some(now) = rows.find_node(node.ino)? else { return Ok(false) };
        if rows.place(node.ino)? != Some((goal.parent, goal.name.clone())) {
            return Ok(false);
        }
        if rows.on_its_way(node.ino)?.or(rows.on_its_way(goal.parent)?).is_some() {
            return Ok(false);
        }
        let again = self.goal(rows, &now)?;
        let view = rows.view(node.ino, 0, Which::Remote)?;
        let same = match (&view, condition) {
            (None, Condition::Absent) => true,
            (Some(view), Condition::Is(version)) => view.version.as_ref() == Some(version),
            (Some(view), Condition::Any) => view.version.is_none(),
            _ => false,
        };
        let alone = rows.remote_child(0, goal.parent, &goal.raw)?.is_none_or(|there| there == node.ino);
        Ok(same && alone && again.place.path == goal.place.path && now.content == node.content)
    }

    /// Notes that both sides are equal: the remote has `entry` at `goal`, and the mount shows `node`'s attributes.
    pub(super) fn settle(&self, tx: &mut Tx<'_>, ino: Ino, goal: &Goal, entry: &Entry, sent: &Meta) -> Result<()> {
        let kind = tx.node(ino)?.kind;
        let mut view = View::of(entry, goal.parent, &goal.raw, goal.name.clone());
        view.kind = kind;
        tx.set_view(ino, 0, Which::Remote, Some(&view))?;
        view.meta = sent.clone();
        tx.set_view(ino, 0, Which::Base, Some(&view))?;
        time_moved(tx, goal.parent)?;
        tx.set_attempt(ino, None)?;
        tx.set_failure(ino, None, 0)
    }
}
