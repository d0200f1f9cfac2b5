//! Files, directories and odd keys.

use crate::helpers::{at, content, list, names, over, pattern, put, put_with, read, sweep};
use crate::servers::{ALL, Kind};
use fourwheel::error::Kind as ErrorKind;
use fourwheel::model::{FileKind, Meta};
use fourwheel::remote::{Condition, Remote};
use std::collections::BTreeMap;

#[test]
fn files_come_back_as_they_were_stored() {
    over(&ALL, |_, remote| async move {
        for (name, size) in [("empty", 0), ("small", 5), ("middle", 300_000), ("large", 3_000_000)] {
            let bytes = pattern(size, size as u64);
            let stored = put(&*remote, name, &bytes, Condition::Absent).await.unwrap();
            let found = remote.stat(&at(name)).await.unwrap().unwrap();
            assert_eq!((found.size, &found.version), (size as u64, &stored.version), "{name}");
            assert_eq!(content(&*remote, name).await, bytes, "{name}");
            let (from, upto) = (size / 3, size - size / 4);
            let part = read(&*remote, name, &stored.version.unwrap(), from as u64..upto as u64).await.unwrap();
            assert_eq!(part, bytes[from..upto], "{name}");
        }
        assert_eq!(remote.stat(&at("absent")).await.unwrap(), None);
        let version = remote.stat(&at("small")).await.unwrap().unwrap().version.unwrap();
        let read = remote.read(&at("absent"), &version, 0..1).await;
        assert_eq!(read.err().unwrap().kind, ErrorKind::NotFound);
    });
}

