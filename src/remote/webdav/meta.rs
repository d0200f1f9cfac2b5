//! Attributes as dead properties (RFC 4918, 4) in a namespace of our own, and the native times of servers that have them.
//!
//! | property | text |
//! |---|---|
//! | `mtime` | nanoseconds since 1970, and for a file a blank and its version, escaped |
//! | `mode` | permission bits, octal |
//! | `xattrs` | JSON: name → value in base64 |
//!
//! An mtime belongs to one content: when somebody else writes the file, the property stays, so the version beside it tells
//! that it no longer holds. Mode and xattrs belong to the file, as on a local disk.

use super::probe::Probed;
use super::props::Props;
use super::wire::namespace;
use crate::model::{Meta, Version};
use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use quick_xml::escape::escape;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What an update says besides the longest property, bytes: its frame, the time and the mode.
pub(super) const UPDATE_BYTES: usize = 2048;

const SECOND_NS: i64 = 1_000_000_000;

/// The attributes that properties tell of; `version` is the content they are read with.
pub(super) fn read(props: &Props, version: Option<&Version>, probed: &Probed) -> Meta {
    let native = props.modified_ns.filter(|_| !props.collection && probed.keeps_mtime());
    if !probed.has_properties() {
        return Meta { mtime_ns: native, mode: mode(props, probed), xattrs: None };
    }
    let ours = props.mtime.as_deref().and_then(|text| mtime(text, version, props.collection));
    Meta {
        // Where the server keeps times, ours only adds what is below a second.
        mtime_ns: match (ours, native) {
            (Some(ours), Some(native)) if ours.div_euclid(SECOND_NS) != native.div_euclid(SECOND_NS) => Some(native),
            (ours, native) => ours.or(native),
        },
        mode: mode(props, probed),
        xattrs: Some(props.xattrs.as_deref().and_then(xattrs).unwrap_or_default()),
    }
}

fn mode(props: &Props, probed: &Probed) -> Option<u32> {
    let ours = props.mode.as_deref().and_then(|text| u32::from_str_radix(text, 8).ok()).filter(|mode| *mode <= 0o7777);
    // Apache's own property tells of files that others made executable on the server.
    ours.or((probed.executable && !props.collection && props.executable == Some(true)).then_some(0o755))
}

fn mtime(text: &str, version: Option<&Version>, directory: bool) -> Option<i64> {
    let (time, of) = text.split_once(' ').unwrap_or((text, ""));
    let holds = directory
        || match (percent_decode_str(of).decode_utf8(), version) {
            (Ok(of), Some(version)) => of == version.as_str(),
            _ => false,
        };
    time.parse().ok().filter(|_| holds)
}

fn xattrs(text: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let coded: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    coded.into_iter().map(|(name, value)| Some((name, BASE64_STANDARD.decode(value).ok()?))).collect()
}

fn xattrs_text(xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    let coded: BTreeMap<&str, String> =
        xattrs.iter().map(|(name, value)| (name.as_str(), BASE64_STANDARD.encode(value))).collect();
    serde_json::to_string(&coded).unwrap_or_default()
}

/// Of `wanted`, what `have` does not say already. A time is compared in the server's own steps.
pub(super) fn missing(have: Option<&Meta>, wanted: &Meta, probed: &Probed) -> Meta {
    let nothing = Meta::default();
    let have = have.unwrap_or(&nothing);
    let step = if probed.has_properties() { 1 } else { SECOND_NS };
    let same_time = |a: Option<i64>, b: Option<i64>| a.map(|ns| ns.div_euclid(step)) == b.map(|ns| ns.div_euclid(step));
    Meta {
        mtime_ns: wanted.mtime_ns.filter(|_| !same_time(wanted.mtime_ns, have.mtime_ns)),
        mode: wanted.mode.filter(|_| wanted.mode != have.mode),
        xattrs: wanted.xattrs.clone().filter(|_| wanted.xattrs != have.xattrs),
    }
}

/// Of `wanted`, what this server can hold at all.
pub(super) fn possible(wanted: &Meta, directory: bool, probed: &Probed) -> Meta {
    let properties = probed.has_properties() && (!directory || probed.directory_properties);
    Meta {
        mtime_ns: wanted.mtime_ns.filter(|_| properties || (!directory && probed.mtime_alone)),
        mode: wanted.mode.filter(|_| properties),
        xattrs: wanted.xattrs.clone().filter(|_| properties),
    }
}

