//! Symbolic links, where the remote keeps them as such.

use super::World;
use super::world::{at, expect_kind};
use fourwheel::error::Kind;
use fourwheel::model::{FileKind, Meta};
use fourwheel::remote::Condition;

pub async fn links_keep_their_target(world: World) {
    let link = async |name: &str, target: &[u8]| world.remote.put_link(&at(name), target, Meta::default()).await;
    if !world.able().symlinks {
        expect_kind(link("l", b"x").await, &[Kind::Unsupported]);
        return world.skip("no symbolic links");
    }
    world.put("file", b"content").await;
    let targets: [&[u8]; 5] = [b"file", b"../outside", b"/etc/passwd", b"no such \xff file", &[b'x'; 1000]];
    for (n, target) in targets.into_iter().enumerate() {
        let name = format!("link{n}");
        assert_eq!(link(&name, target).await.unwrap().kind, FileKind::Symlink);
        assert_eq!(world.stat(&name).await.unwrap().kind, FileKind::Symlink);
        assert_eq!(world.remote.read_link(&at(&name)).await.unwrap(), target);
    }
    expect_kind(link("link0", b"other").await, &[Kind::Exists]);
    expect_kind(link("file", b"other").await, &[Kind::Exists]);
    assert_eq!(world.content("file").await, b"content"[..]);
    assert!(world.remote.read_link(&at("file")).await.is_err());
    world.rename("link1", "moved", Condition::Absent).await.unwrap();
    assert_eq!(world.remote.read_link(&at("moved")).await.unwrap(), targets[1]);
    world.remote.remove(&at("link0"), false, &Condition::Any).await.unwrap();
    assert_eq!(world.content("file").await, b"content"[..], "the target stays");
    assert_eq!(world.stat("link0").await, None);
}
