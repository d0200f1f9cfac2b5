//! Bytes: what goes in comes out, whole, under its version.

use super::World;
use super::world::{at, expect_kind, failing_body, pattern};
use fourwheel::error::Kind;
use fourwheel::model::{FileKind, HashKind, Meta};
use fourwheel::remote::Condition;
use sha2::{Digest, Sha256};

pub async fn what_is_absent_is_none_and_no_error(world: World) {
    assert_eq!(world.stat("nothing").await, None);
    assert_eq!(world.stat("no/such/directory").await, None);
    world.put("file", b"x").await;
    assert_eq!(world.stat("file/below").await, None);
    assert_eq!(world.stat("").await.map(|root| root.kind), Some(FileKind::Directory));
}

pub async fn what_was_put_is_read_back(world: World) {
    for size in [0, 1, 100, 4096, 65_536, 65_537, (1 << 20) + 1] {
        let (name, content) = (format!("f{size}"), pattern(size, size as u64));
        let entry = world.put(&name, &content).await;
        let seen = world.stat(&name).await.unwrap();
        assert_eq!((seen.kind, seen.size, &seen.version), (FileKind::File, size as u64, &entry.version));
        assert!(world.content(&name).await == content, "{size} bytes came back otherwise");
        let listed = world.list("").await.unwrap();
        let listed = &listed[&at(&name).path];
        assert_eq!((listed.size, &listed.version), (size as u64, &entry.version));
    }
    world.put("f100", b"").await;
    assert_eq!(world.content("f100").await, b""[..]);
}

pub async fn a_range_gives_exactly_its_bytes(world: World) {
    let content = pattern(200_000, 1);
    let version = world.put("file", &content).await.version.unwrap();
    let size = content.len() as u64;
    for range in [0..1, 0..size, size - 1..size, 65_535..65_537, 100..150_000, 0..0, 77..77, size..size] {
        let read = world.read("file", &version, range.clone()).await.unwrap();
        assert!(read == content[range.start as usize..range.end as usize], "{range:?} came back otherwise");
    }
}

pub async fn each_content_has_its_own_version(world: World) {
    let mut seen = Vec::new();
    for n in 0..5u8 {
        let version = world.put("file", &[n; 10]).await.version.unwrap();
        assert!(!version.as_str().is_empty() && !seen.contains(&version), "{version} again");
        assert_eq!(world.version("file").await, version);
        seen.push(version);
    }
}

pub async fn an_old_version_gives_old_bytes_or_changed(world: World) {
    let (old, new) = (pattern(100_000, 1), pattern(100_000, 2));
    let version = world.put("file", &old).await.version.unwrap();
    world.put("file", &new).await;
    for range in [0..100_000, 99_999..100_000] {
        match world.read("file", &version, range.clone()).await {
            Ok(bytes) => assert!(bytes == old[range.start as usize..range.end as usize]),
            Err(error) => assert!(matches!(error.kind, Kind::Changed | Kind::NotFound), "{error}"),
        }
    }
}

pub async fn a_failing_source_leaves_the_old_content_whole(world: World) {
    let old = world.put("file", b"old content").await;
    for good in [0, 70_000, 299_999] {
        let failing = || world.write_body("file", failing_body(300_000, good), Meta::default(), Condition::Any);
        expect_kind(failing().await, &[Kind::Changed]);
        assert_eq!(world.content("file").await, b"old content"[..]);
        assert_eq!(world.version("file").await, *old.version.as_ref().unwrap());
        let fresh = world.write_body("new", failing_body(300_000, good), Meta::default(), Condition::Absent).await;
        expect_kind(fresh, &[Kind::Changed]);
        assert_eq!(world.names("").await, ["file"], "a fragment was left");
    }
}

pub async fn a_stated_hash_is_that_of_the_content(world: World) {
    let content = pattern(70_000, 3);
    let entry = world.put("file", &content).await;
    let seen = world.stat("file").await.unwrap();
    match seen.hash {
        None => world.skip("no hash is stated"),
        Some(hash) if hash.kind == HashKind::Sha256 => {
            let want: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash.hex, want);
            assert!(entry.hash.is_none_or(|hash| hash.hex == want));
        }
        Some(hash) => {
            let digits = if hash.kind == HashKind::Md5 { 32 } else { 40 };
            assert!(hash.hex.len() == digits && hash.hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        }
    }
}

pub async fn what_cannot_be_read_is_an_error(world: World) {
    let version = world.put("file", b"abc").await.version.unwrap();
    world.remote.remove(&at("file"), false, &Condition::Any).await.unwrap();
    expect_kind(world.read("file", &version, 0..3).await, &[Kind::NotFound, Kind::Changed]);
    expect_kind(world.read("never", &version, 0..3).await, &[Kind::NotFound, Kind::Changed]);
    if world.able().directories {
        world.mkdir("directory").await;
        assert!(world.read("directory", &version, 0..3).await.is_err());
    }
}

pub async fn a_write_to_the_wrong_place_is_refused(world: World) {
    if !world.able().directories {
        return world.skip("directories do not exist by themselves");
    }
    if world.able().flat_keys {
        world.put("no/file", b"x").await;
        assert_eq!(world.stat("no").await.map(|entry| entry.kind), Some(FileKind::Directory), "it springs into being");
        return;
    }
    expect_kind(world.write("no/file", b"x", Condition::Any).await, &[Kind::NotFound]);
    assert_eq!(world.stat("no").await, None);
    world.mkdir("directory").await;
    world.put("directory/inside", b"kept").await;
    expect_kind(world.write("directory", b"x", Condition::Any).await, &[Kind::IsDirectory]);
    assert_eq!(world.content("directory/inside").await, b"kept"[..]);
    world.put("file", b"kept").await;
    let below = world.write("file/below", b"x", Condition::Any).await;
    expect_kind(below, &[Kind::NotDirectory, Kind::NotFound]);
    assert_eq!(world.content("file").await, b"kept"[..]);
}

pub async fn writers_at_once_leave_one_whole_content(world: World) {
    let contents: Vec<Vec<u8>> = (0..6).map(|n| pattern(150_000, n)).collect();
    let writes = contents.iter().map(|content| world.write("file", content, Condition::Any));
    for result in futures_util::future::join_all(writes).await {
        if let Err(error) = result {
            // A server may refuse two writes at once; that must pass by itself.
            assert!(matches!(error.kind, Kind::Unavailable | Kind::Throttled | Kind::Precondition), "{error}");
        }
    }
    let found = world.content("file").await;
    assert!(contents.iter().any(|content| found == *content), "a mix of {} bytes", found.len());
}
