//! Connecting: what is found out of each server, kept, and believed later; and what goes wrong.

use crate::bench::*;
use crate::servers::{Server, apache, free_port, nginx, rclone};
use fourwheel::error::Kind;
use fourwheel::model::Meta;
use fourwheel::remote::webdav::{Flavor, WebDav, WebDavOptions};
use fourwheel::remote::{ChangeFeed, Condition, Remote};
use fourwheel::sys::{RealChance, RealClock};
use std::process::Command;
use std::sync::Arc;

fn from_saved(server: &Server, saved: &str) -> fourwheel::error::Result<Arc<WebDav>> {
    WebDav::from_saved(options(server), saved, Arc::new(RealClock), Arc::new(RealChance::new()))
}

#[tokio::test]
async fn apache_is_known_and_obeys() {
    let Some(server) = apache::start(apache::Login::Basic) else { return };
    let dav = connect(&server).await;
    let able = dav.capabilities();
    assert_eq!(dav.flavor(), Flavor::Apache);
    assert!(able.conditional_create && able.conditional_replace && able.conditional_remove && able.copy);
    assert!(!able.whole_tree && able.changes == ChangeFeed::None && able.sessions.is_none());
    assert!(able.meta.with_upload && able.meta.alone && able.meta.directories && able.meta.mode);
    assert_eq!(able.meta.mtime_step_ns, 1);
}

#[tokio::test]
async fn nginx_is_known_and_ignores_conditions() {
    let Some(server) = nginx::start() else { return };
    let dav = connect(&server).await;
    let able = dav.capabilities();
    assert_eq!(dav.flavor(), Flavor::Nginx);
    assert!(!able.conditional_create && !able.conditional_replace && !able.conditional_remove);
    assert!(!able.meta.with_upload && !able.meta.alone && able.meta.mtime_step_ns == 0 && !able.whole_tree);
}

#[tokio::test]
async fn rclone_is_not_trusted() {
    let Some(server) = rclone::start() else { return };
    let dav = connect(&server).await;
    let able = dav.capabilities();
    assert_eq!(dav.flavor(), Flavor::Other);
    assert!(!able.conditional_create && !able.conditional_replace && able.whole_tree);
    assert_eq!((able.meta.with_upload, able.meta.mtime_step_ns), (true, 1_000_000_000));
}

#[tokio::test]
async fn a_whole_tree_is_swept_page_by_page() {
    let with_depth = apache::start_with(apache::Login::Basic, "DavDepthInfinity on");
    for server in [rclone::start(), with_depth].into_iter().flatten() {
        let dav = connect(&server).await;
        assert!(dav.capabilities().whole_tree, "{:?}", dav.flavor());
        for path in ["a", "a/b", "a/b/c", "d"] {
            dav.mkdir(&at(path), &Meta::default()).await.unwrap();
            put(&dav, &format!("{path}/f"), "x", Condition::Absent).await.unwrap();
        }
        let (mut page, mut found) = (None, Vec::new());
        loop {
            let listing = dav.sweep(page).await.unwrap();
            found.extend(listing.entries.into_iter().map(|(path, _)| path.as_str().to_owned()));
            page = listing.next;
            if page.is_none() {
                break;
            }
        }
        found.sort();
        assert_eq!(found, ["a", "a/b", "a/b/c", "a/b/c/f", "a/b/f", "a/f", "d", "d/f"]);
    }
    let Some(server) = nginx::start() else { return };
    assert_eq!(kind(connect(&server).await.sweep(None).await), Kind::Unsupported);
}

