//! Names that a Linux program may use come through, to the remote and back.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::support::posix::errno;
use crate::{Cloud, on_a_mount};

fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        " leading and trailing ",
        "dots...",
        ".hidden",
        "~tilde",
        "new\nline",
        "tab\there",
        "quote'\"`$(x)",
        "back\\slash",
        "a:b*c?d<e>f|g",
        "100%25",
        "plus+&=#;@!",
        "한글 이름.txt",
        "e\u{301} and \u{e9}",
        "\u{1f697}",
        "CON",
        "nul.txt",
        "－full－width／",
        "a.fourwheel",
    ]
    .iter()
    .map(OsString::from)
    .collect();
    names.push("n".repeat(255).into());
    names.push("é".repeat(127).into());
    names.push(OsString::from_vec(b"not \xff utf-8 \xfe".to_vec()));
    names.sort();
    names
}

#[test]
fn odd_names_return_on_another_machine() {
    let cloud = Cloud::new();
    let drive = cloud.drive();
    let mount = drive.mount();
    for name in odd_names() {
        fs::write(mount.at(&name), name.as_bytes()).unwrap_or_else(|e| panic!("create {name:?}: {e}"));
    }
    fs::create_dir(mount.at("d?*")).unwrap();
    fs::write(mount.at("d?*/in\\side"), "x").unwrap();
    mount.wait_saved();
    mount.unmount();
    let other = cloud.drive();
    let mount = other.mount();
    let mut found: Vec<OsString> = fs::read_dir(mount.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    found.retain(|name| name != "d?*");
    found.sort();
    assert_eq!(found, odd_names());
    for name in odd_names() {
        assert_eq!(fs::read(mount.at(&name)).unwrap(), name.as_bytes(), "{name:?}");
    }
    assert_eq!(fs::read(mount.at("d?*/in\\side")).unwrap(), b"x");
}

#[test]
fn a_name_that_is_too_long_is_refused_at_once() {
    on_a_mount(|mount, _| {
        assert_eq!(errno(fs::write(mount.at("n".repeat(256)), "")), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(mount.at("n".repeat(256)))), libc::ENAMETOOLONG);
    });
}

#[test]
fn names_that_differ_in_case_are_two_files() {
    on_a_mount(|mount, cloud| {
        fs::write(mount.at("a.txt"), "small").unwrap();
        fs::write(mount.at("A.txt"), "large").unwrap();
        mount.wait_saved();
        assert_eq!(cloud.names(), ["A.txt", "a.txt"]);
        assert_eq!(fs::read(mount.at("a.txt")).unwrap(), b"small");
    });
}
