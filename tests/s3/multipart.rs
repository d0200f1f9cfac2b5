//! Upload sessions: parts in any order, going on after a crash, copies of parts, conditions.

use crate::helpers::{at, content, over, pattern, put};
use crate::servers::Kind;
use fourwheel::error::Kind as ErrorKind;
use fourwheel::model::{Meta, Version};
use fourwheel::remote::s3::from_saved;
use fourwheel::remote::{Condition, Remote, body};
use fourwheel::sys::{RealChance, RealClock};
use std::sync::Arc;

const PART: u64 = 5 << 20;

#[test]
fn an_upload_goes_on_where_a_crash_ended_it() {
    over(&[Kind::Moto, Kind::S3sFs], |server, remote| async move {
        let bytes = pattern(2 * PART as usize + 1_000, 1);
        let source = body(bytes.clone());
        let meta = Meta { mtime_ns: Some(5_000_000_001), mode: Some(0o600), xattrs: Some(Default::default()) };
        let session = remote.begin(&at("d/big"), source.size(), &meta, &Condition::Absent).await.unwrap();
        remote.part(&session, 2, source.clone(), PART..2 * PART).await.unwrap();
        assert_eq!(remote.stat(&at("d/big")).await.unwrap(), None, "nothing is there before the end");
        // Another process goes on with nothing but texts.
        let options = server.bucket_of(&remote);
        let later =
            from_saved(options, &remote.probe_text(), Arc::new(RealClock), Arc::new(RealChance::new())).unwrap();
        let have = later.parts(&session).await.unwrap();
        assert_eq!(have.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(), [(2, PART)]);
        later.part(&session, 3, source.clone(), 2 * PART..source.size()).await.unwrap();
        later.part(&session, 1, source.clone(), 0..PART).await.unwrap();
        later.part(&session, 1, source.clone(), 0..PART).await.unwrap();
        let parts = later.parts(&session).await.unwrap();
        let entry = later.finish(&session, &parts, &meta, &Condition::Absent).await.unwrap();
        assert_eq!((entry.size, entry.meta.as_ref()), (source.size(), Some(&meta)));
        let found = later.stat(&at("d/big")).await.unwrap().unwrap();
        assert_eq!((&found.version, &found.meta), (&entry.version, &Some(meta.clone())));
        assert!(content(&*later, "d/big").await == bytes);
        if server.kind == Kind::Moto {
            // The answer of `finish` was lost: a repeated one finds the work done.
            let again = later.finish(&session, &parts, &meta, &Condition::Absent).await.unwrap();
            assert_eq!(again.version, entry.version);
        }
    });
}

#[test]
fn conditions_hold_at_the_end_and_what_was_there_stays() {
    over(&[Kind::Moto, Kind::S3sFs], |_, remote| async move {
        let bytes = pattern(1_000, 2);
        let source = body(bytes.clone());
        let session = remote.begin(&at("f"), 1_000, &Meta::default(), &Condition::Absent).await.unwrap();
        let part = remote.part(&session, 1, source.clone(), 0..1_000).await.unwrap();
        let old = put(&*remote, "f", b"came first", Condition::Absent).await.unwrap().version.unwrap();
        let finish = async |condition: Condition| {
            remote.finish(&session, std::slice::from_ref(&part), &Meta::default(), &condition).await
        };
        assert_eq!(finish(Condition::Absent).await.unwrap_err().kind, ErrorKind::Precondition);
        assert_eq!(finish(Condition::Is(Version::new("other"))).await.unwrap_err().kind, ErrorKind::Precondition);
        assert_eq!(content(&*remote, "f").await, b"came first");
        finish(Condition::Is(old)).await.unwrap();
        assert_eq!(content(&*remote, "f").await, bytes);
    });
}

#[test]
fn attributes_that_changed_meanwhile_are_the_ones_stored() {
    over(&[Kind::Moto], |_, remote| async move {
        let source = body(pattern(1_000, 3));
        let session = remote.begin(&at("f"), 1_000, &Meta::default(), &Condition::Absent).await.unwrap();
        let part = remote.part(&session, 1, source, 0..1_000).await.unwrap();
        let meta = Meta { mtime_ns: Some(9), mode: Some(0o640), xattrs: Some(Default::default()) };
        let entry = remote.finish(&session, &[part], &meta, &Condition::Absent).await.unwrap();
        let found = remote.stat(&at("f")).await.unwrap().unwrap();
        assert_eq!((found.meta, found.version), (Some(meta), entry.version));
    });
}

#[test]
fn a_dropped_upload_is_gone() {
    over(&[Kind::Moto, Kind::S3sFs], |server, remote| async move {
        let session = remote.begin(&at("f"), 10, &Meta::default(), &Condition::Absent).await.unwrap();
        remote.abort(&session).await.unwrap();
        remote.abort(&session).await.unwrap();
        // moto answers 500 to a part of an upload that it does not know.
        if server.kind != Kind::Moto {
            let part = remote.part(&session, 1, body(vec![0; 10]), 0..10).await;
            assert_eq!(part.unwrap_err().kind, ErrorKind::NotFound);
        }
        assert_eq!(remote.parts(&session).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(remote.stat(&at("f")).await.unwrap(), None);
    });
}

#[test]
fn unchanged_parts_are_copied_by_the_server() {
    over(&[Kind::Moto, Kind::S3sFs], |_, remote| async move {
        let mut bytes = pattern(2 * PART as usize + 500, 4);
        let old = put(&*remote, "big +%41", &bytes, Condition::Absent).await.unwrap().version.unwrap();
        bytes[PART as usize + 7] ^= 1;
        let source = body(bytes.clone());
        let session =
            remote.begin(&at("big +%41"), source.size(), &Meta::default(), &Condition::Is(old.clone())).await.unwrap();
        let from = at("big +%41");
        let wrong = remote.part_copy(&session, 1, &from, &Version::new("other"), 0..PART).await;
        assert_eq!(wrong.unwrap_err().kind, ErrorKind::Changed);
        let parts = [
            remote.part_copy(&session, 1, &from, &old, 0..PART).await.unwrap(),
            remote.part(&session, 2, source.clone(), PART..2 * PART).await.unwrap(),
            remote.part_copy(&session, 3, &from, &old, 2 * PART..source.size()).await.unwrap(),
        ];
        remote.finish(&session, &parts, &Meta::default(), &Condition::Is(old)).await.unwrap();
        assert!(content(&*remote, "big +%41").await == bytes);
    });
}
