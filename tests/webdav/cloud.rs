//! What Nextcloud and ownCloud have beyond plain WebDAV, over the emulator.

use crate::bench::*;
use crate::servers::nextcloud::{self, Cloud};
use fourwheel::error::Kind;
use fourwheel::model::{HashKind, Meta};
use fourwheel::remote::webdav::{Flavor, WebDav, WebDavOptions};
use fourwheel::remote::{ChangeFeed, Condition, Remote};

const ALL: [Cloud; 3] = [Cloud::Nextcloud, Cloud::OldNextcloud, Cloud::OwnCloud];

#[tokio::test]
async fn they_are_known_by_what_they_do() {
    for cloud in ALL {
        let Some(server) = nextcloud::start(cloud) else { return };
        let dav = connect(&server).await;
        let able = dav.capabilities();
        let expected = if cloud == Cloud::OwnCloud { Flavor::OwnCloud } else { Flavor::Nextcloud };
        assert_eq!(dav.flavor(), expected, "{cloud:?}");
        assert!(able.stable_ids && able.conditional_create && able.conditional_replace && able.conditional_remove);
        assert!(able.sessions.is_some() && able.changes == ChangeFeed::EtagTree && !able.whole_tree);
        assert!(able.meta.with_upload && able.meta.alone && able.meta.mode && able.meta.mtime_step_ns == 1);
        assert_eq!(names(&dav, "").await, Vec::<String>::new());
        let quota = dav.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.available_bytes), (Some(7), None), "-3 is no number of bytes");
    }
}

#[tokio::test]
async fn a_token_signs_in() {
    let Some(server) = nextcloud::start(Cloud::OwnCloud) else { return };
    let with = |token: &str| WebDavOptions { user: String::new(), bearer: Some(token.into()), ..options(&server) };
    let dav = connect_with(with("t0ken")).await.unwrap();
    put(&dav, "f", "x", Condition::Absent).await.unwrap();
    assert_eq!(connect_with(with("wrong")).await.err().map(|e| e.kind), Some(Kind::SignIn));
}

#[tokio::test]
async fn owncloud_states_hashes_that_hold() {
    let Some(server) = nextcloud::start(Cloud::OwnCloud) else { return };
    let dav = connect(&server).await;
    let hash = put(&dav, "f", "abc", Condition::Absent).await.unwrap().hash.unwrap();
    assert_eq!((hash.kind, hash.hex.as_str()), (HashKind::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"));
}

/// Sends `bytes` in a session of three parts, out of order; gives the session's end.
async fn in_parts(
    dav: &WebDav,
    path: &str,
    bytes: &[u8],
    condition: &Condition,
    meta: &Meta,
) -> fourwheel::error::Result<fourwheel::model::Entry> {
    let size = bytes.len() as u64;
    let session = dav.begin(&at(path), size, meta, condition).await?;
    let step = size / 3;
    for (number, range) in [(3, 2 * step..size), (1, 0..step), (2, step..2 * step)] {
        dav.part(&session, number, body(bytes), range).await?;
    }
    let parts = dav.parts(&session).await?;
    assert_eq!(parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>()[..2], [(1, step), (2, step)]);
    let ended = dav.finish(&session, &parts, meta, condition).await;
    if ended.is_err() {
        dav.abort(&session).await?;
    }
    assert_eq!(kind(dav.parts(&session).await), Kind::NotFound, "the session is gone");
    dav.abort(&session).await?;
    ended
}

#[tokio::test]
async fn sessions_obey_their_conditions_whatever_the_server_reads_them_as() {
    for cloud in ALL {
        let Some(server) = nextcloud::start(cloud) else { return };
        let dav = connect(&server).await;
        let meta = Meta { mtime_ns: Some(1_500_000_000_123_000_000), mode: Some(0o640), xattrs: None };
        let bytes = pattern(3, 1_000_000);
        let first = in_parts(&dav, "f", &bytes, &Condition::Absent, &meta).await.unwrap();
        let told = first.meta.clone().unwrap();
        assert_eq!((first.size, told.mtime_ns, told.mode), (1_000_000, meta.mtime_ns, meta.mode), "{cloud:?}");
        assert!(read(&dav, "f", &version(&first), 0..1_000_000).await.unwrap() == bytes, "{cloud:?}");
        assert_eq!(kind(in_parts(&dav, "f", &bytes, &Condition::Absent, &meta).await), Kind::Precondition);
        let second = in_parts(&dav, "f", &pattern(4, 600_000), &Condition::Is(version(&first)), &meta).await.unwrap();
        assert_eq!(second.id, first.id, "{cloud:?}: the file is the same");
        let stale = in_parts(&dav, "f", &bytes, &Condition::Is(version(&first)), &meta).await;
        assert_eq!(kind(stale), Kind::Precondition, "{cloud:?}");
        // Somebody else writes between the last part and the end.
        let session = dav.begin(&at("f"), 3, &meta, &Condition::Is(version(&second))).await.unwrap();
        let part = dav.part(&session, 1, body("abc"), 0..3).await.unwrap();
        let foreign = put(&dav, "f", "foreign", Condition::Any).await.unwrap();
        let end = dav.finish(&session, &[part], &meta, &Condition::Is(version(&second))).await;
        assert_eq!(kind(end), Kind::Precondition, "{cloud:?}");
        assert_eq!(read(&dav, "f", &version(&foreign), 0..7).await.unwrap(), b"foreign");
        assert_eq!(kind(dav.begin(&at("none/f"), 3, &meta, &Condition::Any).await), Kind::NotFound);
    }
}
