//! What to do next for one inode: a pure function of its three views. No queue of intentions is kept anywhere.

use crate::model::{Ino, Name};
use crate::store::{Content, Node, View};

/// The three views of one inode.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub node: &'a Node,
    /// Where it is on the mount; `None`: deleted here.
    pub place: Option<(Ino, &'a Name)>,
    pub base: Option<&'a View>,
    pub remote: Option<&'a View>,
    /// Whether it was sent, and no answer was heard.
    pub attempted: bool,
    /// Whether it was moved on the remote, and no answer was heard.
    pub moving: bool,
    /// Whether its name is one that stays on this machine.
    pub local_only: bool,
}

/// One step towards equal views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The views are equal, or the inode stays on this machine.
    Nothing,
    /// Neither side has it: drop the rows.
    Forget,
    /// Deleted here: delete it there.
    Remove,
    /// Deleted here, and what was sent before may have arrived: see what is there.
    Inquire,
    /// Perhaps moved on the remote already: see where it is.
    Locate,
    /// Deleted here, changed there: it comes back.
    Restore,
    /// New here: make it there.
    Make,
    /// Moved or renamed here: move it there.
    Move,
    /// Written here: send the content.
    Send,
    /// Attributes changed here: send them.
    SetMeta,
    /// Changed there only: take it.
    Take,
    /// Both sides are equal without having agreed: note it.
    Agree,
    /// Both sides changed: keep both.
    KeepBoth,
}

/// The next step. Applying steps until `Nothing` or `Forget` ends with three equal views (`tests/planner.rs`).
pub fn plan(facts: &Facts<'_>) -> Step {
    if facts.moving {
        return Step::Locate;
    }
    let Some((parent, name)) = facts.place else {
        return match (facts.base, facts.remote) {
            _ if facts.attempted => Step::Inquire,
            (Some(base), Some(remote)) if base.same_content(remote) => Step::Remove,
            (_, None) => Step::Forget,
            (_, Some(_)) => Step::Restore,
        };
    };
    if !facts.node.is_syncable() {
        return Step::Nothing;
    }
    let (base, remote) = match (facts.base, facts.remote) {
        (None, None) if facts.local_only => return Step::Nothing,
        (_, None) => return Step::Make,
        (None, Some(remote)) => {
            return if facts.node.kind == remote.kind && remote.kind == crate::model::FileKind::Directory {
                Step::Agree
            } else {
                Step::KeepBoth
            };
        }
        (Some(base), Some(remote)) => (base, remote),
    };
    let written = match &facts.node.content {
        Content::Dirty => true,
        Content::Version(version) => base.version.as_ref() != Some(version),
        Content::None => false,
    };
    match (written, !remote.same_content(base)) {
        (true, true) => return Step::KeepBoth,
        (false, true) => return Step::Take,
        _ => {}
    }
    if parent != base.parent || *name != base.shown {
        return Step::Move;
    }
    if written {
        return Step::Send;
    }
    if facts.node.meta_differs(&base.meta) || facts.node.time_is_moved(&remote.meta) {
        return Step::SetMeta;
    }
    if !remote.same_place(base) { Step::Agree } else { Step::Nothing }
}
