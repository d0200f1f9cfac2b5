//! Names and places: directories, listings, moves, removals.

use super::World;
use super::world::{at, expect_kind};
use fourwheel::error::Kind;
use fourwheel::model::{FileKind, Meta, RemotePath};
use fourwheel::remote::{Condition, Place};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// Makes these directories (names ending in `/`) and files, parents first; a file holds its own name.
async fn build(world: &World, names: &[&str]) {
    for name in names {
        match name.strip_suffix('/') {
            Some(name) if world.able().directories => {
                world.mkdir(name).await;
            }
            Some(_) => {}
            None => {
                world.put(name, name.as_bytes()).await;
            }
        }
    }
}

async fn paths(world: &World) -> Vec<String> {
    world.tree().await.keys().map(|path| path.as_str().to_owned()).collect()
}

pub async fn directories_are_made_and_listed(world: World) {
    if !world.able().directories {
        return world.skip("directories do not exist by themselves");
    }
    assert_eq!(world.names("").await, [""; 0]);
    let entry = world.mkdir("d").await;
    assert_eq!((entry.kind, entry.size), (FileKind::Directory, 0));
    assert_eq!(world.stat("d").await.map(|entry| entry.kind), Some(FileKind::Directory));
    assert_eq!(world.names("d").await, [""; 0]);
    build(&world, &["d/file", "d/sub/", "d/sub/below", "other"]).await;
    assert_eq!(world.names("").await, ["d", "other"]);
    assert_eq!(world.names("d").await, ["file", "sub"]);
    let mkdir = async |name: &str| world.remote.mkdir(&at(name), &Meta::default()).await;
    expect_kind(mkdir("d").await, &[Kind::Exists]);
    expect_kind(mkdir("other").await, &[Kind::Exists]);
    expect_kind(mkdir("no/d").await, &[Kind::NotFound]);
    expect_kind(world.list("no").await, &[Kind::NotFound]);
    expect_kind(world.list("other").await, &[Kind::NotDirectory]);
    assert_eq!(world.content("d/file").await, b"d/file"[..]);
}

pub async fn a_listing_holds_every_child_once(world: World) {
    build(&world, &["d/", "d/sub/", "d/sub/below", "d.x", "d x"]).await;
    let names: BTreeSet<String> = (0..1050).map(|n| format!("file-{n}")).collect();
    let full: Vec<String> = names.iter().map(|name| format!("d/{name}")).collect();
    futures_util::stream::iter(&full)
        .map(|name| world.put(name, b"x"))
        .buffer_unordered(8)
        .for_each(|_| async {})
        .await;
    let mut listed: BTreeSet<String> = world.names("d").await.into_iter().collect();
    assert!(listed.remove("sub"));
    assert_eq!(listed, names);
    if world.able().whole_tree {
        assert_eq!(sweep(&world).await.len(), world.tree().await.len());
    }
}

async fn sweep(world: &World) -> BTreeMap<RemotePath, FileKind> {
    let (mut all, mut page) = (BTreeMap::new(), None);
    loop {
        let listing = world.remote.sweep(page).await.unwrap();
        for (path, entry) in listing.entries {
            let twice = all.insert(path.clone(), entry.kind).is_some();
            assert!(!twice, "{path} is swept twice");
        }
        match listing.next {
            None => return all,
            next => page = next,
        }
    }
}

pub async fn a_sweep_is_the_whole_tree(world: World) {
    if !world.able().whole_tree {
        expect_kind(world.remote.sweep(None).await, &[Kind::Unsupported]);
        return world.skip("no listing of the whole tree");
    }
    assert_eq!(sweep(&world).await.len(), 0);
    build(&world, &["a/", "a/b/", "a/b/c/", "a/b/c/file", "a/b/file", "a.b", "a b", "z/", "z/file"]).await;
    let tree: BTreeMap<_, _> = world.tree().await.into_iter().map(|(path, entry)| (path, entry.kind)).collect();
    assert_eq!(sweep(&world).await, tree);
    let version = world.list("z").await.unwrap().remove(&at("z/file").path).unwrap().version;
    let (mut page, mut found) = (None, None);
    while found.is_none() {
        let swept = world.remote.sweep(page).await.unwrap();
        found = swept.entries.into_iter().find(|(path, _)| path.as_str() == "z/file");
        page = swept.next;
        assert!(found.is_some() || page.is_some(), "the sweep ended without it");
    }
    assert_eq!(found.unwrap().1.version, version, "a version is the same in a sweep as in a listing");
}

pub async fn a_deep_tree_works(world: World) {
    let mut name = String::new();
    for level in 0..40 {
        name = if name.is_empty() { "level-0".into() } else { format!("{name}/level-{level}") };
        build(&world, &[&format!("{name}/")]).await;
    }
    let file = format!("{name}/file");
    world.put(&file, b"deep").await;
    assert_eq!(world.content(&file).await, b"deep"[..]);
    assert_eq!(world.names(&name).await, ["file"]);
    assert_eq!(world.tree().await.len(), 41);
}

