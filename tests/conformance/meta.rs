//! Attributes: kept where the remote says so, in the steps that it says.

use super::World;
use super::world::at;
use fourwheel::error::Kind;
use fourwheel::model::{Entry, Meta};
use fourwheel::remote::{Condition, body};
use std::collections::BTreeMap;

/// Attributes that this account can keep.
fn wanted(world: &World, mtime_ns: i64) -> Meta {
    let support = world.able().meta;
    let xattrs = [("user.a", &b"1"[..]), ("user.binary", b"\0\xff\n"), ("user.empty", b"")];
    Meta {
        mtime_ns: (support.mtime_step_ns > 0).then_some(mtime_ns),
        mode: support.mode.then_some(0o751),
        xattrs: (support.xattr_bytes_max >= 64)
            .then(|| xattrs.map(|(name, value)| (name.to_owned(), value.to_vec())).into()),
    }
}

#[track_caller]
fn check(world: &World, entry: Option<Entry>, want: &Meta) {
    let (meta, step) = (entry.unwrap().meta.expect("stat tells attributes"), world.able().meta.mtime_step_ns);
    if let Some(want) = want.mtime_ns {
        let off = meta.mtime_ns.expect("a time") - want;
        assert!(off.abs() < step.max(1), "the time is off by {off} ns");
    }
    assert_eq!(meta.mode.filter(|_| want.mode.is_some()), want.mode);
    if let Some(want) = &want.xattrs {
        let found: BTreeMap<_, _> = meta.xattrs.unwrap().into_iter().filter(|(k, _)| k.starts_with("user.")).collect();
        assert_eq!(found, *want);
    }
}

pub async fn attributes_come_back(world: World) {
    if !world.able().meta.with_upload {
        return world.skip("attributes do not come with content");
    }
    for (n, mtime_ns) in [1_700_000_000_123_456_789, 1_000_000_000, 4_102_444_800_999_999_999].into_iter().enumerate() {
        let (name, want) = (format!("f{n}"), wanted(&world, mtime_ns));
        let entry = world.write_body(&name, body(&b"x"[..]), want.clone(), Condition::Absent).await.unwrap();
        check(&world, world.stat(&name).await, &want);
        let listed = world.list("").await.unwrap().remove(&at(&name).path).unwrap();
        assert_eq!(listed.version, entry.version);
        if world.able().meta.in_listing {
            check(&world, Some(listed), &want);
        }
        let again = wanted(&world, mtime_ns + 5_000_000_000);
        let entry = world.write_body(&name, body(&b"y"[..]), again.clone(), Condition::Any).await.unwrap();
        assert_eq!(world.version(&name).await, entry.version.unwrap());
        check(&world, world.stat(&name).await, &again);
    }
}

pub async fn attributes_change_alone(world: World) {
    let version = world.put("file", b"content").await.version;
    let want = wanted(&world, 1_600_000_000_987_654_321);
    let result = world.remote.set_meta(&at("file"), false, version.as_ref(), &want).await;
    if !world.able().meta.alone {
        assert_eq!(result.unwrap_err().kind, Kind::Unsupported);
        return world.skip("attributes cannot be set alone");
    }
    let entry = result.unwrap();
    assert_eq!(world.version("file").await, entry.version.unwrap(), "the version told is the one there");
    check(&world, world.stat("file").await, &want);
    assert_eq!(world.content("file").await, b"content"[..]);
    // What is not given stays.
    let mtime = Meta { mtime_ns: want.mtime_ns.map(|ns| ns + 3_000_000_000), ..Meta::default() };
    world.remote.set_meta(&at("file"), false, None, &mtime).await.unwrap();
    check(&world, world.stat("file").await, &Meta { mtime_ns: mtime.mtime_ns, ..want.clone() });
    if want.xattrs.is_some() {
        let none = Meta { xattrs: Some(BTreeMap::new()), ..Meta::default() };
        world.remote.set_meta(&at("file"), false, None, &none).await.unwrap();
        check(&world, world.stat("file").await, &none);
    }
    let missing = world.remote.set_meta(&at("none"), false, None, &want).await;
    assert_eq!(missing.unwrap_err().kind, Kind::NotFound);
}

pub async fn directories_keep_attributes(world: World) {
    if !world.able().meta.directories || !world.able().directories {
        return world.skip("directories keep no attributes");
    }
    let want = wanted(&world, 1_500_000_000_000_000_000);
    world.remote.mkdir(&at("d"), &want).await.unwrap();
    check(&world, world.stat("d").await, &want);
    let want = wanted(&world, 1_400_000_000_000_000_000);
    if world.able().meta.alone {
        world.remote.set_meta(&at("d"), true, None, &want).await.unwrap();
        check(&world, world.stat("d").await, &want);
    }
}