#[tokio::test]
async fn a_mount_starts_from_what_was_kept_with_the_server_down() {
    let Some(server) = apache::start(apache::Login::Digest) else { return };
    let dav = connect(&server).await;
    put(&dav, "f", "x", Condition::Absent).await.unwrap();
    let saved = dav.probe_text();
    assert!(!saved.contains("pass word"), "no secret is kept");
    let again = from_saved(&server, &saved).unwrap();
    assert_eq!(again.capabilities(), dav.capabilities());
    assert_eq!(names(&again, "").await, ["f"]);
    assert!(again.is_same_server().await.unwrap());
    let mut gone = options(&server);
    drop(server);
    gone.endpoint = Some(format!("http://127.0.0.1:{}", free_port()));
    let offline = WebDav::from_saved(gone.clone(), &saved, Arc::new(RealClock), Arc::new(RealChance::new())).unwrap();
    assert_eq!(offline.capabilities(), dav.capabilities());
    assert_eq!(kind(offline.stat(&at("f")).await), Kind::Offline);
    gone.user = "other".into();
    let other = WebDav::from_saved(gone, &saved, Arc::new(RealClock), Arc::new(RealChance::new()));
    assert_eq!(other.err().map(|e| e.kind), Some(Kind::Config));
}

#[tokio::test]
async fn a_wrong_password_asks_for_a_sign_in() {
    for login in [apache::Login::Basic, apache::Login::Digest] {
        let Some(server) = apache::start(login) else { return };
        let wrong = WebDavOptions { password: "wrong".into(), ..options(&server) };
        let error = connect_with(wrong).await.err().unwrap();
        assert_eq!(error.kind, Kind::SignIn, "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let token = WebDavOptions { user: String::new(), bearer: Some("t0ken".into()), ..options(&server) };
        assert_eq!(connect_with(token).await.err().map(|e| e.kind), Some(Kind::SignIn));
    }
}

#[tokio::test]
async fn an_address_that_is_no_collection_is_refused() {
    let Some(server) = apache::start(apache::Login::Basic) else { return };
    let at_url = |url: String| connect_with(WebDavOptions { url, ..options(&server) });
    std::fs::write(server.files.join("file"), "x").unwrap();
    assert_eq!(at_url(format!("{}none/", server.url)).await.err().map(|e| e.kind), Some(Kind::NotFound));
    assert!(at_url(format!("{}file", server.url)).await.is_err());
    assert_eq!(at_url("ftp://127.0.0.1/".into()).await.err().map(|e| e.kind), Some(Kind::Config));
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    assert_eq!(at_url(nobody).await.err().map(|e| e.kind), Some(Kind::Offline));
}

#[tokio::test]
async fn a_read_only_drive_writes_nothing_not_even_probes() {
    let Some(server) = apache::start(apache::Login::Basic) else { return };
    std::fs::write(server.files.join("f"), "x").unwrap();
    let before = std::fs::metadata(&server.files).unwrap().modified().unwrap();
    let dav = connect_with(WebDavOptions { read_only: true, ..options(&server) }).await.unwrap();
    assert_eq!(names(&dav, "").await, ["f"]);
    assert_eq!(kind(put(&dav, "g", "x", Condition::Any).await), Kind::ReadOnly);
    assert_eq!(kind(dav.remove(&at("f"), false, &Condition::Any).await), Kind::ReadOnly);
    assert_eq!(std::fs::metadata(&server.files).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn our_stale_names_are_swept_and_no_others() {
    let Some(server) = apache::start(apache::Login::Basic) else { return };
    for name in [".~fw-00000000000000aa", ".~fw-00000000000000bb", ".~fw-mine", "old"] {
        std::fs::write(server.files.join(name), "x").unwrap();
    }
    for name in [".~fw-00000000000000aa", ".~fw-mine", "old"] {
        let done = Command::new("touch").args(["-d", "2 days ago"]).arg(server.files.join(name)).status().unwrap();
        assert!(done.success());
    }
    Command::new("chown").args(["-R", "www-data"]).arg(&server.files).status().unwrap();
    let dav = connect(&server).await;
    assert_eq!(on_disk(&server.files), [".~fw-00000000000000bb", ".~fw-mine", "old"]);
    assert_eq!(names(&dav, "").await, [".~fw-mine", "old"], "a young one is kept, and not shown");
    assert_eq!(dav.stat(&at(".~fw-00000000000000bb")).await.unwrap(), None);
}
