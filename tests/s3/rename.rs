//! Renames of whole directories, broken off and repeated.

use crate::helpers::{at, content, names, over, put, sweep};
use crate::servers::Kind;
use fourwheel::error::Kind as ErrorKind;
use fourwheel::model::Meta;
use fourwheel::remote::s3::S3Remote;
use fourwheel::remote::{Condition, Remote};
use std::time::Duration;

/// A small tree with a marker, an implied directory and odd names.
async fn plant(remote: &S3Remote, root: &str, files: usize) -> Vec<(String, Vec<u8>)> {
    let meta = Meta { mode: Some(0o711), ..Meta::default() };
    remote.mkdir(&at(root), &meta).await.unwrap();
    remote.mkdir(&at(&format!("{root}/empty")), &Meta::default()).await.unwrap();
    let mut planted = Vec::new();
    for n in 0..files {
        let name = format!("sub {}/é+%41 {n}", n % 3);
        let bytes = format!("content {n}").into_bytes();
        put(remote, &format!("{root}/{name}"), &bytes, Condition::Absent).await.unwrap();
        planted.push((name, bytes));
    }
    planted
}

async fn check(remote: &S3Remote, root: &str, planted: &[(String, Vec<u8>)]) {
    for (name, bytes) in planted {
        assert_eq!(content(remote, &format!("{root}/{name}")).await, *bytes);
    }
    let found = remote.stat(&at(root)).await.unwrap().unwrap();
    assert_eq!(found.meta.unwrap().mode, Some(0o711), "the marker's attributes came along");
    assert!(remote.stat(&at(&format!("{root}/empty"))).await.unwrap().is_some());
}

#[test]
fn a_directory_moves_with_all_below() {
    over(&[Kind::Moto], |_, remote| async move {
        let planted = plant(&remote, "from", 30).await;
        put(&*remote, "fromage", b"beside", Condition::Absent).await.unwrap();
        remote.rename(&at("from"), &at("to/there"), None, &Condition::Absent).await.unwrap();
        check(&remote, "to/there", &planted).await;
        assert_eq!(remote.stat(&at("from")).await.unwrap(), None);
        assert_eq!(content(&*remote, "fromage").await, b"beside");
        let again = remote.rename(&at("from"), &at("to/there"), None, &Condition::Absent).await;
        assert_eq!(again.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(sweep(&*remote).await.len(), 1 + 2 + 1 + 3 + 30);
    });
}

#[test]
fn a_rename_goes_on_wherever_it_was_broken_off() {
    over(&[Kind::Moto], |_, remote| async move {
        let planted = plant(&remote, "d0", 40).await;
        let mut cuts = 0;
        for (round, stop_after) in (0..).map(|n| 3 + n * 11).take(16).enumerate() {
            let (from, to) = (format!("d{round}"), format!("d{}", round + 1));
            let limit = remote.requests() + stop_after;
            let places = (at(&from), at(&to));
            let whole = tokio::select! {
                biased;
                done = remote.rename(&places.0, &places.1, None, &Condition::Absent) => Some(done),
                () = async {
                    while remote.requests() < limit {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                } => None,
            };
            match whole {
                Some(done) => drop(done.unwrap()),
                None => {
                    cuts += 1;
                    // Everything is at one of the two places, if not at both.
                    let all = sweep(&*remote).await;
                    for (name, _) in &planted {
                        let there = [&from, &to].iter().any(|root| all.contains_key(&format!("{root}/{name}")));
                        assert!(there, "{name} is gone after {stop_after} requests: {:?}", names(&all));
                    }
                    remote.rename(&at(&from), &at(&to), None, &Condition::Absent).await.unwrap();
                }
            }
            check(&remote, &to, &planted).await;
            assert_eq!(remote.stat(&at(&from)).await.unwrap(), None, "after {stop_after} requests");
            assert_eq!(sweep(&*remote).await.len(), 1 + 1 + 3 + 40);
        }
        assert!(cuts >= 8, "only {cuts} renames were broken off");
    });
}

#[test]
fn what_others_put_in_the_way_is_not_overwritten() {
    over(&[Kind::Moto], |_, remote| async move {
        plant(&remote, "from", 3).await;
        put(&*remote, "full/x", b"there", Condition::Absent).await.unwrap();
        put(&*remote, "file", b"there", Condition::Absent).await.unwrap();
        let before = sweep(&*remote).await;
        for to in ["full", "file", "from/below"] {
            for condition in [Condition::Absent, Condition::Any] {
                assert!(remote.rename(&at("from"), &at(to), None, &condition).await.is_err(), "{to}");
            }
        }
        assert_eq!(names(&sweep(&*remote).await), names(&before));
    });
}
