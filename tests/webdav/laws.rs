//! What must hold on every server, whatever it obeys by itself.

use crate::bench::*;
use crate::servers::{Server, apache, nginx, rclone, wsgidav};
use fourwheel::error::Kind;
use fourwheel::model::{FileKind, Meta};
use fourwheel::remote::webdav::{Flavor, WebDav};
use fourwheel::remote::{Condition, PutRequest, Remote};
use std::collections::BTreeMap;

/// Runs every law over one server.
async fn laws(server: Option<Server>) {
    let Some(server) = server else { return };
    let dav = connect(&server).await;
    eprintln!("{} {:?}\n{}", dav.describe(), dav.flavor(), dav.probe_text());
    files_come_back(&dav).await;
    conditions_are_kept(&dav).await;
    directories_are_guarded(&dav).await;
    moves_keep_what_is_there(&dav).await;
    names_come_back(&dav).await;
    attributes_come_back(&dav).await;
    copies_are_exact(&dav).await;
    assert!(on_disk(&server.files).iter().all(|name| !name.starts_with(".~fw-")), "{:?}", on_disk(&server.files));
}

async fn files_come_back(dav: &WebDav) {
    assert_eq!(dav.stat(&at("f")).await.unwrap(), None);
    let bytes = pattern(1, 700_000);
    let entry = put(dav, "f", bytes.clone(), Condition::Absent).await.unwrap();
    assert_eq!((entry.kind, entry.size), (FileKind::File, 700_000));
    let seen = dav.stat(&at("f")).await.unwrap().unwrap();
    assert_eq!(seen.version, entry.version, "a young tag and an old one are one version");
    let v1 = version(&entry);
    assert_eq!(read(dav, "f", &v1, 0..700_000).await.unwrap(), bytes);
    assert_eq!(read(dav, "f", &v1, 300_001..300_003).await.unwrap(), &bytes[300_001..300_003]);
    assert_eq!(read(dav, "f", &v1, 699_999..700_000).await.unwrap(), &bytes[699_999..]);
    assert_eq!(read(dav, "f", &v1, 5..5).await.unwrap(), b"");
    // The same size within the same second: still another version.
    let other = put(dav, "f", pattern(2, 700_000), Condition::Is(v1.clone())).await.unwrap();
    assert_ne!(version(&other), v1);
    assert_eq!(kind(read(dav, "f", &v1, 0..10).await), Kind::Changed);
    assert_eq!(kind(read(dav, "f", &v1, 10..20).await), Kind::Changed);
    assert_eq!(read(dav, "f", &version(&other), 10..20).await.unwrap(), &pattern(2, 700_000)[10..20]);
    assert_eq!(kind(read(dav, "none", &v1, 0..10).await), Kind::NotFound);
    let empty = put(dav, "empty", "", Condition::Absent).await.unwrap();
    assert_eq!((empty.size, read(dav, "empty", &version(&empty), 0..0).await.unwrap()), (0, vec![]));
    dav.remove(&at("empty"), false, &Condition::Any).await.unwrap();
    dav.remove(&at("f"), false, &Condition::Is(version(&other))).await.unwrap();
    assert_eq!(dav.stat(&at("f")).await.unwrap(), None);
    assert_eq!(kind(dav.remove(&at("f"), false, &Condition::Any).await), Kind::NotFound);
}

async fn conditions_are_kept(dav: &WebDav) {
    let first = put(dav, "c", "first", Condition::Absent).await.unwrap();
    assert_eq!(kind(put(dav, "c", "intruder", Condition::Absent).await), Kind::Precondition);
    let second = put(dav, "c", "the second", Condition::Is(version(&first))).await.unwrap();
    assert_eq!(kind(put(dav, "c", "intruder!", Condition::Is(version(&first))).await), Kind::Precondition);
    assert_eq!(kind(dav.remove(&at("c"), false, &Condition::Is(version(&first))).await), Kind::Precondition);
    assert_eq!(kind(put(dav, "never", "x", Condition::Is(version(&first))).await), Kind::Precondition);
    assert_eq!(read(dav, "c", &version(&second), 0..10).await.unwrap(), b"the second");
    put(dav, "c", "any", Condition::Any).await.unwrap();
    assert_eq!(names(dav, "").await, ["c"]);
    dav.remove(&at("c"), false, &Condition::Any).await.unwrap();
}