pub async fn nothing_unnamed_is_removed(world: World) {
    build(&world, &["d/", "d/file", "d2/", "d2/file", "f", "f2"]).await;
    let remove = async |name: &str, directory: bool| world.remote.remove(&at(name), directory, &Condition::Any).await;
    let before = paths(&world).await;
    expect_kind(remove("d", true).await, &[Kind::NotEmpty]);
    assert!(remove("d", false).await.is_err());
    assert!(remove("f", true).await.is_err());
    expect_kind(remove("none", false).await, &[Kind::NotFound]);
    expect_kind(remove("none", true).await, &[Kind::NotFound]);
    assert!(remove("", true).await.is_err(), "the root stays");
    assert_eq!(paths(&world).await, before);
    remove("f", false).await.unwrap();
    remove("d/file", false).await.unwrap();
    if world.able().directories {
        assert_eq!(world.names("d").await, [""; 0]);
        remove("d", true).await.unwrap();
        expect_kind(remove("d", true).await, &[Kind::NotFound]);
    }
    assert_eq!(paths(&world).await, ["d2", "d2/file", "f2"]);
}

pub async fn a_file_moves(world: World) {
    build(&world, &["a", "d/", "d/x"]).await;
    let entry = world.rename("a", "b", Condition::Absent).await.unwrap();
    assert_eq!((entry.kind, entry.size), (FileKind::File, 1));
    assert_eq!(world.version("b").await, entry.version.unwrap());
    world.rename("b", "d/c", Condition::Absent).await.unwrap();
    assert_eq!(paths(&world).await, ["d", "d/c", "d/x"]);
    assert_eq!(world.content("d/c").await, b"a"[..]);
    expect_kind(world.rename("b", "d/c", Condition::Any).await, &[Kind::NotFound]);
    assert_eq!(world.content("d/c").await, b"a"[..]);
    let version = world.version("d/c").await;
    world.remote.rename(&at("d/c"), &at("c"), Some(&version), &Condition::Absent).await.unwrap();
    assert_eq!(world.content("c").await, b"a"[..]);
}

pub async fn a_directory_moves_with_all_below(world: World) {
    build(&world, &["a/", "a/f", "a/b/", "a/b/c/", "a/b/c/f", "ab", "a.b", "to/", "to/x"]).await;
    let entry = world.rename("a", "to/a2", Condition::Absent).await.unwrap();
    assert_eq!(entry.kind, FileKind::Directory);
    let want = ["a.b", "ab", "to", "to/a2", "to/a2/b", "to/a2/b/c", "to/a2/b/c/f", "to/a2/f", "to/x"];
    assert_eq!(paths(&world).await, want);
    assert_eq!(world.content("to/a2/b/c/f").await, b"a/b/c/f"[..]);
    assert_eq!(world.stat("a").await, None);
    assert_eq!(world.stat("a/b/c/f").await, None);
}

pub async fn a_move_that_cannot_be_changes_nothing(world: World) {
    build(&world, &["a/", "a/f", "b/", "b/f", "file"]).await;
    let before = paths(&world).await;
    expect_kind(world.rename("none", "x", Condition::Absent).await, &[Kind::NotFound]);
    assert!(world.rename("a", "a/inside", Condition::Absent).await.is_err());
    for condition in [Condition::Absent, Condition::Any] {
        assert!(world.rename("a", "b", condition.clone()).await.is_err(), "a directory over a directory");
        assert!(world.rename("a", "file", condition.clone()).await.is_err(), "a directory over a file");
        assert!(world.rename("file", "b", condition).await.is_err(), "a file over a directory");
    }
    if world.able().directories {
        expect_kind(world.rename("file", "none/x", Condition::Absent).await, &[Kind::NotFound]);
    }
    assert_eq!(paths(&world).await, before);
    assert_eq!(world.content("file").await, b"file"[..]);
    assert_eq!(world.content("a/f").await, b"a/f"[..]);
}

pub async fn ids_survive_moves(world: World) {
    if !world.able().stable_ids {
        return world.skip("no stable ids");
    }
    build(&world, &["d/", "d/f", "g"]).await;
    let id = world.stat("d/f").await.unwrap().id;
    assert!(id.is_some() && id != world.stat("g").await.unwrap().id);
    world.put("d/f", b"replaced").await;
    assert_eq!(world.stat("d/f").await.unwrap().id, id, "a replaced file keeps its id");
    world.rename("d/f", "f2", Condition::Absent).await.unwrap();
    world.rename("d", "d2", Condition::Absent).await.unwrap();
    assert_eq!(world.stat("f2").await.unwrap().id, id);
    let place = Place { path: at("f2").path, id: id.clone() };
    let entry = world.remote.stat(&place).await.unwrap().unwrap();
    assert_eq!((entry.size, entry.id), (8, id));
}

pub async fn space_is_stated(world: World) {
    match world.remote.quota().await {
        Ok(quota) => {
            assert!(quota.used_bytes.is_some() || quota.available_bytes.is_some() || !world.able().quota);
        }
        Err(error) => assert!(!world.able().quota && error.kind == Kind::Unsupported, "{error}"),
    }
}
