//! Every combination of the three views converges, and nothing that the user wrote is lost.

use fourwheel::model::{FileKind, Ino, Meta, Name, Version};
use fourwheel::store::{Content, Node, NodeTimes, View};
use fourwheel::sync::plan::{Facts, Step, plan};

/// One side of one file: its name and content, both small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    name: u8,
    content: u8,
}

/// A world of one inode, and what was set aside from it.
#[derive(Clone, Debug)]
struct World {
    local: Option<(Side, bool)>,
    base: Option<Side>,
    remote: Option<Side>,
    /// Whether what was written here was sent, and no answer was heard.
    attempted: bool,
    /// Whether a move of it was asked for, and no answer was heard.
    moving: bool,
    aside: Vec<u8>,
}

/// The content of whatever was sent without an answer.
const SENT: u8 = 2;

fn view(side: Side) -> View {
    View {
        kind: FileKind::File,
        id: None,
        parent: Ino::ROOT,
        name: side.name.to_string(),
        shown: Name::new(side.name.to_string().as_bytes()).unwrap(),
        size: 1,
        version: Some(Version::new(side.content.to_string())),
        hash: None,
        meta: Meta::default(),
        server_mtime_ns: None,
    }
}

fn step_of(world: &World) -> Step {
    step_with(world, false)
}

fn step_with(world: &World, local_only: bool) -> Step {
    let content = match world.local {
        Some((_, true)) => Content::Dirty,
        Some((side, false)) => Content::Version(Version::new(side.content.to_string())),
        None => Content::None,
    };
    let node = Node {
        ino: Ino::new(2).unwrap(),
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 1,
        times: NodeTimes::default(),
        content,
        target: None,
        xattrs: Default::default(),
        meta_known: true,
        mtime_set: false,
        listed: true,
    };
    let name = world.local.map(|(side, _)| Name::new(side.name.to_string().as_bytes()).unwrap());
    let (base, remote) = (world.base.map(view), world.remote.map(view));
    plan(&Facts {
        node: &node,
        place: name.as_ref().map(|name| (Ino::ROOT, name)),
        base: base.as_ref(),
        remote: remote.as_ref(),
        attempted: world.attempted,
        moving: world.moving,
        local_only,
    })
}

/// What the workers make of a step.
fn apply(world: &mut World, step: Step) {
    match step {
        Step::Nothing => {}
        Step::Forget => world.base = None,
        Step::Remove => (world.base, world.remote) = (None, None),
        Step::Inquire => {
            world.attempted = false;
            // What is there is what was sent.
            if world.remote.is_some_and(|side| side.content == SENT) {
                world.base = world.remote;
            }
        }
        Step::Locate => world.moving = false,
        Step::Restore => {
            world.local = world.remote.map(|side| (side, false));
            world.base = world.remote;
        }
        Step::Make => {
            let side = world.local.unwrap().0;
            world.local = Some((side, false));
            (world.base, world.remote) = (Some(side), Some(side));
        }
        Step::Move => {
            let name = world.local.unwrap().0.name;
            world.remote.as_mut().unwrap().name = name;
            world.base.as_mut().unwrap().name = name;
        }
        Step::Send => {
            let side = world.local.unwrap().0;
            world.local = Some((side, false));
            world.remote.as_mut().unwrap().content = side.content;
            world.base.as_mut().unwrap().content = side.content;
        }
        Step::SetMeta => {}
        Step::Take => {
            let content = world.remote.unwrap().content;
            world.local.as_mut().unwrap().0.content = content;
            world.base.as_mut().unwrap().content = content;
        }
        Step::Agree => world.base = world.remote,
        Step::KeepBoth => {
            // The inode that was written becomes a new file; the remote's gets an inode of its own.
            world.aside.push(world.local.unwrap().0.content);
            world.local = world.remote.map(|side| (side, false));
            world.base = world.remote;
        }
    }
}

fn sides() -> Vec<Option<Side>> {
    let mut all = vec![None];
    all.extend((0..2).flat_map(|name| (0..3).map(move |content| Some(Side { name, content }))));
    all
}

#[test]
fn every_start_converges_and_keeps_what_the_user_wrote() {
    for base in sides() {
        for remote in sides() {
            for side in sides() {
                for n in 0..8 {
                    let (dirty, attempted, moving) = (n & 1 != 0, n & 2 != 0, n & 4 != 0);
                    let local = side.map(|side| (side, dirty));
                    // A clean content is one that both sides agreed on.
                    if let (Some((side, false)), base) = (local, base)
                        && base.is_none_or(|b| b.content != side.content)
                    {
                        continue;
                    }
                    let start = World { local, base, remote, attempted, moving, aside: vec![] };
                    let mut world = start.clone();
                    let mut steps = 0;
                    loop {
                        let step = step_of(&world);
                        if matches!(step, Step::Nothing | Step::Forget) {
                            break;
                        }
                        apply(&mut world, step);
                        steps += 1;
                        assert!(steps <= 6, "no progress from {start:?}: {world:?} wants {step:?}");
                    }
                    if world.local.is_some() {
                        let local = world.local.map(|(side, _)| side);
                        assert_eq!(
                            world.remote.map(|r| (r.name, r.content)),
                            local.map(|l| (l.name, l.content)),
                            "{start:?}"
                        );
                        assert_eq!(world.base, world.remote, "{start:?}");
                    } else {
                        assert_eq!(world.remote, None, "{start:?}");
                    }
                    if let Some((side, true)) = local {
                        let kept = world.remote.is_some_and(|r| r.content == side.content)
                            || world.aside.contains(&side.content);
                        assert!(kept, "lost {} from {start:?}", side.content);
                    }
                    // What another client wrote is never overwritten either.
                    if let (Some(remote), Some(base)) = (remote, base)
                        && remote.content != base.content
                        && !(attempted && remote.content == SENT)
                    {
                        assert!(
                            world.remote.is_some_and(|r| r.content == remote.content),
                            "the other's write from {start:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_new_file_of_a_local_only_name_is_left_alone() {
    let world = World {
        local: Some((Side { name: 0, content: 1 }, true)),
        base: None,
        remote: None,
        attempted: false,
        moving: false,
        aside: vec![],
    };
    assert_eq!(step_of(&world), Step::Make);
    assert_eq!(step_with(&world, true), Step::Nothing);
    // One that the remote has already is kept in step, whatever it is called now.
    let known = World { base: Some(Side { name: 1, content: 0 }), remote: Some(Side { name: 1, content: 0 }), ..world };
    assert_eq!(step_with(&known, true), Step::Move);
}
