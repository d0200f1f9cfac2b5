//! Change feeds: a view that applies what the feed says becomes the tree.

use super::World;
use super::world::{at, expect_kind};
use fourwheel::error::Kind;
use fourwheel::model::{FileKind, RemotePath, Version};
use fourwheel::remote::{Change, ChangeFeed, Condition};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a feed may take to tell; local ones take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

type View = BTreeMap<RemotePath, (FileKind, u64, Option<Version>)>;

async fn tree(world: &World) -> View {
    let facts = |(path, entry): (RemotePath, fourwheel::model::Entry)| {
        let version = entry.version.filter(|_| entry.kind != FileKind::Directory);
        (path, (entry.kind, entry.size, version))
    };
    world.tree().await.into_iter().map(facts).collect()
}

/// Applies one change to a view, looking where it says so.
async fn apply(world: &World, view: &mut View, change: Change) {
    match change {
        Change::Present(path, entry) => {
            let version = entry.version.filter(|_| entry.kind != FileKind::Directory);
            view.insert(path, (entry.kind, entry.size, version));
        }
        Change::Absent(path) => view.retain(|known, _| !known.is_within(&path)),
        Change::Look { directory, deep } => {
            let below = |path: &RemotePath| path.is_within(&directory) && *path != directory;
            let child = |path: &RemotePath| path.split().is_some_and(|(parent, _)| parent == directory);
            let now = tree(world).await;
            view.retain(|path, _| !below(path) || (now.contains_key(path) && !child(path) && !deep));
            view.extend(now.into_iter().filter(|(path, _)| below(path) && (deep || child(path))));
        }
    }
}

/// Follows the feed until the view is the tree.
async fn follow(world: &World, view: &mut View, cursor: &mut String) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let changes = world.remote.changes(Some(cursor.clone()), 200).await.unwrap();
        assert!(!changes.reset, "the cursor expired");
        *cursor = changes.cursor;
        for change in changes.changes {
            apply(world, view, change).await;
        }
        let now = tree(world).await;
        if *view == now {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "the view stays {view:#?}\nthe tree is {now:#?}");
    }
}

fn has_cursor(world: &World) -> bool {
    let has = world.able().changes == ChangeFeed::Cursor;
    if !has {
        world.skip("no cursor feed");
    }
    has
}

pub async fn a_view_that_follows_the_feed_is_the_tree(world: World) {
    if !has_cursor(&world) {
        return expect_kind(world.remote.changes(None, 0).await, &[Kind::Unsupported]);
    }
    world.mkdir("before").await;
    world.put("before/file", b"x").await;
    let now = world.remote.changes(None, 0).await.unwrap();
    assert!(now.changes.is_empty() && !now.reset);
    let (mut cursor, mut view) = (now.cursor, tree(&world).await);
    let step = async |view: &mut View, cursor: &mut String| follow(&world, view, cursor).await;

    world.put("a", b"new").await;
    world.put("before/file", b"replaced").await;
    step(&mut view, &mut cursor).await;
    world.mkdir("d").await;
    world.mkdir("d/e").await;
    world.put("d/e/f", b"deep").await;
    step(&mut view, &mut cursor).await;
    world.rename("d", "moved", Condition::Absent).await.unwrap();
    world.put("moved/e/g", b"in what moved").await;
    world.put("moved/e/f", b"changed there").await;
    step(&mut view, &mut cursor).await;
    world.rename("before/file", "moved/file", Condition::Absent).await.unwrap();
    world.remote.remove(&at("a"), false, &Condition::Any).await.unwrap();
    world.remote.remove(&at("before"), true, &Condition::Any).await.unwrap();
    step(&mut view, &mut cursor).await;
    // What came and went in between need not be told, but must not stay.
    for n in 0..50 {
        let name = format!("brief{n}");
        world.put(&name, b"x").await;
        world.remote.remove(&at(&name), false, &Condition::Any).await.unwrap();
    }
    world.mkdir("d").await;
    world.put("d/again", b"a directory of an old name").await;
    step(&mut view, &mut cursor).await;
    assert!(view.len() == 7, "{view:#?}");
}

pub async fn an_unknown_cursor_is_told_to_start_over(world: World) {
    if has_cursor(&world) {
        let changes = world.remote.changes(Some("0000:not a cursor".into()), 0).await.unwrap();
        assert!(changes.reset && changes.changes.is_empty());
        let changes = world.remote.changes(Some(changes.cursor), 0).await.unwrap();
        assert!(!changes.reset, "the cursor that came with it is good");
    }
}

pub async fn a_wait_ends_with_a_change(world: World) {
    if has_cursor(&world) {
        let cursor = world.remote.changes(None, 0).await.unwrap().cursor;
        let waiting = tokio::spawn({
            let remote = world.remote.clone();
            async move { remote.changes(Some(cursor), 60_000).await }
        });
        tokio::task::yield_now().await;
        world.put("file", b"x").await;
        let told = tokio::time::timeout(PATIENCE, waiting).await.expect("it ends").unwrap().unwrap();
        assert!(told.reset || !told.changes.is_empty());
    }
}

pub async fn directory_versions_tell_of_changes_below(world: World) {
    if world.able().changes != ChangeFeed::EtagTree {
        return world.skip("no versions of directories");
    }
    for name in ["a", "a/b", "other"] {
        world.mkdir(name).await;
    }
    world.put("a/b/f", b"1").await;
    let version = async |name: &str| world.remote.list(&at(name), None).await.unwrap().directory.expect("a version");
    let before = (version("").await, version("a").await, version("other").await);
    world.put("a/b/f", b"2").await;
    let after = (version("").await, version("a").await, version("other").await);
    assert!(before.0 != after.0 && before.1 != after.1 && before.2 == after.2);
    let children = world.list("").await.unwrap();
    assert_eq!(children[&at("a").path].version, Some(after.1), "a listing tells its children's versions");
}