/// `wanted` where it says something, else `have`.
pub(super) fn over(have: &Meta, wanted: &Meta) -> Meta {
    Meta {
        mtime_ns: wanted.mtime_ns.or(have.mtime_ns),
        mode: wanted.mode.or(have.mode),
        xattrs: wanted.xattrs.clone().or_else(|| have.xattrs.clone()),
    }
}

/// A PROPPATCH body (RFC 4918, 9.2) that sets `meta`; `version` is the content that the mtime belongs to.
pub(super) fn update(meta: &Meta, version: Option<&Version>, directory: bool, probed: &Probed) -> String {
    let mut set = String::new();
    if let Some(ns) = meta.mtime_ns {
        let of = match version {
            Some(version) if !directory => format!(" {}", utf8_percent_encode(version.as_str(), NON_ALPHANUMERIC)),
            _ => String::new(),
        };
        property(&mut set, "F:mtime", &format!("{ns}{of}"));
    }
    if let Some(mode) = meta.mode {
        property(&mut set, "F:mode", &format!("{:o}", mode & 0o7777));
        if probed.executable && !directory {
            property(&mut set, "A:executable", if mode & 0o100 == 0 { "F" } else { "T" });
        }
    }
    if let Some(xattrs) = &meta.xattrs {
        property(&mut set, "F:xattrs", &xattrs_text(xattrs));
    }
    propertyupdate(&set)
}

/// A PROPPATCH body that sets the server's own time, which has whole seconds (ownCloud, Nextcloud, rclone serve).
pub(super) fn update_native_time(mtime_ns: i64) -> String {
    let mut set = String::new();
    property(&mut set, "D:lastmodified", &seconds(mtime_ns));
    propertyupdate(&set)
}

/// Whole seconds since 1970, as X-OC-Mtime and `lastmodified` take them.
pub(super) fn seconds(mtime_ns: i64) -> String {
    mtime_ns.div_euclid(SECOND_NS).to_string()
}

fn property(set: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = write!(set, "<{name}>{}</{name}>", escape(text));
}

fn propertyupdate(set: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:propertyupdate xmlns:D=\"DAV:\" xmlns:F=\"{}\" xmlns:A=\"{}\">\
         <D:set><D:prop>{set}</D:prop></D:set></D:propertyupdate>",
        namespace::OURS,
        namespace::APACHE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apache() -> Probed {
        Probed { property_bytes: 1 << 16, directory_properties: true, executable: true, ..Probed::default() }
    }

    fn all() -> Meta {
        let xattrs = BTreeMap::from([("user.ü<&>".to_owned(), vec![0, 255, 7]), ("user.empty".to_owned(), vec![])]);
        Meta { mtime_ns: Some(-1_500_000_000), mode: Some(0o4755), xattrs: Some(xattrs) }
    }

    #[test]
    fn a_time_holds_only_for_the_content_it_was_written_with() {
        let (v1, v2) = (Version::new("1-\"&"), Version::new("2"));
        let text = format!("5 {}", utf8_percent_encode(v1.as_str(), NON_ALPHANUMERIC));
        assert_eq!(mtime(&text, Some(&v1), false), Some(5));
        assert_eq!(mtime(&text, Some(&v2), false), None);
        assert_eq!(mtime(&text, None, false), None);
        assert_eq!(mtime("5", None, true), Some(5));
        assert_eq!(mtime("x", None, true), None);
    }

    #[test]
    fn xattrs_survive_their_text() {
        let meta = all();
        let text = xattrs_text(meta.xattrs.as_ref().unwrap());
        assert_eq!(xattrs(&text), meta.xattrs);
        assert_eq!(xattrs("{\"user.a\":\"?\"}"), None);
        assert_eq!(xattrs("[]"), None);
    }

    #[test]
    fn only_differences_are_sent() {
        assert_eq!(missing(Some(&all()), &all(), &apache()), Meta::default());
        let wanted = Meta { mode: Some(0o600), ..all() };
        assert_eq!(missing(Some(&all()), &wanted, &apache()), Meta { mode: Some(0o600), ..Meta::default() });
        let native = Probed { mtime_with_upload: true, ..Probed::default() };
        let (a, b) = (
            Meta { mtime_ns: Some(5_000_000_000), ..Meta::default() },
            Meta { mtime_ns: Some(5_999_999_999), ..Meta::default() },
        );
        assert_eq!(missing(Some(&a), &b, &native), Meta::default());
    }

    #[test]
    fn bodies_are_well_formed() {
        let body = update(&all(), Some(&Version::new("a\"<")), false, &apache());
        assert!(body.contains("<F:mode>4755</F:mode><A:executable>T</A:executable>"), "{body}");
        assert!(!body.contains("ü<"), "{body}");
    }
}
