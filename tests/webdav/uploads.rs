//! Uploads that are cut: never a fragment where a good file was, nor under a new name.

use crate::bench::*;
use crate::servers::cut::Proxy;
use crate::servers::{Server, apache, nginx, rclone, wsgidav};
use fourwheel::error::{Kind, Retry};
use fourwheel::model::Meta;
use fourwheel::remote::webdav::{WebDav, WebDavOptions};
use fourwheel::remote::{Condition, PutRequest, Remote};
use std::sync::Arc;
use std::time::Duration;

const OLD: usize = 300_000;
const NEW: usize = 2_000_000;

fn servers() -> [(&'static str, Option<Server>); 4] {
    [
        ("apache", apache::start(apache::Login::Basic)),
        ("nginx", nginx::start()),
        ("rclone", rclone::start()),
        ("wsgidav", wsgidav::start()),
    ]
}

/// What must be so after a failed upload over `old` and under `new`, at once and a while later.
async fn nothing_broke(name: &str, dav: &WebDav, server: &Server) {
    for wait in [0, 400] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let entry = dav.stat(&at("old")).await.unwrap().unwrap();
        let whole = read(dav, "old", &version(&entry), 0..OLD as u64).await.unwrap();
        assert!(whole == pattern(1, OLD) && entry.size == OLD as u64, "{name}: the old file is not whole");
        assert_eq!(dav.stat(&at("new")).await.unwrap(), None, "{name}: a fragment under a new name");
        assert_eq!(names(dav, "").await, ["old"], "{name}");
        let disk = on_disk(&server.files);
        assert!(disk.iter().all(|file| file == "old" || file.starts_with(".~fw-")), "{name}: {disk:?}");
    }
}

#[tokio::test]
async fn a_source_that_fails_midway_leaves_no_fragment() {
    for (name, server) in servers() {
        let Some(server) = server else { continue };
        let dav = connect(&server).await;
        let old = put(&dav, "old", pattern(1, OLD), Condition::Absent).await.unwrap();
        for (path, condition) in
            [("new", Condition::Absent), ("old", Condition::Any), ("old", Condition::Is(version(&old)))]
        {
            let body = Arc::new(Memory { bytes: pattern(2, NEW), fails_at: Some(NEW as u64 / 2) });
            let result = dav.put(&at(path), PutRequest { body, meta: Meta::default(), condition }).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind, Kind::Changed, "{name}: {error}: the source's own error comes through");
            nothing_broke(name, &dav, &server).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_midway_leaves_no_fragment() {
    for (name, server) in servers() {
        let Some(server) = server else { continue };
        let proxy = Proxy::before(server.port);
        let dav = connect_with(WebDavOptions { endpoint: Some(proxy.endpoint()), ..options(&server) }).await.unwrap();
        let old = put(&dav, "old", pattern(1, OLD), Condition::Absent).await.unwrap();
        for (round, (path, condition)) in
            [("new", Condition::Absent), ("old", Condition::Any), ("old", Condition::Is(version(&old)))]
                .into_iter()
                .enumerate()
        {
            proxy.cut_after(NEW as i64 / 2);
            let error = put(&dav, path, pattern(2, NEW), condition).await.unwrap_err();
            assert_eq!(error.kind.retry(), Retry::Later, "{name}: {error}");
            assert_eq!(proxy.cuts(), round as u64 + 1, "{name}: the cut was in the upload");
            nothing_broke(name, &dav, &server).await;
        }
        for _ in 0..100 {
            if on_disk(&server.files) == ["old"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(on_disk(&server.files), ["old"], "{name}: the temporary names go");
        // The same call again goes through.
        let new = put(&dav, "old", pattern(2, NEW), Condition::Is(version(&old))).await.unwrap();
        assert!(read(&dav, "old", &version(&new), 0..NEW as u64).await.unwrap() == pattern(2, NEW), "{name}");
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_no_name_behind() {
    struct Slow(Memory);
    impl fourwheel::remote::Source for Slow {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read(&self, range: std::ops::Range<u64>) -> fourwheel::error::Result<bytes::Bytes> {
            std::thread::sleep(Duration::from_millis(100));
            self.0.read(range)
        }
    }
    let Some(server) = rclone::start() else { return };
    let dav = connect(&server).await;
    let body = Arc::new(Slow(Memory { bytes: pattern(2, 20_000_000), fails_at: None }));
    let request = PutRequest { body, meta: Meta::default(), condition: Condition::Absent };
    let given_up = tokio::time::timeout(Duration::from_millis(1000), dav.put(&at("new"), request)).await;
    assert!(given_up.is_err());
    for _ in 0..100 {
        if on_disk(&server.files).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", on_disk(&server.files));
}