async fn directories_are_guarded(dav: &WebDav) {
    let made = dav.mkdir(&at("d"), &Meta::default()).await.unwrap();
    assert_eq!(made.kind, FileKind::Directory);
    assert_eq!(kind(dav.mkdir(&at("d"), &Meta::default()).await), Kind::Exists);
    assert_eq!(kind(dav.mkdir(&at("none/d"), &Meta::default()).await), Kind::NotFound);
    assert_eq!(kind(put(dav, "none/f", "x", Condition::Any).await), Kind::NotFound);
    assert_eq!(kind(put(dav, "d", "x", Condition::Any).await), Kind::IsDirectory);
    assert!(dav.stat(&at("none")).await.unwrap().is_none(), "no parent is made");
    put(dav, "d/f", "x", Condition::Absent).await.unwrap();
    assert_eq!(kind(dav.mkdir(&at("d/f"), &Meta::default()).await), Kind::Exists);
    assert_eq!(kind(dav.remove(&at("d"), true, &Condition::Any).await), Kind::NotEmpty);
    assert_eq!(kind(dav.remove(&at("d"), false, &Condition::Any).await), Kind::IsDirectory);
    assert_eq!(kind(dav.remove(&at("d/f"), true, &Condition::Any).await), Kind::NotDirectory);
    assert_eq!(kind(dav.list(&at("d/f"), None).await), Kind::NotDirectory);
    assert_eq!(kind(dav.list(&at("none"), None).await), Kind::NotFound);
    assert_eq!(names(dav, "d").await, ["f"]);
    dav.remove(&at("d/f"), false, &Condition::Any).await.unwrap();
    dav.remove(&at("d"), true, &Condition::Any).await.unwrap();
    assert_eq!(kind(dav.remove(&at("d"), true, &Condition::Any).await), Kind::NotFound);
}

async fn moves_keep_what_is_there(dav: &WebDav) {
    let a = put(dav, "a", "aaa", Condition::Absent).await.unwrap();
    let b = put(dav, "b", "bbbb", Condition::Absent).await.unwrap();
    assert_eq!(kind(dav.rename(&at("a"), &at("b"), None, &Condition::Absent).await), Kind::Precondition);
    assert_eq!(kind(dav.rename(&at("a"), &at("b"), None, &Condition::Is(version(&a))).await), Kind::Precondition);
    assert_eq!(kind(dav.rename(&at("a"), &at("b"), Some(&version(&b)), &Condition::Any).await), Kind::Precondition);
    assert_eq!(kind(dav.rename(&at("none"), &at("x"), None, &Condition::Absent).await), Kind::NotFound);
    assert_eq!(kind(dav.rename(&at("a"), &at("none/x"), None, &Condition::Absent).await), Kind::NotFound);
    assert_eq!(names(dav, "").await, ["a", "b"]);
    let over = dav.rename(&at("a"), &at("b"), Some(&version(&a)), &Condition::Is(version(&b))).await.unwrap();
    assert_eq!(over.size, 3);
    assert_eq!(read(dav, "b", &version(&over), 0..3).await.unwrap(), b"aaa");
    assert_eq!(names(dav, "").await, ["b"]);
    dav.mkdir(&at("d"), &Meta::default()).await.unwrap();
    dav.mkdir(&at("e"), &Meta::default()).await.unwrap();
    dav.rename(&at("b"), &at("d/b"), None, &Condition::Absent).await.unwrap();
    assert_eq!(kind(dav.rename(&at("e"), &at("d"), None, &Condition::Absent).await), Kind::Precondition);
    assert_eq!(kind(dav.rename(&at("d"), &at("d/x"), None, &Condition::Absent).await), Kind::Invalid);
    assert_eq!(dav.rename(&at("d"), &at("e/d 2"), None, &Condition::Absent).await.unwrap().kind, FileKind::Directory);
    assert_eq!(names(dav, "e/d 2").await, ["b"]);
    dav.remove(&at("e/d 2/b"), false, &Condition::Any).await.unwrap();
    dav.remove(&at("e/d 2"), true, &Condition::Any).await.unwrap();
    dav.remove(&at("e"), true, &Condition::Any).await.unwrap();
}

