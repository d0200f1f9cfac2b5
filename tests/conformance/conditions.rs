//! Conditions: obeyed by the server where it can, else by a look just before. Either way, what they refuse changes nothing.

use super::World;
use super::world::{at, expect_kind};
use fourwheel::error::Kind;
use fourwheel::model::{Entry, Meta, Version};
use fourwheel::remote::{Condition, PutRequest, body};

fn say_who_looks(world: &World, by_server: bool) {
    if !by_server {
        world.skip("the server does not obey this condition; a look before must detect it");
    }
}

/// A version that is not there any more.
async fn stale(world: &World, name: &str) -> Version {
    let version = world.put(name, b"older").await.version.unwrap();
    world.put(name, b"there").await;
    version
}

pub async fn create_refuses_what_exists(world: World) {
    say_who_looks(&world, world.able().conditional_create);
    world.write("file", b"first", Condition::Absent).await.unwrap();
    expect_kind(world.write("file", b"second", Condition::Absent).await, &[Kind::Precondition]);
    assert_eq!(world.content("file").await, b"first"[..]);
    expect_kind(world.write("file", b"", Condition::Absent).await, &[Kind::Precondition]);
    if world.able().directories && !world.able().flat_keys {
        world.mkdir("directory").await;
        let over = world.write("directory", b"x", Condition::Absent).await;
        expect_kind(over, &[Kind::Precondition, Kind::IsDirectory]);
    }
}

pub async fn replace_refuses_another_version(world: World) {
    say_who_looks(&world, world.able().conditional_replace);
    let old = stale(&world, "file").await;
    expect_kind(world.write("file", b"mine", Condition::Is(old.clone())).await, &[Kind::Precondition]);
    assert_eq!(world.content("file").await, b"there"[..]);
    let now = world.version("file").await;
    let entry = world.write("file", b"mine", Condition::Is(now.clone())).await.unwrap();
    assert_eq!(world.content("file").await, b"mine"[..]);
    assert_ne!(entry.version, Some(now.clone()));
    expect_kind(world.write("file", b"again", Condition::Is(now)).await, &[Kind::Precondition]);
    expect_kind(world.write("absent", b"x", Condition::Is(old)).await, &[Kind::Precondition, Kind::NotFound]);
    assert_eq!(world.names("").await, ["file"]);
}

pub async fn remove_refuses_another_version(world: World) {
    say_who_looks(&world, world.able().conditional_remove);
    let old = stale(&world, "file").await;
    expect_kind(world.remote.remove(&at("file"), false, &Condition::Is(old)).await, &[Kind::Precondition]);
    assert_eq!(world.content("file").await, b"there"[..]);
    let now = world.version("file").await;
    world.remote.remove(&at("file"), false, &Condition::Is(now)).await.unwrap();
    assert_eq!(world.stat("file").await, None);
}

pub async fn rename_obeys_its_condition(world: World) {
    say_who_looks(&world, world.able().rename_replaces);
    world.put("new", b"new").await;
    let old = stale(&world, "file").await;
    expect_kind(world.rename("new", "file", Condition::Absent).await, &[Kind::Precondition]);
    expect_kind(world.rename("new", "file", Condition::Is(old)).await, &[Kind::Precondition]);
    assert_eq!(world.content("file").await, b"there"[..]);
    assert_eq!(world.content("new").await, b"new"[..]);
    let now = world.version("file").await;
    match world.rename("new", "file", Condition::Is(now)).await {
        Ok(entry) => {
            assert_eq!(world.content("file").await, b"new"[..]);
            assert_eq!(entry.version, Some(world.version("file").await));
            assert_eq!(world.names("").await, ["file"]);
        }
        Err(error) => {
            assert!(!world.able().rename_replaces, "{error}");
            assert_eq!(world.content("file").await, b"there"[..]);
            assert_eq!(world.content("new").await, b"new"[..]);
        }
    }
    if world.able().rename_replaces {
        world.put("any", b"any").await;
        world.rename("any", "file", Condition::Any).await.unwrap();
        assert_eq!(world.content("file").await, b"any"[..]);
    }
}

pub async fn copy_obeys_its_condition(world: World) {
    if !world.able().copy {
        return world.skip("no copy on the server");
    }
    let old = stale(&world, "file").await;
    let now = world.version("file").await;
    let copy = async |version: &Version, to: &str, condition: Condition| {
        world.remote.copy(&at("file"), version, &at(to), &condition).await
    };
    let entry = copy(&now, "copy", Condition::Absent).await.unwrap();
    assert_eq!(world.content("copy").await, b"there"[..]);
    assert_eq!(entry.version, Some(world.version("copy").await));
    expect_kind(copy(&now, "copy", Condition::Absent).await, &[Kind::Precondition]);
    expect_kind(copy(&old, "other", Condition::Absent).await, &[Kind::Changed, Kind::Precondition]);
    expect_kind(copy(&old, "copy", Condition::Is(old.clone())).await, &[Kind::Changed, Kind::Precondition]);
    copy(&now, "copy", Condition::Any).await.unwrap();
    assert_eq!(world.names("").await, ["copy", "file"]);
}

/// Writes of eight rivals with one condition: who won, after it was made sure that none of the refused is what is there.
async fn rivals(world: &World, condition: &Condition) -> Vec<(u8, Entry)> {
    let writes = (0..8u8).map(|n| {
        let (remote, condition) = (world.remote.clone(), condition.clone());
        tokio::spawn(async move {
            let request = PutRequest { body: body(vec![n; 1000]), meta: Meta::default(), condition };
            remote.put(&at("file"), request).await.map(|entry| (n, entry))
        })
    });
    let mut won = Vec::new();
    for result in futures_util::future::join_all(writes).await {
        match result.unwrap() {
            Ok(winner) => won.push(winner),
            Err(error) => {
                assert!(matches!(error.kind, Kind::Precondition | Kind::Unavailable | Kind::Throttled), "{error}")
            }
        }
    }
    let found = world.content("file").await;
    assert!(won.iter().any(|(n, _)| found == vec![*n; 1000]), "what is there was refused");
    won
}

pub async fn of_rivals_the_refused_leave_nothing(world: World) {
    for _ in 0..5 {
        rivals(&world, &Condition::Absent).await;
        let version = world.version("file").await;
        let won = rivals(&world, &Condition::Is(version)).await;
        let (found, there) = (world.content("file").await, Some(world.version("file").await));
        for (n, entry) in won {
            assert!(entry.version != there || found == vec![n; 1000], "a loser was told the winner's version");
        }
        world.remote.remove(&at("file"), false, &Condition::Any).await.unwrap();
    }
    assert_eq!(world.names("").await, [""; 0]);
}

pub async fn of_rivals_one_wins(world: World) {
    let (create, replace) = (world.able().conditional_create, world.able().conditional_replace);
    say_who_looks(&world, create && replace);
    let one_won = async |won: Vec<(u8, Entry)>| {
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(won[0].1.version, Some(world.version("file").await));
    };
    for _ in 0..10 {
        let won = rivals(&world, &Condition::Absent).await;
        if create {
            one_won(won).await;
        }
        let version = world.version("file").await;
        let won = rivals(&world, &Condition::Is(version)).await;
        if replace {
            one_won(won).await;
        }
        world.remote.remove(&at("file"), false, &Condition::Any).await.unwrap();
    }
}
