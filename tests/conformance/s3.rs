//! Accounts on real S3 servers: one server of a kind for all laws, a bucket of its own for each.

use super::Opened;
use super::s3_servers::{Kind, Server, open as connect};
use fourwheel::remote::s3::S3Options;

/// Laws that moto 5.2.5 breaks.
pub const MOTO: &[(&str, &str)] = &[("an_aborted_session_leaves_nothing", "500 for a part of an upload that is gone")];

/// Laws that s3s-fs 0.14.1 breaks: it keeps objects as files of a directory.
pub const S3S_FS: &[(&str, &str)] = &[
    ("of_rivals_the_refused_leave_nothing", "conditions are not checked in one step with the write"),
    ("a_directory_moves_with_all_below", "empty directories stay on its disk, and a look at such a name is 500"),
    ("a_deep_tree_works", "500 for a long path"),
    ("every_name_survives", "500 for a name of 255 bytes"),
    ("an_aborted_session_leaves_nothing", "403 for an upload that is gone"),
    ("a_session_goes_on_after_a_crash", "ListParts tells no etags"),
    ("of_rivals_one_wins", "conditions are not checked in one step with the write"),
];

/// Opens a fresh bucket, or a prefix of one.
pub async fn open(kind: Kind, prefix: &str) -> Option<Opened> {
    let server = Server::shared(kind)?;
    let options = S3Options { prefix: prefix.to_owned(), ..server.bucket() };
    let remote = connect(options).await.unwrap();
    Some(Opened { remote, keep: Some(Box::new(server)) })
}