async fn names_come_back(dav: &WebDav) {
    let all = [
        "a b&c;d'e\"f",
        "100%25 #?",
        "ä한글🦀",
        "<x>&amp;",
        "-.~_",
        "q=1+2",
        "[b]{c}|^`",
        " lead",
        "..dots",
        "semi;colon:,@!$*()",
    ];
    let forbidden = dav.capabilities().names.forbidden;
    let mut all: Vec<&str> = all.into_iter().filter(|name| !name.contains(|c| forbidden.contains(c))).collect();
    if dav.capabilities().names.no_leading_dot {
        assert_eq!(dav.flavor(), Flavor::Nginx);
        assert_eq!(kind(put(dav, ".dot", "x", Condition::Absent).await), Kind::NameRefused, "nginx would not list it");
        all.retain(|name| !name.starts_with('.'));
    }
    all.sort_unstable();
    for name in &all {
        let name = *name;
        put(dav, name, name.as_bytes(), Condition::Absent).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert_eq!(names(dav, "").await, all);
    for name in all {
        let entry = dav.stat(&at(name)).await.unwrap().unwrap();
        assert_eq!(read(dav, name, &version(&entry), 0..entry.size).await.unwrap(), name.as_bytes());
        let moved = format!("{name}~");
        dav.rename(&at(name), &at(&moved), None, &Condition::Absent).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        dav.remove(&at(&moved), false, &Condition::Any).await.unwrap();
    }
    let long = "x".repeat(255);
    put(dav, &long, "x", Condition::Absent).await.unwrap();
    dav.remove(&at(&long), false, &Condition::Any).await.unwrap();
    assert_eq!(kind(put(dav, &"x".repeat(256), "x", Condition::Absent).await), Kind::NameTooLong);
    assert_eq!(kind(put(dav, "d/../x", "x", Condition::Absent).await), Kind::NameRefused);
    assert_eq!(kind(put(dav, ".~fw-0123456789abcdef", "x", Condition::Absent).await), Kind::NameRefused);
}

async fn attributes_come_back(dav: &WebDav) {
    let able = dav.capabilities().meta;
    let xattrs = BTreeMap::from([("user.a".to_owned(), vec![0, 1, 255]), ("user.\u{e4}".to_owned(), b"<&>".to_vec())]);
    let wanted = Meta {
        mtime_ns: Some(1_234_567_890_123_456_789),
        mode: Some(0o751),
        xattrs: Some(xattrs).filter(|_| able.mode),
    };
    let request = PutRequest { body: body("meta"), meta: wanted.clone(), condition: Condition::Absent };
    let entry = dav.put(&at("m"), request).await.unwrap();
    let check = |meta: Option<&Meta>, wanted: &Meta, at: &str| {
        let meta = meta.unwrap();
        if able.mtime_step_ns > 0 {
            let step = able.mtime_step_ns;
            assert_eq!(meta.mtime_ns.unwrap() / step, wanted.mtime_ns.unwrap() / step, "{at}");
        }
        if able.mode {
            assert_eq!((meta.mode, &meta.xattrs), (wanted.mode, &wanted.xattrs), "{at}");
        }
    };
    let list = async || dav.list(&at(""), None).await.unwrap().entries.into_iter().next().unwrap().1;
    if able.with_upload {
        check(entry.meta.as_ref(), &wanted, "put");
        check(dav.stat(&at("m")).await.unwrap().unwrap().meta.as_ref(), &wanted, "stat");
        check(list().await.meta.as_ref(), &wanted, "list");
        let moved = dav.rename(&at("m"), &at("m2"), None, &Condition::Absent).await.unwrap();
        check(moved.meta.as_ref(), &wanted, "rename");
        check(list().await.meta.as_ref(), &wanted, "after rename");
        dav.rename(&at("m2"), &at("m"), None, &Condition::Absent).await.unwrap();
    }
    let changed =
        Meta { mtime_ns: Some(-5_000_000_000), mode: Some(0o600), xattrs: Some(BTreeMap::new()).filter(|_| able.mode) };
    if able.alone {
        let changed = if able.mode { changed } else { Meta { mtime_ns: Some(1_000_000_000), ..changed } };
        let entry = dav.set_meta(&at("m"), false, None, &changed).await.unwrap();
        check(entry.meta.as_ref(), &changed, "set_meta");
        let listed = list().await;
        check(listed.meta.as_ref(), &changed, "after set_meta");
        assert_eq!(listed.version, entry.version);
        assert_eq!(read(dav, "m", &version(&entry), 0..4).await.unwrap(), b"meta");
        let wrong = fourwheel::model::Version::new("wrong");
        assert_eq!(kind(dav.set_meta(&at("m"), false, Some(&wrong), &wanted).await), Kind::Precondition);
    } else {
        assert_eq!(kind(dav.set_meta(&at("m"), false, None, &changed).await), Kind::Unsupported);
    }
    if able.directories {
        let wanted = Meta { mode: Some(0o700), ..wanted };
        dav.mkdir(&at("md"), &wanted).await.unwrap();
        check(dav.stat(&at("md")).await.unwrap().unwrap().meta.as_ref(), &wanted, "mkdir");
        dav.remove(&at("md"), true, &Condition::Any).await.unwrap();
    }
    dav.remove(&at("m"), false, &Condition::Any).await.unwrap();
}

async fn copies_are_exact(dav: &WebDav) {
    if !dav.capabilities().copy {
        return;
    }
    let a = put(dav, "a", "copy me", Condition::Absent).await.unwrap();
    let b = dav.copy(&at("a"), &version(&a), &at("b"), &Condition::Absent).await.unwrap();
    assert_eq!(read(dav, "b", &version(&b), 0..7).await.unwrap(), b"copy me");
    assert_eq!(kind(dav.copy(&at("a"), &version(&a), &at("b"), &Condition::Absent).await), Kind::Precondition);
    let wrong = fourwheel::model::Version::new("wrong");
    assert_eq!(kind(dav.copy(&at("a"), &wrong, &at("c"), &Condition::Absent).await), Kind::Changed);
    dav.remove(&at("a"), false, &Condition::Any).await.unwrap();
    dav.remove(&at("b"), false, &Condition::Any).await.unwrap();
}

#[tokio::test]
async fn apache_with_basic_obeys_the_laws() {
    laws(apache::start(apache::Login::Basic)).await;
}

#[tokio::test]
async fn apache_with_digest_obeys_the_laws() {
    laws(apache::start(apache::Login::Digest)).await;
}

#[tokio::test]
async fn nginx_obeys_the_laws() {
    laws(nginx::start()).await;
}

#[tokio::test]
async fn rclone_obeys_the_laws() {
    laws(rclone::start()).await;
}

#[tokio::test]
async fn wsgidav_obeys_the_laws() {
    laws(wsgidav::start()).await;
}
