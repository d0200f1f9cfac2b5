//! What is found out about each server, and starting by what was found out.

use crate::helpers::{at, over, put, read};
use crate::servers::{ALL, Kind, Server, open};
use fourwheel::error::Kind as ErrorKind;
use fourwheel::remote::s3::{S3Options, from_saved};
use fourwheel::remote::{Condition, Remote};
use fourwheel::sys::{RealChance, RealClock};
use std::sync::Arc;

#[test]
fn each_server_is_known_for_what_it_is() {
    over(&ALL, |server, remote| async move {
        eprintln!("{:?}: {} requests, {}", server.kind, remote.requests(), remote.probe_text());
        let can = remote.capabilities();
        match server.kind {
            Kind::Moto => {
                // It obeys If-Match of a put, but not of the end of an upload.
                assert!(can.conditional_create && !can.conditional_replace && can.conditional_remove);
                assert!(can.sessions.as_ref().unwrap().part_copy && can.directories);
            }
            Kind::S3sFs => {
                assert!(can.conditional_create && can.conditional_replace && !can.conditional_remove);
                assert!(!can.directories, "its listings leave out markers");
            }
            Kind::Rclone => assert!(!can.conditional_create && !can.conditional_replace && !can.conditional_remove),
        }
        let left = remote.sweep(None).await.unwrap().entries;
        assert!(left.is_empty(), "the probe left {left:?}");
    });
}

#[test]
fn conditions_hold_also_where_the_server_ignores_them() {
    over(&ALL, |_, remote| async move {
        let first = put(&*remote, "a", b"1", Condition::Absent).await.unwrap().version.unwrap();
        let refused = |result: fourwheel::error::Result<_>| {
            assert_eq!(result.map(|_: fourwheel::model::Entry| ()).unwrap_err().kind, ErrorKind::Precondition);
        };
        refused(put(&*remote, "a", b"2", Condition::Absent).await);
        refused(put(&*remote, "b", b"2", Condition::Is(first.clone())).await);
        let second = put(&*remote, "a", b"2", Condition::Is(first.clone())).await.unwrap().version.unwrap();
        refused(put(&*remote, "a", b"3", Condition::Is(first.clone())).await);
        let removed = remote.remove(&at("a"), false, &Condition::Is(first)).await;
        assert_eq!(removed.unwrap_err().kind, ErrorKind::Precondition);
        assert_eq!(read(&*remote, "a", &second, 0..1).await.unwrap(), b"2");
        remote.remove(&at("a"), false, &Condition::Is(second.clone())).await.unwrap();
        let again = remote.remove(&at("a"), false, &Condition::Is(second)).await;
        assert_eq!(again.unwrap_err().kind, ErrorKind::NotFound);
    });
}

#[test]
fn small_things_cost_one_request_where_the_server_obeys() {
    over(&[Kind::Moto], |_, remote| async move {
        let mut before = remote.requests();
        let mut cost = || {
            let now = remote.requests();
            let cost = now - before;
            before = now;
            cost
        };
        let entry = put(&*remote, "a/b/c", b"hello", Condition::Absent).await.unwrap();
        assert_eq!(cost(), 1, "put");
        let version = entry.version.unwrap();
        assert_eq!(read(&*remote, "a/b/c", &version, 1..3).await.unwrap(), b"el");
        assert_eq!(cost(), 1, "read");
        let version = put(&*remote, "a/b/c", b"hello!", Condition::Is(version)).await.unwrap().version.unwrap();
        assert_eq!(cost(), 1, "replace");
        remote.stat(&at("a/b/c")).await.unwrap().unwrap();
        assert_eq!(cost(), 1, "stat");
        remote.list(&at("a/b"), None).await.unwrap();
        assert_eq!(cost(), 1, "list");
        remote.rename(&at("a/b/c"), &at("a/b/d"), Some(&version), &Condition::Absent).await.unwrap();
        // HEAD, copy, DELETE; a look for a directory at the target; and one for a file, since moto's copies take no conditions.
        assert_eq!(cost(), 5, "rename");
        remote.remove(&at("a/b/d"), false, &Condition::Is(version)).await.unwrap();
        assert_eq!(cost(), 1, "remove");
    });
}

#[test]
fn a_later_mount_starts_without_the_server() {
    over(&[Kind::Moto], |server, remote| async move {
        let saved = remote.probe_text();
        assert!(!saved.contains(crate::servers::SECRET));
        let away = S3Options { bucket: "other".into(), ..server.bucket() };
        let start = |options, text: &str| from_saved(options, text, Arc::new(RealClock), Arc::new(RealChance::new()));
        assert_eq!(start(away, &saved).err().unwrap().kind, ErrorKind::Config);
        // The same place, but nobody there.
        let port = crate::servers::free_port();
        let own = Server::start(Kind::Moto).unwrap();
        let options = own.bucket();
        let saved = open(options.clone()).await.unwrap().probe_text();
        drop(own);
        let later = start(options, &saved).unwrap();
        assert_eq!(later.requests(), 0);
        assert!(later.capabilities().conditional_create, "what was found out is known");
        assert_eq!(later.stat(&at("a")).await.unwrap_err().kind, ErrorKind::Offline);
        let nobody = S3Options { endpoint: Some(format!("http://127.0.0.1:{port}")), ..server.bucket() };
        assert_eq!(open(nobody).await.err().unwrap().kind, ErrorKind::Offline);
    });
}

#[test]
fn what_cannot_work_is_said_at_connect() {
    over(&[Kind::Moto, Kind::S3sFs], |server, _| async move {
        let nowhere = S3Options { bucket: "not-there".into(), ..server.bucket() };
        let error = open(nowhere).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("no bucket \"not-there\""), "{error}");
        if server.kind == Kind::S3sFs {
            let wrong = S3Options { secret_access_key: Some("wrong".into()), ..server.bucket() };
            let error = open(wrong).await.err().unwrap();
            assert_eq!(error.kind, ErrorKind::SignIn, "{error}");
        }
    });
}

#[test]
fn a_read_only_mount_writes_nothing() {
    over(&[Kind::Moto], |server, _| async move {
        let options = S3Options { read_only: true, ..server.bucket() };
        let remote = open(options.clone()).await.unwrap();
        assert_eq!(remote.requests(), 1);
        assert_eq!(put(&*remote, "a", b"", Condition::Any).await.unwrap_err().kind, ErrorKind::ReadOnly);
        assert!(remote.sweep(None).await.unwrap().entries.is_empty());
        from_saved(options, &remote.probe_text(), Arc::new(RealClock), Arc::new(RealChance::new())).unwrap();
    });
}