#[test]
fn directories_are_made_listed_and_removed() {
    // s3s-fs answers 500 to a HEAD of a directory's name; rclone gives the marker `d/` back as `d`.
    over(&[Kind::Moto], |_, remote| async move {
        let meta = Meta { mtime_ns: Some(1_500_000_000_123_456_789), mode: Some(0o750), xattrs: Some(BTreeMap::new()) };
        remote.mkdir(&at("d"), &meta).await.unwrap();
        assert_eq!(remote.mkdir(&at("d"), &meta).await.unwrap_err().kind, ErrorKind::Exists);
        assert_eq!(names(&list(&*remote, "").await.unwrap()), ["d/"]);
        let found = remote.stat(&at("d")).await.unwrap().unwrap();
        assert_eq!((found.kind, found.meta.as_ref()), (FileKind::Directory, Some(&meta)));
        put(&*remote, "d/f", b"x", Condition::Absent).await.unwrap();
        assert_eq!(names(&list(&*remote, "d").await.unwrap()), ["d/f"]);
        let full = remote.remove(&at("d"), true, &Condition::Any).await;
        assert_eq!(full.unwrap_err().kind, ErrorKind::NotEmpty);
        assert_eq!(remote.remove(&at("d"), false, &Condition::Any).await.unwrap_err().kind, ErrorKind::IsDirectory);
        assert_eq!(list(&*remote, "d/f").await.unwrap_err().kind, ErrorKind::NotDirectory);
        assert_eq!(list(&*remote, "absent").await.unwrap_err().kind, ErrorKind::NotFound);
        remote.remove(&at("d/f"), false, &Condition::Any).await.unwrap();
        remote.remove(&at("d"), true, &Condition::Any).await.unwrap();
        assert_eq!(remote.remove(&at("d"), true, &Condition::Any).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(remote.stat(&at("d")).await.unwrap(), None);
    });
}

#[test]
fn a_large_listing_comes_whole() {
    over(&[Kind::Moto], |_, remote| async move {
        let names: Vec<String> = (0..1_500).map(|n| format!("dir {}/file {n:04}", n % 3)).collect();
        let puts = names.iter().map(|name| put(&*remote, name, b"", Condition::Any));
        use futures_util::StreamExt;
        let done: Vec<_> = futures_util::stream::iter(puts).buffer_unordered(8).collect().await;
        assert!(done.iter().all(Result::is_ok));
        let before = remote.requests();
        let all = sweep(&*remote).await;
        assert_eq!(remote.requests() - before, 2);
        assert_eq!(all.len(), 1_503);
        assert!(names.iter().all(|name| all.contains_key(name)));
        assert_eq!(list(&*remote, "").await.unwrap().len(), 3);
        for n in 0..600 {
            put(&*remote, &format!("dir 0/more {n}"), b"", Condition::Any).await.unwrap();
        }
        assert_eq!(list(&*remote, "dir 0").await.unwrap().len(), 1_100);
    });
}

/// Names that have broken S3 clients.
const ODD: [&str; 22] = [
    "a b",
    "a+b",
    "a%b",
    "a%2Fb",
    "a%41",
    "a?b",
    "a#b",
    "a&b=c",
    "quote\"'",
    "back\\slash",
    "ünïcödé",
    "日本語",
    "e\u{301}",
    "emoji 🎉",
    " leading",
    "trailing ",
    "<tag>",
    "semi;colon,comma",
    "{brace}[bracket]",
    "~tilde*star",
    "pipe|^`",
    "a:b@c$d!",
];

#[test]
fn odd_names_survive() {
    over(&[Kind::Moto, Kind::S3sFs], |_, remote| async move {
        for name in ODD {
            let path = format!("odd {name}/{name}");
            put(&*remote, &path, name.as_bytes(), Condition::Absent).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let all = sweep(&*remote).await;
        for name in ODD {
            let path = format!("odd {name}/{name}");
            assert!(all.contains_key(&path), "{path} is not in {:?}", names(&all));
            assert_eq!(names(&list(&*remote, &format!("odd {name}")).await.unwrap()), [path.as_str()]);
            assert_eq!(content(&*remote, &path).await, name.as_bytes());
            let moved = format!("moved {name}");
            remote
                .rename(&at(&path), &at(&moved), None, &Condition::Absent)
                .await
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(content(&*remote, &moved).await, name.as_bytes());
            remote.remove(&at(&moved), false, &Condition::Any).await.unwrap();
        }
        assert_eq!(sweep(&*remote).await.len(), 0);
    });
}

#[test]
fn attributes_travel_with_content_and_change_alone() {
    over(&[Kind::Moto, Kind::S3sFs], |_, remote| async move {
        let xattrs = BTreeMap::from([("user.a".to_owned(), vec![1, 2, 255]), ("user.é".to_owned(), vec![])]);
        let meta = Meta { mtime_ns: Some(-1_500_000_001), mode: Some(0o4711), xattrs: Some(xattrs.clone()) };
        let entry = put_with(&*remote, "f", b"content", meta.clone(), Condition::Absent).await.unwrap();
        assert_eq!(remote.stat(&at("f")).await.unwrap().unwrap().meta, Some(meta));
        let change = Meta { mtime_ns: Some(7), mode: None, xattrs: None };
        let set = remote.set_meta(&at("f"), false, entry.version.as_ref(), &change).await.unwrap();
        let expected = Meta { mtime_ns: Some(7), mode: Some(0o4711), xattrs: Some(xattrs) };
        assert_eq!(set.meta.as_ref(), Some(&expected));
        let found = remote.stat(&at("f")).await.unwrap().unwrap();
        assert_eq!((found.meta, found.version), (Some(expected), set.version));
        assert_eq!(content(&*remote, "f").await, b"content");
        let renamed = remote.rename(&at("f"), &at("g"), None, &Condition::Absent).await.unwrap();
        assert_eq!(remote.stat(&at("g")).await.unwrap().unwrap().meta, renamed.meta);
    });
}

#[test]
fn what_one_name_cannot_show_twice_gets_another() {
    over(&[Kind::Moto], |_, remote| async move {
        put(&*remote, "a/b", b"below", Condition::Absent).await.unwrap();
        put(&*remote, "a", b"object", Condition::Absent).await.unwrap();
        assert_eq!(names(&sweep(&*remote).await), ["a (object)", "a/", "a/b"]);
        assert_eq!(names(&list(&*remote, "").await.unwrap()), ["a (object)", "a/"]);
        assert_eq!(remote.stat(&at("a")).await.unwrap().unwrap().kind, FileKind::Directory);
        assert_eq!(content(&*remote, "a (object)").await, b"object");
        let version = remote.stat(&at("a (object)")).await.unwrap().unwrap().version.unwrap();
        let changed = put(&*remote, "a (object)", b"changed", Condition::Is(version)).await.unwrap().version.unwrap();
        remote.remove(&at("a (object)"), false, &Condition::Is(changed)).await.unwrap();
        assert_eq!(names(&sweep(&*remote).await), ["a/", "a/b"]);
        put(&*remote, "x (object)", b"literally", Condition::Absent).await.unwrap();
        assert_eq!(content(&*remote, "x (object)").await, b"literally");
    });
}
